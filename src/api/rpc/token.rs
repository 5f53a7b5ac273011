//! `token.*`: who may come in.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Role;
use super::super::auth::{NewToken, TokenBook, TokenSource};
use super::method::{Call, CallResult, NoParams, json, now};
use crate::clock::Timestamp;
use crate::ids::{AgentId, TokenName, TownId};

/// Parameters of `token.create`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateParams {
    /// What the audit shall show.
    name: TokenName,
    /// What it may do.
    role: Role,
    /// For role `agent`: the town it is bound to.
    town: Option<TownId>,
    /// For role `agent`: the agent it is bound to.
    agent: Option<AgentId>,
}

/// The only time a token is seen.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Created {
    name: TokenName,
    role: Role,
    /// The token: keep it, it is not shown again.
    token: String,
}

/// Makes a token.
pub(crate) fn create(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let params: CreateParams = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let CreateParams { name, role, town, agent } = params;
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let make = async move {
        let new = NewToken { name: name.clone(), role, town, agent };
        let token = state.doors.tokens.create(&*state.sources.journal, &actor, new).await?;
        json(&Created { name, role, token })
    };
    make.boxed()
}

/// The tokens there are.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TokenList {
    tokens: Vec<TokenEntry>,
}

/// A token, without its text.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TokenEntry {
    name: TokenName,
    role: Role,
    /// Where it comes from.
    source: TokenSource,
    /// When it was made; not known of those in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Timestamp>,
    /// The town it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    town: Option<TownId>,
    /// The agent it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentId>,
}

impl TokenList {
    /// Every token of a book.
    pub(crate) fn of(book: &TokenBook) -> Self {
        let entry = |token: std::sync::Arc<super::super::auth::Token>| TokenEntry {
            name: token.name.clone(),
            role: token.role,
            source: token.source,
            created_at: token.created,
            town: token.town.clone(),
            agent: token.agent.clone(),
        };
        Self { tokens: book.list().into_iter().map(entry).collect() }
    }
}

/// Lists the tokens.
pub(crate) fn list(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    now(call.params().map(|NoParams {}| TokenList::of(&call.state().doors.tokens)))
}

/// Parameters of `token.revoke`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeParams {
    /// The token's name.
    name: TokenName,
}

/// A token that is no more.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Revoked {
    /// Always true.
    revoked: bool,
}

/// Ends a token.
pub(crate) fn revoke(call: Call<'_>) -> BoxFuture<'static, CallResult> {
    let RevokeParams { name } = match call.params() {
        Ok(params) => params,
        Err(error) => return now(Err::<(), _>(error)),
    };
    let (state, actor) = (call.state().clone(), call.ctx.identity.actor.clone());
    let end = async move {
        state.doors.tokens.revoke(&*state.sources.journal, &actor, &name).await?;
        json(&Revoked { revoked: true })
    };
    end.boxed()
}
