//! The W3C trace context: where a request comes from and goes on to (<https://www.w3.org/TR/trace-context/>).

use std::fmt;

use opentelemetry::trace::TraceState;

use crate::ids::TraceId;
use crate::limits::{TRACE_STATE_BYTES_MAX, TRACE_STATE_LARGE_MEMBER_BYTES, TRACE_STATE_MEMBERS_MAX};

/// The trace a request belongs to, as carried by `traceparent` and `tracestate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace.
    pub trace_id: TraceId,
    /// The caller's span; never zero.
    pub parent_span_id: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
    /// What tracing systems say to each other; passed on as it came.
    pub state: TraceState,
}

impl TraceContext {
    /// Reads a `traceparent` of version 00, or of a later one as far as 00 goes. Anything malformed is `None`:
    /// the specification asks to start a new trace then.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, len| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let extra = parts.next().is_some();
        if !is_hex(version, 2)
            || version == "ff"
            || (version == "00" && extra)
            || !is_hex(span, 16)
            || !is_hex(flags, 2)
        {
            return None;
        }
        let parent_span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let (trace_id, state) = (TraceId::parse(trace).ok()?, TraceState::NONE);
        Some(Self { trace_id, parent_span_id, sampled, state })
    }

    /// Adds the `tracestate` that came with it; several headers are joined with commas before. A malformed one is left
    /// out, of one that is too long members are left out, as the specification asks for.
    #[must_use]
    pub fn with_state(self, tracestate: &str) -> Self {
        Self { state: read_state(tracestate).unwrap_or_default(), ..self }
    }
}

impl fmt::Display for TraceContext {
    /// The `traceparent` value, version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.parent_span_id, u8::from(self.sampled))
    }
}

fn read_state(tracestate: &str) -> Option<TraceState> {
    let mut members = Vec::new();
    for member in tracestate.split(',').map(|member| member.trim_matches([' ', '\t'])) {
        if member.is_empty() {
            continue;
        }
        let printable = member.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let whole = |(key, value): &(&str, &str)| printable && !key.is_empty() && !value.is_empty();
        members.push(member.split_once('=').filter(whole)?);
    }
    if members.len() > TRACE_STATE_MEMBERS_MAX {
        return None;
    }
    let bytes = |(key, value): &(&str, &str)| key.len() + 1 + value.len();
    let total = |members: &[(&str, &str)]| members.iter().map(|member| bytes(member) + 1).sum::<usize>();
    // The last member is followed by no comma.
    if total(&members) > TRACE_STATE_BYTES_MAX + 1 {
        members.retain(|member| bytes(member) <= TRACE_STATE_LARGE_MEMBER_BYTES);
    }
    while total(&members) > TRACE_STATE_BYTES_MAX + 1 {
        members.pop();
    }
    TraceState::from_key_value(members).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_tracestate_is_kept_whole_cut_or_left_out() {
        let kept = |text: &str| TraceContext::parse(PARENT).expect("valid").with_state(text).state.header();
        assert_eq!(kept("rojo=00f067aa,, \tcongo@s=a b "), "rojo=00f067aa,congo@s=a b");
        for malformed in ["rojo", "=1", "rojo=", "Rojo=1", "rojo=a=b", "rojo=ü", "rojo=\r\n"] {
            assert_eq!(kept(&format!("congo=1,{malformed}")), "", "{malformed:?}");
        }
        let list = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!((kept(&list(32)), kept(&list(33))), (list(32), String::new()));
        let members =
            |bytes: usize, count: usize| vec![format!("k={}", "v".repeat(bytes - 2)); count].join(",");
        let exact = format!("{},{}", members(255, 1), members(256, 1));
        assert_eq!(kept(&exact), exact, "exactly the limit");
        assert_eq!(kept(&format!("{},{}", members(129, 1), members(127, 4))), members(127, 4));
        assert_eq!(kept(&members(128, 4)), members(128, 3), "the last ones go");
    }

    #[test]
    fn a_traceparent_prints_as_it_is_read() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(text).map(|c| c.to_string()).as_deref(), Some(text));
    }

    #[test]
    fn malformed_traceparents_are_ignored() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text:?}");
        }
    }
}
