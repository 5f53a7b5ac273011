//! The tokens there are: those of the configuration and those in the journal.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use super::super::{Role, TokenConfig};
use super::Rate;
use crate::clock::{Clock, Timestamp};
use crate::ids::{AgentId, TokenName, TownId};
use crate::journal::{
    Actor, Append, AppendError, Fold, Journal, NewRecord, Record, RecordHash, StreamId, StreamKind,
};
use crate::limits::TOKENS_MAX;
use crate::secret::Secret;

/// The prefix by which people and secret scanners know a plimsoll token.
const PREFIX: &str = "plim_";

/// The name of the token that is made at the first start where an agent is a process.
const FIRST_NAME: &str = "first-operator";

/// One token, as long as it is valid.
pub(crate) struct Token {
    /// What the audit shows.
    pub(crate) name: TokenName,
    /// What it may do.
    pub(crate) role: Role,
    /// Where it comes from.
    pub(crate) source: TokenSource,
    /// When it was made; not known of those in the configuration.
    pub(crate) created: Option<Timestamp>,
    /// Cancelled when it is revoked: what is open with it closes.
    pub(crate) revoked: CancellationToken,
    /// Its own rate limit.
    pub(crate) rate: Rate,
    /// The town it is bound to.
    pub(crate) town: Option<TownId>,
    /// The agent it is bound to.
    pub(crate) agent: Option<AgentId>,
    sha256: [u8; 32],
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenSource {
    /// `auth.tokens` of the configuration.
    Config,
    /// Made at run time.
    Journal,
}

/// What is asked for in a new token.
pub(crate) struct NewToken {
    pub(crate) name: TokenName,
    pub(crate) role: Role,
    pub(crate) town: Option<TownId>,
    pub(crate) agent: Option<AgentId>,
}

pub(crate) const ONLY_AGENTS_ARE_BOUND: &str = "only a token with the role agent is bound";

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("name: a token `{0}` exists: revoke it first or take another name")]
    Exists(TokenName),
    #[error("there is no token `{0}`")]
    Unknown(TokenName),
    #[error("the token `{0}` stands in the configuration: remove it from auth.tokens and restart")]
    Configured(TokenName),
    #[error("{0}: {ONLY_AGENTS_ARE_BOUND}")]
    Bound(&'static str),
    #[error("there are {TOKENS_MAX} tokens already: revoke some")]
    TooMany,
    #[error(transparent)]
    Journal(AppendError),
}

/// Why the tokens of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTokens {
    /// The hash is not one.
    #[error(
        "auth.tokens: the sha256 of `{0}` is not 64 hexadecimal digits: make one with `plimsoll token hash`"
    )]
    Hash(TokenName),
    /// Two entries have one name.
    #[error("auth.tokens: two tokens are called `{0}`")]
    Twice(TokenName),
    /// There are too many.
    #[error("auth.tokens: more than {TOKENS_MAX} tokens")]
    TooMany,
}

/// All tokens. Register it as a fold of the journal; a std lock suffices, as nothing waits while it is held.
pub struct TokenBook {
    requests_per_second: u32,
    clock: Clock,
    tokens: RwLock<BTreeMap<TokenName, Arc<Token>>>,
    /// Cancelled when the first is made: then the door without a token stays shut, also when the last one is revoked.
    first_made: CancellationToken,
    changing: tokio::sync::Mutex<()>,
}

/// A token made at run time, as the journal and the snapshot hold it.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: TokenName,
    role: Role,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    town: Option<TownId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<AgentId>,
    #[serde(default)]
    created: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    ever_made: bool,
    tokens: Vec<Stored>,
}

