//! What was heard so far: text that is never run together, and tools that end only if they began.

use super::{Heard, name, session};
use crate::limits::AGENT_TOOLS_OPEN_MAX;

/// Collects what lines say.
#[derive(Debug, Default)]
pub(super) struct Speech {
    heard: Vec<Heard>,
    session: Option<String>,
    said: bool,
    worked: bool,
    /// What comes next is a paragraph of its own.
    paragraph: bool,
    /// Tools that have not ended: id and name.
    open: Vec<(String, String)>,
}

impl Speech {
    /// What was heard since it was last asked.
    pub(super) fn take(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.heard)
    }

    /// Whether any text was said.
    pub(super) fn said(&self) -> bool {
        self.said
    }

    /// Whether any tool was used.
    pub(super) fn worked(&self) -> bool {
        self.worked
    }

    /// The agent's name for the conversation; told again only where it has changed.
    pub(super) fn session(&mut self, id: Option<String>) {
        let Some(id) = id.and_then(session) else { return };
        if self.session.as_ref() != Some(&id) {
            self.session = Some(id.clone());
            self.heard.push(Heard::Session(id));
        }
    }

    /// What is said next does not continue what was said last.
    pub(super) fn paragraph(&mut self) {
        self.paragraph = true;
    }

    /// A piece of the answer.
    pub(super) fn say(&mut self, text: Option<String>) {
        let Some(mut text) = text.filter(|text| !text.is_empty()) else { return };
        if std::mem::take(&mut self.paragraph) && self.said {
            text.insert_str(0, "\n\n");
        }
        self.said = true;
        self.heard.push(Heard::Delta(text));
    }

    /// A tool began. One without an id or a name, one that is open already and one too many are passed over.
    pub(super) fn tool_start(&mut self, id: Option<String>, tool: Option<String>) {
        let (Some(id), Some(name)) = (id.and_then(name), tool.and_then(name)) else { return };
        if self.open.len() >= AGENT_TOOLS_OPEN_MAX || self.is_open(&id) {
            return;
        }
        self.worked = true;
        self.open.push((id.clone(), name.clone()));
        self.heard.push(Heard::ToolStart { id, name });
    }

    /// A tool ended, well or with this error in fixed words. One that is not open is passed over.
    pub(super) fn tool_end(&mut self, id: Option<String>, error: Option<String>) {
        let Some(id) = id.and_then(name) else { return };
        let Some(at) = self.open.iter().position(|(open, _)| *open == id) else { return };
        let (id, name) = self.open.swap_remove(at);
        self.heard.push(Heard::ToolEnd { id, name, error });
    }

    /// Whether this tool has begun and not ended.
    pub(super) fn is_open(&self, id: &str) -> bool {
        self.open.iter().any(|(open, _)| open == id)
    }

    /// Something else.
    pub(super) fn tell(&mut self, heard: Heard) {
        self.heard.push(heard);
    }
}
