//! The configuration of `kind: exec`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::refusal_of_system;
use crate::secret::Secret;
use crate::units::{Bytes, Period};

/// `kind: exec`: a program that is run once per message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// The program: a name to be found in `PATH`, or a path; a relative one begins at the file that names it.
    pub program: String,
    /// What it prints, and how it is asked.
    #[serde(default)]
    pub dialect: Dialect,
    /// Arguments of the operator's, after those that the dialect needs. No shell ever sees them.
    #[serde(default)]
    pub args: Vec<String>,
    /// How the message reaches it.
    #[serde(default)]
    pub message: MessageRoad,
    /// Variables of plimsoll's own environment that the program gets too, besides PATH, HOME, LANG and TMPDIR.
    #[serde(default)]
    pub env_pass: Vec<String>,
    /// Variables that the program gets with these values.
    #[serde(default)]
    pub env: BTreeMap<String, Secret>,
    /// Bytes that one turn may print, on standard output and standard error together; 4 KiB to 16 GiB.
    #[serde(default = "default_output_bytes_max")]
    pub output_bytes_max: Bytes,
    /// Bytes of one line of its standard output; 1 KiB to 64 MiB.
    #[serde(default = "default_line_bytes_max")]
    pub line_bytes_max: Bytes,
    /// How long it may take to end by itself after it was asked to (SIGTERM), before it is killed; 0 s to 60 s.
    #[serde(default = "default_kill_grace")]
    pub kill_grace: Period,
}

impl ExecConfig {
    /// Why its program takes no message the way it is configured.
    #[must_use]
    pub fn wrong_road(&self) -> Option<&'static str> {
        let wrong = self.message == MessageRoad::Argument && !self.dialect.takes_argument();
        wrong.then_some("this program passes over what stands after `--`: leave `message` at stdin")
    }

    /// Why its program cannot be given these instructions.
    #[must_use]
    pub fn refuses_system(&self, system: &str) -> Option<&'static str> {
        refusal_of_system(self.dialect, system)
    }
}

/// What a program prints, one JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// plimsoll's own small schema (`docs/agents.md`).
    #[default]
    Plimsoll,
    /// Claude Code, `--output-format stream-json`.
    ClaudeCode,
    /// Codex, `exec --json`.
    Codex,
    /// Gemini CLI, `--output-format stream-json`.
    Gemini,
}

/// How a message reaches a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageRoad {
    /// On standard input, which then ends.
    #[default]
    Stdin,
    /// As the last argument, after `--`. One that begins with `-` or holds a NUL is refused.
    Argument,
}

fn default_output_bytes_max() -> Bytes {
    Bytes(256 << 20)
}

fn default_line_bytes_max() -> Bytes {
    Bytes(8 << 20)
}

fn default_kill_grace() -> Period {
    Period::from_secs(5)
}
