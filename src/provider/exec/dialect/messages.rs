//! The messages of one turn of Claude Code: which of them came in pieces, and what each used. Bounded: what an old one
//! used is kept as a sum.

use std::collections::VecDeque;

use super::Used;
use super::tally::{Tally, sum};

/// Messages that are told from each other: as many as sub-agents may speak at once, and more.
const MESSAGES_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Messages {
    recent: VecDeque<Message>,
    before: Tally,
}

/// Tokens as the Messages API counts them: the input does not hold those of the caches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    pub(super) input: Option<u64>,
    pub(super) cache_read: Option<u64>,
    pub(super) cache_creation: Option<u64>,
    pub(super) output: Option<u64>,
}

#[derive(Debug)]
struct Message {
    id: String,
    /// The tool use of the sub-agent that says it.
    parent: Option<String>,
    model: Option<String>,
    tokens: Tokens,
    in_pieces: bool,
    /// Bytes of it that its tokens do not hold: until it ends they say one token, however long it is.
    uncounted: usize,
}

impl Messages {
    /// A message is said, by a sub-agent if it has a parent. Whether it is a new one.
    pub(super) fn begin(&mut self, id: Option<&str>, parent: Option<&str>, model: Option<String>) -> bool {
        let Some(id) = id else { return true };
        if self.recent.iter().any(|message| message.id == id) {
            return false;
        }
        if self.recent.len() >= MESSAGES_MAX {
            let oldest = self.recent.pop_front();
            self.before.extend(oldest.map(|message| message.used()));
        }
        let (id, parent) = (id.to_owned(), parent.map(str::to_owned));
        let tokens = Tokens::default();
        self.recent.push_back(Message { id, parent, model, tokens, in_pieces: false, uncounted: 0 });
        true
    }

    /// What a message used, as far as it is known: counts only grow.
    pub(super) fn tokens(&mut self, id: Option<&str>, tokens: Tokens) {
        if let Some(message) = self.recent.iter_mut().find(|message| Some(message.id.as_str()) == id) {
            message.tokens.grow(tokens);
        }
    }

    /// The same of the message that is being said, at its end.
    pub(super) fn tokens_of_last(&mut self, parent: Option<&str>, tokens: Tokens) {
        if let Some(message) = self.last(parent) {
            message.tokens.grow(tokens);
            if tokens.output.is_some() {
                message.uncounted = 0;
            }
        }
    }

    /// So many bytes of the message that is being said came: text, thoughts, arguments of tools.
    pub(super) fn wrote(&mut self, parent: Option<&str>, bytes: usize) {
        if let Some(message) = self.last(parent) {
            message.uncounted = message.uncounted.saturating_add(bytes);
        }
    }

    /// A piece of the answer's message came.
    pub(super) fn piece(&mut self) {
        if let Some(message) = self.last(None) {
            message.in_pieces = true;
        }
    }

    /// Whether this message was said in pieces.
    pub(super) fn in_pieces(&self, id: Option<&str>) -> bool {
        self.recent.iter().any(|message| Some(message.id.as_str()) == id && message.in_pieces)
    }

    /// What the first message used, as long as it is told from the others.
    pub(super) fn first(&self) -> Option<Used> {
        let first = self.recent.front().filter(|_| self.before.is_empty());
        first.map(Message::used)
    }

    /// What all messages used.
    pub(super) fn used(&self) -> Vec<Used> {
        let mut all = self.before.clone();
        all.extend(self.recent.iter().map(Message::used));
        all.used()
    }

    fn last(&mut self, parent: Option<&str>) -> Option<&mut Message> {
        self.recent.iter_mut().rev().find(|message| message.parent.as_deref() == parent)
    }
}

impl Message {
    fn used(&self) -> Used {
        Used { uncounted: self.uncounted, ..self.tokens.used(self.model.clone()) }
    }
}

impl Tokens {
    /// As all others count: the input with both caches.
    pub(super) fn used(self, model: Option<String>) -> Used {
        let Self { input, cache_read, cache_creation, output } = self;
        Used {
            model,
            input_tokens: sum(input, sum(cache_read, cache_creation)),
            cached_tokens: cache_read,
            cache_write_tokens: cache_creation,
            output_tokens: output,
            ..Used::default()
        }
    }

    fn grow(&mut self, other: Self) {
        self.input = self.input.max(other.input);
        self.cache_read = self.cache_read.max(other.cache_read);
        self.cache_creation = self.cache_creation.max(other.cache_creation);
        self.output = self.output.max(other.output);
    }
}
