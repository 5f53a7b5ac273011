//! What real agents printed, read.

mod hostile;

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::limits::{AGENT_TOOLS_OPEN_MAX, QUOTED_BYTES_MAX};

const ALL: &[Dialect] = &[Dialect::Plimsoll, Dialect::ClaudeCode, Dialect::Codex, Dialect::Gemini];

fn invocation<'a>(resume: Option<&'a str>) -> Invocation<'a> {
    Invocation { model: None, system: None, resume, args: &[] }
}

fn read(reader: &mut Reader, lines: &[u8]) -> Vec<Heard> {
    lines.split(|byte| *byte == b'\n').flat_map(|line| reader.line(line)).collect()
}

/// Everything that a turn says and how it ended.
fn turn(dialect: Dialect, resume: Option<&str>, lines: &str, exit: Exit) -> (Vec<Heard>, Finished) {
    let mut reader = dialect.reader(&invocation(resume));
    let heard = read(&mut reader, lines.as_bytes());
    (heard, reader.finish(exit))
}

fn text(heard: &[Heard]) -> String {
    let pieces = heard.iter().filter_map(|heard| match heard {
        Heard::Delta(text) => Some(text.as_str()),
        _ => None,
    });
    pieces.collect()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agents").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All recordings, and how their program ended.
fn fixtures() -> Vec<(String, Dialect, Exit)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/agents");
    let names =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("text")).collect();
    names.retain(|name| name.ends_with(".jsonl"));
    names.sort();
    assert!(names.len() >= 28, "{names:?}");
    let ended = |name: &str| match name {
        "gemini.error-401.jsonl" => Exit::Code(145),
        "gemini.error-529.jsonl" => Exit::Code(17),
        "gemini.error-max-turns.jsonl" | "gemini.denied.jsonl" => Exit::Code(53),
        "codex.no-network.jsonl" => Exit::Signal(9),
        name if name.contains("hung") => Exit::Code(143),
        "claude-code.no-network.jsonl" => Exit::Code(1),
        name if name.contains("error") || name.contains("gone") => Exit::Code(1),
        _ => Exit::Code(0),
    };
    let dialect = |name: &str| match name.split('.').next() {
        Some("claude-code") => Dialect::ClaudeCode,
        Some("codex") => Dialect::Codex,
        Some("gemini") => Dialect::Gemini,
        _ => panic!("{name}: of which agent?"),
    };
    names.into_iter().map(|name| (name.clone(), dialect(&name), ended(&name))).collect()
}

#[test]
fn recordings_read_as_they_did() {
    for (name, dialect, exit) in fixtures() {
        let resume =
            (name == "codex.resumed.jsonl").then_some("01a1ff71-c48d-7282-8526-d3a15e0ae6b6@642,400,0,24");
        let (heard, finished) = turn(dialect, resume, &fixture(&name), exit);
        let mut said = String::new();
        for heard in heard {
            writeln!(said, "{heard:?}").expect("memory");
        }
        writeln!(said, "{:#?}", finished.used).expect("memory");
        writeln!(said, "{:#?}", finished.result).expect("memory");
        insta::assert_snapshot!(name.trim_end_matches(".jsonl").replace('.', "-"), said);
    }
}

#[test]
fn bytes_cut_anywhere_never_say_more_than_the_whole() {
    for (name, dialect, exit) in fixtures() {
        let whole = fixture(&name);
        let all = text(&turn(dialect, None, &whole, exit).0);
        let last = whole.trim_end().rfind('\n').unwrap_or_default();
        for end in (0..whole.len()).step_by(7) {
            let mut reader = dialect.reader(&invocation(None));
            let heard = read(&mut reader, &whole.as_bytes()[..end]);
            let used = reader.used();
            assert!(all.starts_with(&text(&heard)), "{name} cut at {end}: {heard:?}");
            assert!(
                heard.iter().filter(|heard| **heard == Heard::Unknown).count() <= 1,
                "{name} cut at {end}"
            );
            assert!(!used.is_empty());
            // Killed before its last word, it is never taken for whole.
            let finished = reader.finish(Exit::Signal(9));
            assert!(finished.result.is_err() || end > last, "{name} at {end}");
        }
    }
}

