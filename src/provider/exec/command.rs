//! What is run for one message: program, arguments, environment. Pure but for the variables that are handed on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::dialect::Invocation;
use super::{Dialect, ExecConfig, MessageRoad};
use crate::process::{self, Found, OWNER, handed_on};
use crate::telemetry::TraceContext;

/// Bytes of one argument: Linux takes 128 KiB with the NUL at its end (execve(2), `MAX_ARG_STRLEN`).
const ARGUMENT_BYTES_MAX: usize = (128 << 10) - 1;

/// Why a message cannot be handed over on this road; `None` if it can.
pub(super) fn refusal(road: MessageRoad, message: &str) -> Option<&'static str> {
    match road {
        MessageRoad::Stdin => None,
        MessageRoad::Argument if message.starts_with('-') => Some(
            "begins with `-`, and this agent takes messages as an argument: begin with another character",
        ),
        MessageRoad::Argument if message.contains('\0') => {
            Some("holds a NUL, and this agent takes messages as an argument: leave it out")
        }
        MessageRoad::Argument if message.len() > ARGUMENT_BYTES_MAX => {
            Some("is longer than 128 KiB, and this agent takes messages as an argument: make it shorter")
        }
        MessageRoad::Argument => None,
    }
}

/// Why instructions cannot be handed over; `None` if they can.
pub(super) fn refusal_of_system(dialect: Dialect, system: &str) -> Option<&'static str> {
    if !dialect.takes_system() {
        return Some("this agent takes no instructions (`system`): leave them out");
    }
    if system.contains('\0') {
        return Some("these instructions (`system`) hold a NUL, which this agent cannot take: leave it out");
    }
    let invocation = Invocation { model: None, system: Some(system), resume: None, args: &[] };
    let arguments = dialect.arguments(&invocation).into_iter().map(|argument| argument.len());
    let variables = dialect.variables(&invocation).into_iter();
    let variables = variables.map(|(name, value)| name.len() + "=".len() + value.len());
    let longest = arguments.chain(variables).max().unwrap_or_default();
    (longest > ARGUMENT_BYTES_MAX).then_some(
        "these instructions (`system`) are longer than the 128 KiB that this agent takes: make them shorter",
    )
}

/// Everything after the program's name.
pub(super) fn arguments(config: &ExecConfig, invocation: &Invocation<'_>, message: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        config.dialect.arguments(invocation).into_iter().map(OsString::from).collect();
    if config.message == MessageRoad::Argument {
        arguments.extend(["--", message].map(OsString::from));
    }
    arguments
}

/// The whole environment: what is handed on, then what the operator sets, then what plimsoll itself says.
pub(super) fn variables(
    config: &ExecConfig,
    invocation: &Invocation<'_>,
    trace: Option<&TraceContext>,
    mark: String,
) -> BTreeMap<OsString, OsString> {
    let set = config.env.iter().map(|(name, value)| (name.into(), value.expose().into()));
    let mut variables: BTreeMap<OsString, OsString> =
        handed_on(&config.env_pass).into_iter().chain(set).collect();
    if let Some(trace) = trace {
        variables.insert("TRACEPARENT".into(), trace.to_string().into());
        let state = trace.state.header();
        if !state.is_empty() {
            variables.insert("TRACESTATE".into(), state.into());
        }
    }
    let told = config.dialect.variables(invocation);
    variables.extend(told.into_iter().map(|(name, value)| (name.into(), value.into())));
    variables.insert(OWNER.into(), mark.into());
    variables
}

/// What there is of the program.
pub(super) fn look_for(config: &ExecConfig) -> Found {
    process::look_for(&config.program, config.env.get("PATH").map(|path| path.expose()))
}

/// The program's name without its path: for who asked.
pub(super) fn shown(config: &ExecConfig) -> String {
    let name = Path::new(&config.program).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_could_be_an_option_is_refused_as_an_argument_only() {
        let longest = "m".repeat(ARGUMENT_BYTES_MAX);
        for (message, refused) in
            [("-rf", true), ("--", true), ("a\0b", true), ("a -b\n$(c)", false), (longest.as_str(), false)]
        {
            assert_eq!(refusal(MessageRoad::Argument, message).is_some(), refused, "{message:.10}");
            assert_eq!(refusal(MessageRoad::Stdin, message), None);
        }
        assert!(refusal(MessageRoad::Argument, &(longest + "m")).is_some());
    }

    #[test]
    fn instructions_that_no_argument_holds_are_refused() {
        let long = "s".repeat(ARGUMENT_BYTES_MAX);
        // In TOML a quote takes two characters.
        let quotes = "\"".repeat(ARGUMENT_BYTES_MAX / 2);
        for (dialect, system, refused) in [
            (Dialect::Gemini, "be brief", true),
            (Dialect::ClaudeCode, "be brief", false),
            (Dialect::ClaudeCode, "a\0b", true),
            (Dialect::ClaudeCode, long.as_str(), false),
            (Dialect::Plimsoll, long.as_str(), true),
            (Dialect::Plimsoll, "--help", false),
            (Dialect::Codex, quotes.as_str(), true),
            (Dialect::ClaudeCode, quotes.as_str(), false),
        ] {
            assert_eq!(refusal_of_system(dialect, system).is_some(), refused, "{dialect:?} {system:.10}");
        }
    }
}
