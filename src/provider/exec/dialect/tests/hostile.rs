//! What no agent should ever print: any bytes, known words in any shape, real lines with a field spoilt.

use proptest::prelude::*;

use super::*;

/// A value with the keys and words that the dialects know, in any wrong place.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let word = prop::sample::select(WORDS).prop_map(serde_json::Value::from);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        word,
        ".{0,9}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let key = prop_oneof![prop::sample::select(WORDS).prop_map(str::to_owned), ".{0,3}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(key, inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

const WORDS: &[&str] = &[
    "type",
    "subtype",
    "system",
    "init",
    "assistant",
    "user",
    "result",
    "stream_event",
    "event",
    "message",
    "id",
    "content",
    "text",
    "tool_use",
    "tool_result",
    "tool_use_id",
    "is_error",
    "usage",
    "modelUsage",
    "errors",
    "model",
    "thread.started",
    "thread_id",
    "item.started",
    "item.completed",
    "item",
    "command_execution",
    "agent_message",
    "exit_code",
    "status",
    "turn.completed",
    "turn.failed",
    "error",
    "init",
    "role",
    "delta",
    "tool_name",
    "tool_id",
    "stats",
    "models",
    "session",
    "session_id",
    "tool_start",
    "tool_end",
    "name",
    "ok",
    "retry",
    "attempt",
    "end",
    "message_start",
    "message_delta",
    "content_block_delta",
    "content_block_start",
    "text_delta",
    "api_retry",
    "retry_delay_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cost_usd",
    "success",
    "Reconnecting... 1/5",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_reader_panic(lines in prop::collection::vec(any::<Vec<u8>>(), 0..9), code: i32) {
        for dialect in ALL {
            let mut reader = dialect.reader(&invocation(Some("x@9")));
            for line in &lines {
                reader.line(line);
            }
            prop_assert!(!reader.finish(Exit::Code(code)).used.is_empty());
        }
    }

    /// Known words in any shape: nothing panics, a tool ends only if it began, deltas and names are not empty.
    #[test]
    fn no_json_makes_a_reader_panic_or_lie(values in prop::collection::vec(json(), 0..12), code: i32) {
        for dialect in ALL {
            let mut reader = dialect.reader(&invocation(None));
            let mut open = Vec::new();
            for value in &values {
                for heard in reader.line(value.to_string().as_bytes()) {
                    match heard {
                        Heard::ToolStart { id, name } => open.push((id, name)),
                        Heard::ToolEnd { id, name, .. } => {
                            let tool = (id, name);
                            prop_assert!(open.contains(&tool));
                            open.retain(|known| *known != tool);
                        }
                        Heard::Delta(text) => prop_assert!(!text.is_empty()),
                        Heard::Session(id) => prop_assert!(!id.is_empty() && !id.starts_with('-')),
                        Heard::Retry { .. } | Heard::Unknown => {}
                    }
                }
            }
            prop_assert!(!reader.finish(Exit::Code(code)).used.is_empty());
        }
    }

    /// One field of a real line is null, gone or of another type: the line is read as far as it goes.
    #[test]
    fn a_real_line_with_one_field_spoilt_is_still_read(pick: prop::sample::Index, how in 0..3_u8) {
        for (name, dialect, exit) in fixtures() {
            let mut reader = dialect.reader(&invocation(None));
            for line in fixture(&name).lines() {
                let mut value = serde_json::from_str(line).expect("JSON");
                let mut places = Vec::new();
                walk(&value, &mut String::new(), &mut places);
                let place = pick.get(&places).clone();
                spoil(&mut value, &place, how);
                let kind = place == "/type";
                let known = !reader.line(value.to_string().as_bytes()).contains(&Heard::Unknown);
                prop_assert!(known || kind, "{name} at {place}: {value}");
            }
            reader.finish(exit);
        }
    }
}

/// The places of all fields.
fn walk(value: &serde_json::Value, place: &mut String, places: &mut Vec<String>) {
    let members: Vec<_> = match value {
        serde_json::Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        serde_json::Value::Array(list) => {
            list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect()
        }
        _ => return,
    };
    for (key, value) in members {
        let length = place.len();
        write!(place, "/{}", key.replace('~', "~0").replace('/', "~1")).expect("memory");
        places.push(place.clone());
        walk(value, place, places);
        place.truncate(length);
    }
}

fn spoil(value: &mut serde_json::Value, place: &str, how: u8) {
    let Some(spoilt) = value.pointer_mut(place) else { return };
    *spoilt = match how {
        0 => serde_json::Value::Null,
        1 => serde_json::json!([[{"a": 1e300}]]),
        _ => serde_json::json!("\u{0}"),
    };
}