#[test]
fn text_is_said_once_whether_it_comes_in_pieces_whole_or_only_at_the_end() {
    let init = r#"{"type":"system","subtype":"init","session_id":"s"}"#;
    let start = r#"{"type":"stream_event","event":{"type":"message_start","message":{"id":"m","model":"c"}},"parent_tool_use_id":null}"#;
    let piece = |text: &str| {
        format!(
            r#"{{"type":"stream_event","event":{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}}}"#
        )
    };
    let whole = r#"{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":"Hello"}]}}"#;
    let result = r#"{"type":"result","subtype":"success","is_error":false,"result":"Hello"}"#;
    for lines in [
        vec![init, start, &piece("Hel"), &piece("lo"), whole, result],
        vec![init, whole, result],
        vec![init, result],
    ] {
        let (heard, finished) = turn(Dialect::ClaudeCode, None, &lines.join("\n"), Exit::Code(0));
        assert_eq!((text(&heard).as_str(), finished.result), ("Hello", Ok(())), "{heard:?}");
    }
    let piece = r#"{"type":"message","role":"assistant","content":"Hello","delta":true}"#;
    let whole = r#"{"type":"message","role":"assistant","content":"Hello"}"#;
    let result = r#"{"type":"result","status":"success"}"#;
    for lines in [vec![piece, result], vec![whole, result], vec![piece, whole, result]] {
        let (heard, finished) = turn(Dialect::Gemini, None, &lines.join("\n"), Exit::Code(0));
        assert_eq!((text(&heard).as_str(), finished.result), ("Hello", Ok(())), "{heard:?}");
    }
}