impl TokenBook {
    /// The tokens of the configuration, each with its own limit of requests per second (0 is none).
    ///
    /// # Errors
    /// [`InvalidTokens`], which names the entry.
    pub fn new(
        configured: &[TokenConfig],
        requests_per_second: u32,
        clock: Clock,
    ) -> Result<Self, InvalidTokens> {
        let mut tokens = BTreeMap::new();
        if configured.len() > TOKENS_MAX {
            return Err(InvalidTokens::TooMany);
        }
        for entry in configured {
            let TokenConfig { name, role, sha256, town, agent } = entry;
            let hash = RecordHash::parse(sha256).ok_or_else(|| InvalidTokens::Hash(name.clone()))?;
            let token = Token {
                name: name.clone(),
                role: *role,
                source: TokenSource::Config,
                created: None,
                revoked: CancellationToken::new(),
                rate: Rate::new(requests_per_second, &clock),
                sha256: hash.0,
                town: town.clone(),
                agent: agent.clone(),
            };
            if tokens.insert(name.clone(), Arc::new(token)).is_some() {
                return Err(InvalidTokens::Twice(name.clone()));
            }
        }
        let first_made = CancellationToken::new();
        if !configured.is_empty() {
            first_made.cancel();
        }
        let (tokens, changing) = (RwLock::new(tokens), tokio::sync::Mutex::new(()));
        Ok(Self { requests_per_second, clock, tokens, first_made, changing })
    }

    /// Whether callers from the network need a token: from the first one made, for good.
    #[must_use]
    pub fn required(&self) -> bool {
        self.first_made.is_cancelled()
    }

    /// Cancelled from the moment that callers from the network need a token.
    pub(crate) fn first_made(&self) -> CancellationToken {
        self.first_made.clone()
    }

    /// The token of this text. Takes the same time whatever the text and wherever a match stands.
    pub(crate) fn find(&self, presented: &str) -> Option<Arc<Token>> {
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let mut found = None;
        for token in self.read().values() {
            if bool::from(token.sha256.ct_eq(&hash)) {
                found = Some(Arc::clone(token));
            }
        }
        found
    }

    /// All tokens, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Token>> {
        self.read().values().cloned().collect()
    }

    /// Makes a token, durably, and returns its text: the only time that it is seen.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing was made then.
    pub(crate) async fn create(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        new: NewToken,
    ) -> Result<String, TokenError> {
        let bound = [("town", new.town.is_some()), ("agent", new.agent.is_some())];
        if let Some((field, _)) = bound.into_iter().find(|(_, given)| *given && new.role != Role::Agent) {
            return Err(TokenError::Bound(field));
        }
        let _one_at_a_time = self.changing.lock().await;
        {
            let tokens = self.read();
            if tokens.contains_key(&new.name) {
                return Err(TokenError::Exists(new.name));
            }
            if tokens.len() >= TOKENS_MAX {
                return Err(TokenError::TooMany);
            }
        }
        let text = generate();
        let NewToken { name, role, town, agent } = new;
        let mut detail = json!({"name": name, "role": role, "sha256": hash_text(&text)});
        if let Some(town) = town {
            detail["town"] = json!(town);
        }
        if let Some(agent) = agent {
            detail["agent"] = json!(agent);
        }
        append(journal, actor, "token_created", detail).await?;
        Ok(text)
    }

    /// Shuts the door without a token, for agents that could call their own supervisor through it. Where there has never
    /// been a token, makes an operator's, durably, and returns it: the only time that it is seen.
    pub async fn shut(&self, journal: &dyn Journal) -> Option<Secret> {
        if self.required() {
            return None;
        }
        let name = TokenName::parse(FIRST_NAME).expect("it is a valid name");
        let new = NewToken { name, role: Role::Operator, town: None, agent: None };
        let made = self.create(journal, &Actor::System, new).await;
        self.first_made.cancel();
        match made {
            Ok(text) => Some(Secret::new(text, "the first token")),
            Err(error) => {
                tracing::warn!(source = "api", %error, "no first token could be made: `plimsoll token new` makes one");
                None
            }
        }
    }

    /// Says so where callers from the network need a token and there is none that they could have.
    pub(crate) fn warn_of_a_shut_door(&self) {
        if self.required() && self.read().is_empty() {
            tracing::warn!(
                source = "api",
                "callers from the network need a token, and all were revoked: `plimsoll token new` makes one"
            );
        }
    }

    /// Ends a token, durably, and what is open with it.
    ///
    /// # Errors
    /// See [`TokenError`]; the token is still valid then.
    pub(crate) async fn revoke(
        &self,
        journal: &dyn Journal,
        actor: &Actor,
        name: &TokenName,
    ) -> Result<(), TokenError> {
        let _one_at_a_time = self.changing.lock().await;
        match self.read().get(name).map(|t| t.source) {
            None => return Err(TokenError::Unknown(name.clone())),
            Some(TokenSource::Config) => return Err(TokenError::Configured(name.clone())),
            Some(TokenSource::Journal) => {}
        }
        append(journal, actor, "token_revoked", json!({"name": name})).await
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<TokenName, Arc<Token>>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, stored: Stored) {
        let Some(hash) = RecordHash::parse(&stored.sha256) else {
            tracing::warn!(token = %stored.name, "a journaled token has no usable hash and is left out");
            return;
        };
        let Stored { name, role, town, agent, created, sha256: _ } = stored;
        self.first_made.cancel();
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(&name).is_some_and(|t| t.source == TokenSource::Config) {
            tracing::warn!(token = %name, "a token of the configuration hides a journaled one of its name");
            return;
        }
        let token = Token {
            name: name.clone(),
            role,
            source: TokenSource::Journal,
            created: Some(created),
            revoked: CancellationToken::new(),
            rate: Rate::new(self.requests_per_second, &self.clock),
            sha256: hash.0,
            town,
            agent,
        };
        tokens.insert(name, Arc::new(token));
    }

    fn remove(&self, name: &TokenName) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.get(name).is_some_and(|t| t.source == TokenSource::Journal)
            && let Some(token) = tokens.remove(name)
        {
            token.revoked.cancel();
        }
    }
}

