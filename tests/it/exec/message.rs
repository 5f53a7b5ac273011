//! A message reaches the program as text, byte for byte, and as nothing else.

use serde_json::json;

use super::{OBLIGING, Work, ask, refused};

fn awkward() -> Vec<String> {
    let mut messages: Vec<String> = [
        "-rf /",
        "--help",
        "--",
        "two\nlines\n\nand a last one\n",
        "a NUL \0 in the middle",
        "$(touch owned) `touch owned`; touch owned & touch owned | \"'\\ ${HOME} *",
        "\u{1b}[31m \u{202e} ä 漢 🚢",
    ]
    .map(str::to_owned)
    .into();
    messages.push("0123456789abcdef".repeat(1 << 16));
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn any_message_arrives_on_standard_input_byte_for_byte_and_does_nothing_else() {
    let work = Work::of(OBLIGING);
    let server = work.serve(json!({})).await;
    for message in awkward() {
        assert_eq!(ask(&server, &message).await, "done");
        assert!(work.read("message").expect("written") == message.as_bytes(), "{message:.40}");
    }
    let names: Vec<_> = std::fs::read_dir(work.path()).expect("there").flatten().collect();
    assert_eq!(names.len(), 2, "the script and the message: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_as_an_argument_is_one_element_after_two_dashes() {
    let work = Work::of(
        r#"cat > input; printf %s "$#|$1" > count; printf %s "$2" > message; echo '{"type":"delta","text":"done"}'"#,
    );
    let server = work.serve(json!({"message": "argument"})).await;
    for message in awkward().iter().filter(|m| !m.starts_with('-') && !m.contains('\0') && m.len() < 1_000) {
        assert_eq!(ask(&server, message).await, "done");
        assert_eq!(work.text("message"), *message);
        assert_eq!((work.text("count"), work.text("input")), ("2|--".to_owned(), String::new()));
    }
    assert!(work.read("owned").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_argument_can_be_is_refused_and_nothing_is_run() {
    let work = Work::of("touch ran");
    let server = work.serve(json!({"message": "argument"})).await;
    for message in ["-rf", "--", "a\0b", &"m".repeat(128 << 10)] {
        let (code, text, _) = refused(&server, json!({"message": message})).await;
        assert_eq!(code, -32602, "{text}");
        assert!(text.contains("message"), "{text}");
    }
    assert!(work.read("ran").is_none());
    assert_eq!(server.call("system.metrics", json!({})).await["modelCalls"]["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_nothing_hangs_nobody() {
    let work = Work::of(r#"echo '{"type":"delta","text":"done"}'"#);
    let server = work.serve(json!({})).await;
    assert_eq!(ask(&server, &"m".repeat(1_000_000)).await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_answers_before_it_has_read_hangs_nobody() {
    // More than fits a pipe goes both ways at once.
    let work = Work::of(
        r#"head -c 300000 /dev/zero | tr '\0' ' ' | sed 's/$/{"type":"delta","text":"done"}/'; cat > message"#,
    );
    let server = work.serve(json!({})).await;
    let message = "m".repeat(1_000_000);
    assert_eq!(ask(&server, &message).await, "done");
    assert_eq!(work.read("message").expect("written").len(), message.len());
}
