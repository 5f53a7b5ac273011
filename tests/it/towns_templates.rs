//! Agents that a town makes of templates of the configuration, over the API and over restarts.

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, until};

async fn post(server: &Server, path: &str, body: Value) -> Answer {
    let ask = Ask::post(path, body.to_string()).header("content-type", "application/json");
    ask.send(server.address()).await
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = Ask::get(path).send(server.address()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

fn config() -> Value {
    json!({
        "providers": {"echo": {"kind": "echo"}},
        "agents": {"echo": {"provider": "echo"}},
        "templates": {
            "coder": {"provider": "echo", "role": "codes", "system": "secret1"},
            "critic": {"provider": "echo"},
        },
    })
}

/// The agents of this role, by what the gateway says and by what the town says.
async fn there(server: &Server) -> (Vec<Value>, Vec<Value>) {
    let of = |list: Value, key: &str, expected: Value| -> Vec<Value> {
        let agents = list["agents"].as_array().expect("a list").iter();
        agents.filter(|agent| agent[key] == expected).map(|agent| agent["id"].clone()).collect()
    };
    let gateway = of(get(server, "/agents").await, "role", json!("codes"));
    (gateway, of(get(server, "/api/towns/lab/agents").await, "template", json!("coder")))
}

#[tokio::test]
async fn an_agent_of_a_template_joins_survives_a_kill_and_leaves_with_all_of_it() {
    let server = Server::start(config()).await;
    let none = get(&server, "/agents").await;
    assert_eq!(none["agents"].as_array().map(Vec::len), Some(1), "a template is no agent: {none}");
    assert_eq!(post(&server, "/api/towns", json!({"id": "lab"})).await.status, 201);
    let agents = "/api/towns/lab/agents";
    for id in ["c1", "c2"] {
        let joined = post(&server, agents, json!({"id": id, "template": "coder"})).await;
        assert_eq!(joined.status, 201, "{}", joined.text());
    }
    for (body, status, code, says) in [
        (json!({"id": "x", "template": "painter"}), 404, "unknown_template", "coder, critic"),
        (json!({"id": "x", "template": "No"}), 400, "bad_request", "template"),
        (json!({"id": "c1", "template": "coder"}), 409, "agent_exists", "c1"),
        (json!({"id": "echo", "template": "coder"}), 409, "works_elsewhere", "main"),
        (json!({"id": "x", "template": "coder", "nudges": true}), 422, "invalid", "nudges"),
        (json!({"id": "x", "template": "coder", "image": "i"}), 400, "bad_request", "image"),
    ] {
        let refused = post(&server, agents, body.clone()).await;
        let error = refused.json()["error"].clone();
        assert_eq!((refused.status, error["code"].as_str()), (status, Some(code)), "{body} {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{error}");
    }
    let bead = json!({"id": "fix", "title": "t"});
    assert_eq!(post(&server, "/api/towns/lab/beads", bead).await.status, 201);
    until("one of them is asked", async || {
        let done = get(&server, "/audit?kind=request_finished").await;
        done["records"].as_array()?.iter().any(|record| record["detail"]["agent"] != "echo").then_some(())
    })
    .await;
    assert_eq!(post(&server, "/api/towns/lab/beads/fix/cancel", json!({})).await.status, 200);
    let made = get(&server, "/audit?kind=agent_created").await;
    assert!(!made.to_string().contains("secret1"), "what it is stands in the configuration alone: {made}");

    let dir = server.kill();
    let mut server = Server::spawn(dir, config());
    server.ready().await;
    let both = vec![json!("c1"), json!("c2")];
    assert_eq!(there(&server).await, (both.clone(), both));
    let left = Ask::method("DELETE", "/api/towns/lab/agents/c1").send(server.address()).await;
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(there(&server).await, (vec![json!("c2")], vec![json!("c2")]));
    let deleted = Ask::method("DELETE", "/agents/c2").send(server.address()).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    until("it left its town", async || (there(&server).await == (vec![], vec![])).then_some(())).await;
}

#[tokio::test]
async fn an_agent_whose_template_is_gone_takes_no_work_and_can_leave() {
    let server = Server::start(config()).await;
    assert_eq!(post(&server, "/api/towns", json!({"id": "lab"})).await.status, 201);
    let joined = post(&server, "/api/towns/lab/agents", json!({"id": "c1", "template": "coder"})).await;
    assert_eq!(joined.status, 201, "{}", joined.text());
    let mut server = Server::spawn(server.kill(), json!({"templates": {"critic": {"provider": "echo"}}}));
    server.ready().await;
    let agents = get(&server, "/agents").await;
    let c1 = agents["agents"].as_array().and_then(|agents| agents.iter().find(|agent| agent["id"] == "c1"));
    let c1 = c1.expect("it is kept");
    assert_eq!(c1["status"], "unfit");
    assert!(c1["unfit"].as_str().is_some_and(|why| why.contains("coder") && why.contains("critic")), "{c1}");
    until("its town takes it for dead", async || {
        let agents = get(&server, "/api/towns/lab/agents").await;
        (agents["agents"][0]["status"] == "dead").then_some(())
    })
    .await;
    let left = Ask::method("DELETE", "/api/towns/lab/agents/c1").send(server.address()).await;
    assert_eq!(left.status, 200, "{}", left.text());
    let agents = get(&server, "/agents").await;
    assert_eq!(agents["agents"].as_array().map(Vec::len), Some(1), "{agents}");
}