impl Fold for TokenBook {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn wants(&self) -> StreamKind {
        StreamKind::Operator
    }

    fn apply(&self, record: &Record) {
        let read = |what: &str| tracing::warn!(seq = record.seq.0, "a {what} record cannot be read");
        match record.kind.as_str() {
            "token_created" => match serde_json::from_value::<Stored>(record.detail.clone()) {
                Ok(stored) => self.insert(Stored { created: record.time, ..stored }),
                Err(_) => read("token_created"),
            },
            "token_revoked" => match record.detail["name"].as_str().map(TokenName::parse) {
                Some(Ok(name)) => self.remove(&name),
                Some(Err(_)) | None => read("token_revoked"),
            },
            _ => {}
        }
    }

    fn snapshot(&self) -> Value {
        let tokens = self.read();
        let stored = |token: &Arc<Token>| Stored {
            name: token.name.clone(),
            role: token.role,
            sha256: RecordHash(token.sha256).to_string(),
            town: token.town.clone(),
            agent: token.agent.clone(),
            created: token.created.unwrap_or_default(),
        };
        let journaled = tokens.values().filter(|t| t.source == TokenSource::Journal);
        let ever_made = self.required();
        serde_json::to_value(Snapshot { ever_made, tokens: journaled.map(stored).collect() })
            .expect("names, hashes and times are JSON")
    }

    fn restore(&self, snapshot: &Value) -> Result<(), String> {
        let snapshot: Snapshot = serde_json::from_value(snapshot.clone()).map_err(|e| e.to_string())?;
        {
            let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
            tokens.retain(|_, token| token.source == TokenSource::Config);
        }
        if snapshot.ever_made {
            self.first_made.cancel();
        }
        snapshot.tokens.into_iter().for_each(|stored| self.insert(stored));
        Ok(())
    }

    /// A revocation may be among what is lost, and the first token: only those of the configuration are taken now.
    fn records_lost(&self) {
        self.first_made.cancel();
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, token| token.source == TokenSource::Config);
        let left = tokens.len();
        tracing::error!(source = "api", left, "the journal may lack tokens: only configured ones are taken");
    }
}

async fn append(
    journal: &dyn Journal,
    actor: &Actor,
    kind: &'static str,
    detail: Value,
) -> Result<(), TokenError> {
    let record = NewRecord { kind, version: 1, actor: actor.clone(), trace_id: None, detail };
    let append = Append { stream: StreamId::operator(), expected_last_seq: None, records: vec![record] };
    journal.append(append).await.map(drop).map_err(TokenError::Journal)
}

/// A new token: 256 bits from the operating system's generator.
fn generate() -> String {
    let bits: [u8; 32] = rand::random();
    format!("{PREFIX}{}", RecordHash(bits))
}

fn hash_text(token: &str) -> String {
    RecordHash(Sha256::digest(token.as_bytes()).into()).to_string()
}