#[test]
fn messages_of_one_turn_are_paragraphs() {
    let claude = |id: &str, block: &str| {
        format!(r#"{{"type":"assistant","message":{{"id":"{id}","content":[{block}]}}}}"#)
    };
    let lines = [
        claude("a", r#"{"type":"text","text":"One."},{"type":"text","text":" Two."}"#),
        claude("b", r#"{"type":"text","text":"Three."}"#),
    ];
    let (heard, _) = turn(Dialect::ClaudeCode, None, &lines.join("\n"), Exit::Code(0));
    assert_eq!(text(&heard), "One. Two.\n\nThree.");
    let codex = r#"{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"One."}}"#;
    let (heard, _) = turn(Dialect::Codex, None, &[codex, codex].join("\n"), Exit::Code(0));
    assert_eq!(text(&heard), "One.\n\nOne.");
}

#[test]
fn a_sub_agents_words_are_no_answer_but_its_tools_and_tokens_count() {
    let lines = r#"{"type":"assistant","parent_tool_use_id":"task","message":{"id":"m","model":"small","content":[{"type":"text","text":"secret plan"},{"type":"tool_use","id":"t","name":"Read"}],"usage":{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":1}}}
{"type":"stream_event","parent_tool_use_id":"task","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"more"}}}
{"type":"user","parent_tool_use_id":"task","message":{"content":[{"type":"tool_result","tool_use_id":"t","is_error":true,"content":"no such file"}]}}"#;
    let (heard, finished) = turn(Dialect::ClaudeCode, None, lines, Exit::Code(0));
    let tool = |error| Heard::ToolEnd { id: "t".into(), name: "Read".into(), error };
    assert_eq!(heard[1..], [tool(Some("failed".into()))]);
    assert_eq!(text(&heard), "");
    let [used] = &finished.used[..] else { panic!("{:?}", finished.used) };
    assert_eq!(
        (used.model.as_deref(), used.input_tokens, used.cached_tokens),
        (Some("small"), Some(7), Some(2))
    );
}

#[test]
fn what_is_known_of_tokens_is_known_before_the_end() {
    let whole = fixture("claude-code.partial.jsonl");
    let killed: Vec<_> = whole.lines().take_while(|line| !line.contains(r#""type":"result""#)).collect();
    let (_, finished) = turn(Dialect::ClaudeCode, None, &killed.join("\n"), Exit::Signal(9));
    let [used] = &finished.used[..] else { panic!("{:?}", finished.used) };
    // Two messages: each 12 fresh, 200 from the cache, 100 to it, 7 written.
    assert_eq!((used.input_tokens, used.output_tokens, used.cost_usd), (Some(624), Some(14), None));
    assert_eq!(finished.result.expect_err("killed").to_string(), "the agent ended by signal 9");
}

#[test]
fn a_threads_tokens_are_charged_to_the_turn_that_used_them() {
    let (start, resumed) = (fixture("codex.tool.jsonl"), fixture("codex.resumed.jsonl"));
    let thread = "01a1fd32-940e-7200-a728-7ffe957ce3a5";
    let (heard, finished) = turn(Dialect::Codex, None, &start, Exit::Code(0));
    let names = heard.iter().filter_map(|heard| match heard {
        Heard::Session(name) => Some(name.as_str()),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names, [thread, &format!("{thread}@642,400,0,24")]);
    assert_eq!(finished.used[0].input_tokens, Some(642));
    let charged = |resume: Option<&str>| {
        let used = turn(Dialect::Codex, resume, &resumed, Exit::Code(0)).1.used.remove(0);
        (used.input_tokens, used.cached_tokens, used.output_tokens)
    };
    let same = "01a1ff71-c48d-7282-8526-d3a15e0ae6b6";
    assert_eq!(charged(Some(&format!("{same}@642,400,0,24"))), (Some(321), Some(200), Some(12)));
    let all = (Some(963), Some(600), Some(36));
    assert_eq!(charged(Some(same)), all, "the turn before ended without usage");
    assert_eq!(charged(Some(&format!("{thread}@642,400,0,24"))), all, "another thread");
    assert_eq!(charged(Some(&format!("{same}@9999,0,0,0"))), all, "sums that went back");
}

#[test]
fn a_thread_whose_new_sums_were_not_passed_on_is_charged_next_time() {
    let start = fixture("codex.tool.jsonl");
    let mut reader = Dialect::Codex.reader(&invocation(None));
    read(&mut reader, start.as_bytes());
    let later = Used { uncounted: 9, charged_later: true, ..Used::default() };
    assert_eq!(reader.used(), [later], "the next turn begins with the old sums");
    reader.told();
    assert_eq!(reader.used()[0].input_tokens, Some(642));
}

#[test]
fn who_does_not_know_the_conversation_is_understood() {
    let thread = "11111111-2222-4333-8444-555555555555";
    for (dialect, recording, resume) in [
        (Dialect::Codex, "codex.session-gone.stderr", format!("{thread}@642,400,0,24")),
        (Dialect::Gemini, "gemini.session-gone.stderr", thread.to_owned()),
    ] {
        let words = fixture(recording);
        assert!(dialect.says_session_gone(&words, &resume), "{words}");
        assert!(!dialect.says_session_gone(&words, "another"), "{words}");
        assert!(!dialect.says_session_gone("no rollout found", &resume));
        assert!(!Dialect::Plimsoll.says_session_gone(&words, &resume));
    }
}

#[test]
fn an_agent_that_says_nothing_has_not_answered() {
    for dialect in ALL {
        for (exit, says) in [
            (Exit::Code(0), "the agent ended with exit code 0, but without an answer"),
            (Exit::Code(3), "the agent ended with exit code 3"),
            (Exit::Signal(9), "the agent ended by signal 9"),
        ] {
            let (heard, finished) = turn(*dialect, None, "Usage: agent [--help]\n", exit);
            assert_eq!(heard, [Heard::Unknown]);
            assert_eq!(finished.result.expect_err("no answer").to_string(), says, "{dialect:?}");
            assert_eq!(finished.used, [Used::default()]);
        }
    }
}

#[test]
fn our_own_schema_reads_as_documented() {
    let lines = r#"{"type":"session","id":"s1"}
{"type":"retry","attempt":1,"after_ms":500,"status":529}
{"type":"tool_start","id":"t1","name":"search"}
{"type":"tool_end","id":"t1","ok":false,"exit_code":2,"output":"secret"}
{"type":"delta","text":"Hel"}
{"type":"delta","text":"lo"}
{"type":"usage","model":"m","input_tokens":12,"cached_tokens":4,"output_tokens":3,"cost_usd":0.01}
{"type":"usage","model":"m","input_tokens":1,"output_tokens":1}
{"type":"usage","model":"m","input_tokens":1,"output_tokens":1,"cost_usd":0.02}
{"type":"usage","model":"m","input_tokens":10,"output_tokens":1}
{"type":"end","finish_reason":"stop"}"#;
    let (heard, finished) = turn(Dialect::Plimsoll, None, lines, Exit::Code(0));
    let cause = "the provider answered HTTP 529".to_owned();
    let (id, name) = ("t1".to_owned(), "search".to_owned());
    let expected = [
        Heard::Session("s1".to_owned()),
        Heard::Retry { attempt: 1, after: Duration::from_millis(500), cause },
        Heard::ToolStart { id: id.clone(), name: name.clone() },
        Heard::ToolEnd { id, name, error: Some("exit code 2".to_owned()) },
        Heard::Delta("Hel".to_owned()),
        Heard::Delta("lo".to_owned()),
    ];
    assert_eq!(heard, expected);
    let told = Used {
        model: Some("m".to_owned()),
        input_tokens: Some(13),
        cached_tokens: Some(4),
        cache_write_tokens: None,
        output_tokens: Some(4),
        cost_usd: Some(0.03),
        ..Used::default()
    };
    // What it names no cost of is not free: it is told apart, to be priced.
    let untold = Used {
        model: Some("m".to_owned()),
        input_tokens: Some(11),
        output_tokens: Some(2),
        finish_reason: Some("stop".to_owned()),
        ..Used::default()
    };
    assert_eq!((finished.result, finished.used), (Ok(()), vec![told, untold]));
    let error = r#"{"type":"error","status":429,"message":"slow down"}"#;
    let result = turn(Dialect::Plimsoll, None, error, Exit::Code(0)).1.result;
    assert_eq!(result, Err(api_error(Some(429), "slow down".to_owned())));
    let only_text = r#"{"type":"delta","text":"x"}"#;
    assert_eq!(turn(Dialect::Plimsoll, None, only_text, Exit::Code(0)).1.result, Ok(()));
    assert!(turn(Dialect::Plimsoll, None, only_text, Exit::Code(1)).1.result.is_err());
}

/// What a turn that is stopped after these lines wrote and did not count, and whether the next one will.
fn stopped(dialect: Dialect, resume: Option<&str>, lines: &[&str]) -> (Option<u64>, usize, bool) {
    let mut reader = dialect.reader(&invocation(resume));
    for line in lines {
        reader.line(line.as_bytes());
        reader.told();
    }
    let used = reader.used();
    assert_eq!(used.len(), 1, "{used:?}");
    (used[0].output_tokens, used[0].uncounted, used[0].charged_later)
}

#[test]
fn what_an_agent_wrote_after_it_last_counted_is_known() {
    let event = |event: &str| format!(r#"{{"type":"stream_event","event":{event}}}"#);
    let start = event(
        r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":5,"output_tokens":1}}}"#,
    );
    let piece = |delta: &str| event(&format!(r#"{{"type":"content_block_delta","delta":{delta}}}"#));
    let [text, thought, arguments] = [
        r#"{"type":"text_delta","text":"12345678"}"#,
        r#"{"type":"thinking_delta","thinking":"1234"}"#,
        r#"{"type":"input_json_delta","partial_json":"{\"a\":1}"}"#,
    ]
    .map(piece);
    let end = event(r#"{"type":"message_delta","usage":{"output_tokens":40}}"#);
    let other = start.replace(r#""id":"m""#, r#""id":"n""#);
    let whole = [&start, &thought, &text, &arguments, &end].map(String::as_str);
    assert_eq!(stopped(Dialect::ClaudeCode, None, &whole[..4]), (Some(1), 19, false));
    assert_eq!(stopped(Dialect::ClaudeCode, None, &whole), (Some(40), 0, false));
    let next = [&whole[..], &[&other, &text]].concat();
    assert_eq!(stopped(Dialect::ClaudeCode, None, &next), (Some(41), 8, false));
    let (delta, usage) = (r#"{"type":"delta","text":"1234"}"#, r#"{"type":"usage","output_tokens":3}"#);
    assert_eq!(stopped(Dialect::Plimsoll, None, &[delta]), (None, 4, false));
    assert_eq!(stopped(Dialect::Plimsoll, None, &[delta, usage]), (Some(3), 0, false));
    assert_eq!(stopped(Dialect::Plimsoll, None, &[delta, usage, delta]), (Some(3), 4, false));
    let costly = r#"{"type":"usage","cost_usd":0.1}"#;
    assert_eq!(stopped(Dialect::Plimsoll, None, &[delta, costly]), (None, 4, false));
    let message = r#"{"type":"message","role":"assistant","content":"12345"}"#;
    assert_eq!(stopped(Dialect::Gemini, None, &[message]), (None, 5, false));
}

#[test]
fn a_turn_that_is_stopped_early_is_of_the_model_that_the_program_named() {
    let claude = r#"{"type":"system","subtype":"init","session_id":"s","model":"claude-opus-4-8[1m]"}"#;
    let gemini = r#"{"type":"init","session_id":"s","model":"gemini-3-pro"}"#;
    for (dialect, line, model) in
        [(Dialect::ClaudeCode, claude, "claude-opus-4-8"), (Dialect::Gemini, gemini, "gemini-3-pro")]
    {
        let mut reader = dialect.reader(&invocation(None));
        assert_eq!(reader.used(), [Used::default()], "{dialect:?}");
        reader.line(line.as_bytes());
        let named = Used { model: Some(model.to_owned()), ..Used::default() };
        assert_eq!(reader.used(), [named], "{dialect:?}");
    }
}

#[test]
fn only_a_program_that_failed_before_it_told_of_a_call_has_certainly_called_no_model() {
    let called = |dialect, lines: &str, exit| turn(dialect, None, lines, exit).1.called;
    let error = r#"{"type":"error","message":"no key"}"#;
    for dialect in ALL {
        assert_eq!(called(*dialect, "", Exit::Code(41)), Called::Never, "{dialect:?}");
        for exit in [Exit::Code(0), Exit::Code(143), Exit::Signal(9)] {
            assert_eq!(called(*dialect, "", exit), Called::Maybe, "{dialect:?}: {exit:?}");
        }
        assert_eq!(called(*dialect, "words", Exit::Code(1)), Called::Maybe, "{dialect:?}");
    }
    assert_eq!(called(Dialect::Plimsoll, error, Exit::Code(0)), Called::Never);
    for told in [
        r#"{"type":"delta","text":"x"}"#,
        r#"{"type":"tool_start","id":"t","name":"search"}"#,
        r#"{"type":"retry","attempt":1}"#,
        r#"{"type":"usage","input_tokens":1}"#,
        r#"{"type":"usage","cost_usd":0.1}"#,
    ] {
        assert_eq!(
            called(Dialect::Plimsoll, &format!("{told}\n{error}"), Exit::Code(1)),
            Called::Maybe,
            "{told}"
        );
    }
    let init = r#"{"type":"system","subtype":"init","session_id":"s","model":"m"}"#;
    assert_eq!(called(Dialect::ClaudeCode, init, Exit::Code(1)), Called::Maybe, "it may have asked");
    let refused = r#"{"type":"result","subtype":"success","is_error":true,"result":"Not logged in","usage":{"input_tokens":0,"output_tokens":0}}"#;
    assert_eq!(called(Dialect::ClaudeCode, &format!("{init}\n{refused}"), Exit::Code(1)), Called::Never);
}

/// Its next turn says all that the thread used: what is estimated of this one would be paid twice.
#[test]
fn a_turn_of_codex_that_was_stopped_is_charged_with_the_next() {
    let thread = r#"{"type":"thread.started","thread_id":"t"}"#;
    let message = r#"{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"12345"}}"#;
    let done = r#"{"type":"turn.completed","usage":{"input_tokens":9,"output_tokens":2}}"#;
    assert_eq!(stopped(Dialect::Codex, None, &[thread, message]), (None, 5, true));
    assert_eq!(stopped(Dialect::Codex, Some("t@1,0,0,1"), &[]), (None, 0, true));
    assert_eq!(stopped(Dialect::Codex, None, &[]), (None, 0, false), "there is no thread yet");
    assert_eq!(stopped(Dialect::Codex, None, &[thread, message, done]), (Some(2), 0, false));
}

#[test]
fn arguments_ask_each_agent_for_its_stream() {
    let args = ["--sandbox".to_owned(), "read-only".to_owned()];
    let asked =
        Invocation { model: Some("m"), system: Some("be \"brief\""), resume: Some("t@1,2,3,4"), args: &args };
    let line = |dialect: Dialect| dialect.arguments(&asked).join(" ");
    assert_eq!(
        line(Dialect::ClaudeCode),
        "-p --output-format stream-json --verbose --include-partial-messages --model m --append-system-prompt be \"brief\" --resume t@1,2,3,4 --sandbox read-only"
    );
    assert_eq!(
        line(Dialect::Codex),
        r#"exec --sandbox read-only --json --skip-git-repo-check --model m --config developer_instructions="be \"brief\"" resume t"#
    );
    assert_eq!(
        line(Dialect::Gemini),
        "--output-format stream-json --model m --resume t@1,2,3,4 --sandbox read-only"
    );
    assert_eq!(line(Dialect::Plimsoll), "--sandbox read-only");
    let told = Dialect::Plimsoll.variables(&asked);
    let told: Vec<_> = told.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let expected = [
        ("PLIMSOLL_AGENT_SESSION", "t@1,2,3,4"),
        ("PLIMSOLL_MODEL", "m"),
        ("PLIMSOLL_SYSTEM", "be \"brief\""),
    ];
    assert_eq!(told, expected);
    assert_eq!(Dialect::Codex.variables(&asked), []);
}

#[test]
fn a_message_is_text_also_where_a_slash_would_be_a_command() {
    for dialect in ALL {
        for text in ["--help", "x\n/clear", " /clear", "", "$(id)\0"] {
            assert_eq!(dialect.message(text), text, "{dialect:?}");
        }
        let commands = matches!(dialect, Dialect::ClaudeCode | Dialect::Gemini);
        assert_eq!(dialect.message("/clear"), if commands { "\n/clear" } else { "/clear" }, "{dialect:?}");
    }
}

#[test]
fn no_session_can_pass_for_an_option_or_hold_control_characters() {
    let tell = |id: &str| {
        let line = serde_json::json!({"type": "session", "id": id}).to_string();
        turn(Dialect::Plimsoll, None, &line, Exit::Code(0)).0
    };
    assert_eq!(tell("s"), [Heard::Session("s".to_owned())]);
    assert_eq!(tell(&"s".repeat(AGENT_SESSION_BYTES_MAX)).len(), 1);
    for bad in
        ["", "--dangerously-skip-permissions", "a\nb", "a\0b", &"s".repeat(AGENT_SESSION_BYTES_MAX + 1)]
    {
        assert_eq!(tell(bad), [], "{bad:?}");
    }
}

#[test]
fn tools_and_names_and_words_and_models_have_a_limit() {
    let mut reader = Dialect::Plimsoll.reader(&invocation(None));
    let start =
        |i: usize| serde_json::json!({"type": "tool_start", "id": i.to_string(), "name": "n".repeat(999)});
    let begun = (0..2 * AGENT_TOOLS_OPEN_MAX).flat_map(|i| reader.line(start(i).to_string().as_bytes()));
    let begun: Vec<_> = begun.collect();
    assert_eq!(begun.len(), AGENT_TOOLS_OPEN_MAX);
    let Heard::ToolStart { name, .. } = &begun[0] else { panic!("{begun:?}") };
    assert_eq!(name.len(), LABEL_BYTES_MAX);
    for i in 0..1_000 {
        let line =
            serde_json::json!({"type": "usage", "model": format!("m{i}"), "output_tokens": u64::MAX / 2});
        reader.line(line.to_string().as_bytes());
    }
    let used = reader.used();
    assert_eq!(used.len(), 33);
    assert_eq!((used[32].model.as_deref(), used[32].output_tokens), (Some("other"), Some(u64::MAX)));
    let long = serde_json::json!({"type": "error", "message": "x".repeat(1 << 20)}).to_string();
    reader.line(long.as_bytes());
    let error = reader.finish(Exit::Code(1)).result.expect_err("an error");
    assert_eq!(error.quoted().len(), WORDS_BYTES_MAX);
    let quoted = error.masked(&crate::provider::Mask::default());
    assert_eq!(quoted.quoted().len(), QUOTED_BYTES_MAX + "...".len());
}

#[test]
fn half_a_character_does_not_lose_its_line() {
    let line = b"{\"type\":\"delta\",\"text\":\"gr\xc3n\"}";
    let heard = Dialect::Plimsoll.reader(&invocation(None)).line(line);
    assert_eq!(heard, [Heard::Delta("gr\u{fffd}n".to_owned())]);
}

#[test]
fn numbers_out_of_range_are_not_known_and_do_not_spoil_their_line() {
    let line = r#"{"type":"result","subtype":"success","is_error":false,"result":"ok","modelUsage":{"m":{"inputTokens":1e400,"outputTokens":-1,"cacheReadInputTokens":18446744073709551615,"cacheCreationInputTokens":1,"costUSD":-5},"n":7,"o":null}}"#;
    let (heard, finished) = turn(Dialect::ClaudeCode, None, line, Exit::Code(0));
    assert_eq!((text(&heard).as_str(), &finished.result), ("ok", &Ok(())));
    let [m, ..] = &finished.used[..] else { panic!("{:?}", finished.used) };
    assert_eq!((m.input_tokens, m.output_tokens, m.cost_usd), (Some(u64::MAX), None, None));
}
