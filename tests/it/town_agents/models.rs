//! A server that speaks the APIs of the models that real agents call: Anthropic's Messages, OpenAI's Responses and Chat
//! Completions, Gemini's generateContent. It plays a model that is given the beads of these tests.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::upstream::{self, Reply, Request, Upstream};

/// What the model has an agent run that has a shell: the file is the proof that there was real work.
pub(super) const COMMAND: &str = "printf hi > made.txt";

/// What the reviewer wants.
pub(super) const NOTES: &str = "Add a test.";

/// What a person says to the one who asks.
pub(super) const DECISION: &str = "Take blue.";

/// What the model does next.
enum Turn {
    Run,
    Say(String),
}

pub(super) async fn serve() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    Upstream::choosing(listener, reply)
}

/// The head of a request is in lower case.
fn reply(request: &Request) -> Reply {
    let path = request.head.split_whitespace().nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let body = &request.body;
    if path.ends_with("/v1/messages") {
        messages(body)
    } else if path.ends_with("/count_tokens") {
        upstream::whole(r#"{"input_tokens":42}"#)
    } else if path.ends_with("/v1/responses") {
        responses(body)
    } else if path.ends_with("/v1/chat/completions") {
        let text = next(body, false, "tool").said();
        upstream::stream(&[&upstream::delta(&text), upstream::STOP, upstream::USAGE, "[DONE]"])
    } else if path.contains("generatecontent") {
        gemini(path, body)
    } else {
        upstream::whole(r#"{"data":[],"models":[]}"#)
    }
}

impl Turn {
    fn said(self) -> String {
        match self {
            Self::Run => String::new(),
            Self::Say(text) => text,
        }
    }
}

/// Runs the command once where there is a shell, and then says what the conversation asks for.
fn next(body: &Value, shell: bool, result: &str) -> Turn {
    let told = body.to_string();
    let is = |text: &str| told.contains(text);
    if shell && is("Task good:") && !is(result) {
        return Turn::Run;
    }
    Turn::Say(words(&is))
}

fn words(is: &dyn Fn(&str) -> bool) -> String {
    let ending = |ending: Value| format!("I looked at it.\n```json\n{ending}\n```");
    let work = |outcome: &str, summary: &str| ending(json!({"outcome": outcome, "summary": summary}));
    if is("Review the work on task good:") {
        return match is(&format!("What the last review asked for: {NOTES}")) {
            true => ending(json!({"verdict": "approved", "notes": "Good."})),
            false => ending(json!({"verdict": "changes", "notes": NOTES})),
        };
    }
    let asked = is("did not say how the work on");
    if is("Task good:") || is("Task late:") && asked || is("Task person:") && is(DECISION) {
        work("done", "It works.")
    } else if is("Task bad:") {
        work("failed", "There is no such file.")
    } else if is("Task person:") {
        work("needs_human", "Which colour?")
    } else {
        "I think that is it.".to_owned()
    }
}

fn offers(body: &Value, list: &str, name: &str) -> bool {
    let tools = body.pointer(list).and_then(Value::as_array).into_iter().flatten();
    tools.into_iter().any(|tool| tool["name"] == name)
}

/// Events with their names, as these APIs send them.
fn events(events: &[Value]) -> Reply {
    let lines = events.iter().map(|event| {
        let name = event["type"].as_str().map(|name| format!("event: {name}\n")).unwrap_or_default();
        format!("{name}data: {event}\n\n").into_bytes()
    });
    Reply::Parts(std::iter::once(upstream::stream_head()).chain(lines).collect())
}

fn messages(body: &Value) -> Reply {
    let (block, delta, stop) = match next(body, offers(body, "/tools", "Bash"), "tool_result") {
        Turn::Run => {
            let input = json!({"command": COMMAND, "description": "as told"}).to_string();
            let block = json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}});
            (block, json!({"type": "input_json_delta", "partial_json": input}), "tool_use")
        }
        Turn::Say(text) => {
            (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text}), "end_turn")
        }
    };
    let usage = json!({"input_tokens": 12, "output_tokens": 7});
    let mut message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    if body["stream"] != true {
        message["content"] = json!([{"type": "text", "text": delta["text"]}]);
        message["stop_reason"] = json!("end_turn");
        return upstream::whole(&message.to_string());
    }
    events(&[
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ])
}

fn responses(body: &Value) -> Reply {
    let shells = [
        ("exec_command", json!({"cmd": COMMAND})),
        ("shell_command", json!({"command": COMMAND})),
        ("shell", json!({"command": ["sh", "-c", COMMAND]})),
    ];
    let shell = shells.iter().find(|(name, _)| offers(body, "/tools", name));
    let item = match (next(body, shell.is_some(), "function_call_output"), shell) {
        (Turn::Run, Some((name, arguments))) => {
            json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": arguments.to_string(),
                "status": "completed"})
        }
        (turn, _) => json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": turn.said(), "annotations": []}]}),
    };
    let usage = json!({"input_tokens": 321, "input_tokens_details": {"cached_tokens": 200}, "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 333});
    let whole = |status: &str, output: &[&Value], usage: &Value| {
        json!({"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": status,
            "output": output, "usage": usage})
    };
    events(&[
        json!({"type": "response.created", "response": whole("in_progress", &[], &Value::Null)}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": whole("completed", &[&item], &usage)}),
    ])
}

fn gemini(path: &str, body: &Value) -> Reply {
    let lists = body["tools"].as_array().map_or(0, Vec::len);
    let shell =
        (0..lists).any(|n| offers(body, &format!("/tools/{n}/functionDeclarations"), "run_shell_command"));
    let part = match next(body, shell, "functionResponse") {
        Turn::Run => {
            json!({"functionCall": {"name": "run_shell_command", "args": {"command": COMMAND, "description": "as told"}}})
        }
        Turn::Say(text) => json!({"text": text}),
    };
    let whole = json!({
        "candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "modelVersion": "gemini-standin", "responseId": "r1",
        "usageMetadata": {"promptTokenCount": 50, "candidatesTokenCount": 5, "totalTokenCount": 55},
    });
    match path.contains("stream") {
        true => events(&[whole]),
        false => upstream::whole(&whole.to_string()),
    }
}