#[cfg(test)]
impl Token {
    /// An operator's token that ends with `revoked`.
    pub(crate) fn for_tests(revoked: CancellationToken) -> Self {
        Self {
            name: TokenName::parse("test").expect("a name"),
            role: Role::Operator,
            source: TokenSource::Journal,
            created: None,
            revoked,
            rate: Rate::new(0, &Clock::system()),
            town: None,
            agent: None,
            sha256: [0; 32],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryJournal;

    fn new(name: &str, role: Role) -> NewToken {
        NewToken { name: TokenName::parse(name).expect("a name"), role, town: None, agent: None }
    }

    fn open(configured: &[TokenConfig]) -> (Arc<TokenBook>, MemoryJournal) {
        let book = Arc::new(TokenBook::new(configured, 0, Clock::system()).expect("good tokens"));
        let journal = MemoryJournal::new(Clock::system(), vec![Arc::clone(&book) as Arc<dyn Fold>]);
        (book, journal)
    }

    #[tokio::test]
    async fn a_token_works_from_its_append_until_it_is_revoked() {
        let (book, journal) = open(&[]);
        assert!(!book.required());
        let text = book.create(&journal, &Actor::Local, new("ann", Role::Viewer)).await.expect("made");
        let token = book.find(&text).expect("valid");
        assert_eq!((token.name.as_str(), token.role), ("ann", Role::Viewer));
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 64);
        assert!(book.find(&text[..text.len() - 1]).is_none());
        book.revoke(&journal, &Actor::Local, &token.name).await.expect("revoked");
        assert!(book.find(&text).is_none());
        assert!(token.revoked.is_cancelled(), "what is open with it closes");
        assert!(book.required(), "the last revocation does not open the door again");
    }

    #[tokio::test]
    async fn the_journal_never_holds_the_token_itself() {
        let (book, journal) = open(&[]);
        let text = book.create(&journal, &Actor::Local, new("ann", Role::Viewer)).await.expect("made");
        let page = journal.scan(&crate::journal::Scan { limit: 10, ..Default::default() }).expect("reads");
        let stored = serde_json::to_string(&page.records).expect("JSON");
        assert!(!stored.contains(&text) && !stored.contains(&text[PREFIX.len()..]));
        assert!(!book.snapshot().to_string().contains(&text[PREFIX.len()..]));
    }

    #[tokio::test]
    async fn a_snapshot_restores_all_tokens() {
        let (book, journal) = open(&[]);
        let text = book.create(&journal, &Actor::Local, new("ann", Role::Operator)).await.expect("made");
        let other = TokenBook::new(&[], 0, Clock::system()).expect("good tokens");
        other.restore(&book.snapshot()).expect("its own snapshot");
        assert!(other.find(&text).is_some_and(|t| t.role == Role::Operator));
        assert!(other.required());
        assert!(other.restore(&json!([])).is_err());
    }

    #[tokio::test]
    async fn names_are_taken_once_and_configured_tokens_stay() {
        let entry = TokenConfig {
            name: TokenName::parse("ci").expect("a name"),
            role: Role::Viewer,
            sha256: hash_text("secret"),
            town: None,
            agent: None,
        };
        let (book, journal) = open(std::slice::from_ref(&entry));
        assert!(book.required() && book.find("secret").is_some());
        let taken = book.create(&journal, &Actor::Local, new("ci", Role::Viewer)).await;
        assert!(matches!(taken, Err(TokenError::Exists(_))));
        let kept = book.revoke(&journal, &Actor::Local, &entry.name).await;
        assert!(matches!(kept, Err(TokenError::Configured(_))));
        let unknown = TokenName::parse("nobody").expect("a name");
        assert!(matches!(book.revoke(&journal, &Actor::Local, &unknown).await, Err(TokenError::Unknown(_))));
        let twice = TokenBook::new(&[entry.clone(), entry.clone()], 0, Clock::system());
        assert!(matches!(twice, Err(InvalidTokens::Twice(_))));
        let bad = TokenConfig { sha256: "abc".to_owned(), ..entry };
        assert!(matches!(TokenBook::new(&[bad], 0, Clock::system()), Err(InvalidTokens::Hash(_))));
    }
}
