//! Who asks: tokens, their roles, failed attempts.
//!
//! Tokens are 256 random bits; only their SHA-256 is kept, and it is compared in constant time. A token made at run
//! time lives in the journal's stream `operator` and survives a restart as a fold. Start at [`TokenBook`].

mod failures;
mod rate;
mod refusals;
mod token;

pub(crate) use failures::Failures;
pub(crate) use rate::Rate;
pub(crate) use refusals::Refusals;
pub use token::{InvalidTokens, TokenBook};
pub(crate) use token::{NewToken, ONLY_AGENTS_ARE_BOUND, Token, TokenError, TokenSource};

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Role;
use crate::journal::Actor;

/// Who asks, once that is known.
#[derive(Clone)]
pub(crate) struct Identity {
    /// What the audit shows.
    pub(crate) actor: Actor,
    /// What it may do.
    pub(crate) role: Role,
    /// The token it came with; none for a person on the same machine.
    pub(crate) token: Option<Arc<Token>>,
    /// Cancelled when all this holds no more: the token was revoked, or one is needed now.
    pub(crate) void: CancellationToken,
}

impl Identity {
    /// A person on the same machine, without a token, until `void` is cancelled.
    pub(crate) fn local(void: CancellationToken) -> Self {
        Self { actor: Actor::Local, role: Role::Operator, token: None, void }
    }

    /// The holder of `token`.
    pub(crate) fn of_token(token: Arc<Token>) -> Self {
        let (actor, void) = (Actor::Token(token.name.clone()), token.revoked.clone());
        Self { actor, role: token.role, token: Some(token), void }
    }
}
