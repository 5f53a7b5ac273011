//! Agents that are made and deleted while plimsoll serves: over the API, over restarts, against what is under way.

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::http::{Answer, Ask, soon};
use crate::support::server::{Server, clean_command, echo, rpc, token_hash, until};

/// One configured agent `a`; what is made answers at once by `p`, or only when it is cancelled by `slow`.
fn house() -> Value {
    let mut config = echo();
    config["providers"]["other"] = config["providers"]["p"].clone();
    config["providers"]["slow"] = json!({"kind": "echo", "latency": "1h"});
    config["providers"]["unaddressed"] = json!({"kind": "openai"});
    config["providers"]["remote"] = json!({"kind": "openai", "base_url": "http://127.0.0.1:9/v1"});
    config["providers"]["program"] = json!({"kind": "exec", "program": "true"});
    config["engine"] = json!({"trust": "create", "images": ["acme/agent:1"]});
    // A program as a provider shuts nobody out: no agent of the configuration is one.
    config
}

async fn create(server: &Server, entry: Value) -> Answer {
    post(server, entry.to_string()).await
}

async fn post(server: &Server, body: String) -> Answer {
    let ask = Ask::post("/agents", body).header("content-type", "application/json");
    ask.send(server.address()).await
}

async fn delete(server: &Server, id: &str) -> Answer {
    Ask::method("DELETE", &format!("/agents/{id}")).send(server.address()).await
}

async fn listed(server: &Server) -> Vec<Value> {
    let shown = Ask::get("/agents").send(server.address()).await.json();
    shown["agents"].as_array().expect("a list").clone()
}

async fn entry(server: &Server, id: &str) -> Option<Value> {
    listed(server).await.into_iter().find(|agent| agent["id"] == id)
}

async fn send(server: &Server, id: &str, message: &str) -> Value {
    rpc(server, "agent.send", json!({"agent": id, "message": message})).await
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

async fn series_of(server: &Server, id: &str) -> Vec<String> {
    let scrape = server.scrape().await;
    let of_agent = |key: &&String| ["agent", "agent_instance"].contains(&key.as_str());
    let named = scrape.0.iter().filter(|s| s.labels.iter().any(|(key, value)| of_agent(&key) && value == id));
    named.map(|sample| sample.name.clone()).collect()
}

async fn again(dir: TempDir, config: Value) -> Server {
    let mut server = Server::spawn(dir, config);
    server.ready().await;
    server
}

/// After a clean end, and after a kill.
async fn restarted(mut server: Server, kill: bool, config: Value) -> Server {
    if !kill {
        server.stop().await;
    }
    again(server.kill(), config).await
}

#[tokio::test]
async fn an_agent_is_made_serves_survives_and_is_deleted() {
    for kill in [false, true] {
        let server = Server::start(house()).await;
        let made =
            json!({"id": "made", "provider": "p", "role": "writer", "tools": ["pen"], "deadline": "5s"});
        let answer = create(&server, made.clone()).await;
        assert_eq!(answer.status, 201, "{}", message(&answer));
        let shown = answer.json();
        assert_eq!(
            (&shown["id"], &shown["status"], &shown["made"]),
            (&json!("made"), &json!("ready"), &json!(true))
        );
        assert_eq!(Some(shown), entry(&server, "made").await, "as it is listed");
        assert_eq!(create(&server, made).await.status, 409);
        assert!(send(&server, "made", "hello").await["result"]["text"].is_string());
        let models = Ask::get("/v1/models/made").send(server.address()).await;
        assert_eq!(models.status, 200);
        assert!(!series_of(&server, "made").await.is_empty());

        let server = restarted(server, kill, house()).await;
        let shown = entry(&server, "made").await.expect("it is there again");
        assert_eq!((&shown["role"], &shown["made"]), (&json!("writer"), &json!(true)));
        assert!(send(&server, "made", "hello").await["result"]["text"].is_string());

        let answer = delete(&server, "made").await;
        assert_eq!((answer.status, answer.json()), (200, json!({"deleted": "made", "cancelled": 0})));
        assert_eq!(delete(&server, "made").await.status, 404);
        assert_eq!(entry(&server, "made").await, None);
        assert_eq!(send(&server, "made", "hello").await["error"]["code"], -32003);
        assert_eq!(Ask::get("/v1/models/made").send(server.address()).await.status, 404);
        assert_eq!(series_of(&server, "made").await, [""; 0]);
        let sessions = server.call("session.list", json!({})).await;
        assert!(!sessions.to_string().contains("made"), "{sessions}");

        let server = restarted(server, kill, house()).await;
        assert_eq!(entry(&server, "made").await, None, "also after a restart");
        assert_eq!(series_of(&server, "made").await, [""; 0]);
    }
}

#[tokio::test]
async fn one_that_is_made_again_begins_anew_and_its_counters_go_on() {
    let server = Server::start(house()).await;
    let first = json!({"id": "made", "provider": "p", "usd_per_day": 5, "max_concurrent": 1, "requests_per_min": 100});
    assert_eq!(create(&server, first).await.status, 201);
    send(&server, "made", "hello").await;
    server.call("agent.pause", json!({"agent": "made"})).await;
    let requests = async || {
        server.scrape().await.count("plimsoll_requests_total", &[("agent", "made"), ("outcome", "ok")])
    };
    assert_eq!(requests().await, 1);
    let budget = "plimsoll_agent_budget_usd".to_owned();
    assert!(series_of(&server, "made").await.contains(&budget));
    assert_eq!(delete(&server, "made").await.status, 200);
    assert_eq!(create(&server, json!({"id": "made", "provider": "p"})).await.status, 201);
    let shown = entry(&server, "made").await.expect("it is there");
    assert_eq!((&shown["paused"], &shown["role"]), (&json!(false), &json!(null)));
    assert_eq!(shown["state"], json!({"lifecycle_state": null, "lifecycle_metrics": null}));
    assert_eq!(requests().await, 1, "a counter goes on from where it was");
    assert!(!series_of(&server, "made").await.contains(&budget), "it has no budget now");
    let server = restarted(server, true, house()).await;
    assert_eq!(entry(&server, "made").await.map(|shown| shown["paused"].clone()), Some(json!(false)));
}

#[tokio::test]
async fn the_configuration_wins_and_what_it_lost_is_known_until_it_is_deleted() {
    let server = Server::start(house()).await;
    for (id, provider) in [("taken", "p"), ("stranded", "slow"), ("fine", "p")] {
        assert_eq!(create(&server, json!({"id": id, "provider": provider})).await.status, 201);
    }
    let mut config = house();
    config["agents"]["taken"] = json!({"provider": "p", "role": "configured"});
    config["providers"].as_object_mut().expect("keys").remove("slow");
    let server = restarted(server, false, config.clone()).await;
    let taken = entry(&server, "taken").await.expect("it is there");
    assert_eq!((&taken["role"], &taken["made"]), (&json!("configured"), &json!(false)));
    server.logged("the one that was made over the API is forgotten").await;
    let answer = delete(&server, "taken").await;
    assert!(answer.status == 409 && message(&answer).contains("`agents.taken`"), "{}", message(&answer));
    let stranded = entry(&server, "stranded").await.expect("it is known");
    assert_eq!(stranded["status"], "unfit");
    assert!(stranded["unfit"].as_str().is_some_and(|why| why.contains("provider:")), "{stranded}");
    let refused = send(&server, "stranded", "hello").await;
    assert_eq!(refused["error"]["code"], -32006);
    assert!(refused["error"]["message"].as_str().is_some_and(|what| what.contains("delete the agent")));
    assert!(send(&server, "fine", "hello").await["result"]["text"].is_string());

    let server = restarted(server, true, house()).await;
    assert_eq!(entry(&server, "taken").await, None, "it was forgotten for good");
    assert_eq!(entry(&server, "stranded").await.map(|shown| shown["status"].clone()), Some(json!("ready")));
    let server = restarted(server, true, config).await;
    assert_eq!(delete(&server, "stranded").await.status, 200);
    assert_eq!(entry(&server, "stranded").await, None);
}

#[tokio::test]
async fn what_the_configuration_would_refuse_is_refused_by_key() {
    let server = Server::start(house()).await;
    let with = |key: &str, value: Value| {
        let mut entry = json!({"id": "made", "provider": "p"});
        entry[key] = value;
        entry
    };
    let hosted = |instance: Value| json!({"id": "made", "provider": "unaddressed", "model": "m", "instance": instance});
    let image = |more: Value| {
        let mut container = json!({"image": "acme/agent:1"});
        container.as_object_mut().expect("keys").extend(more.as_object().cloned().unwrap_or_default());
        hosted(json!({"port": 80, "container": container}))
    };
    for (entry, key) in [
        (with("provider", json!("q")), "provider: "),
        (with("provider", json!("program")), "provider: only the configuration file"),
        (with("provider", json!("remote")), "model: "),
        (with("provider", json!(null)), "provider: the key is missing"),
        (with("max_concurrent", json!(0)), "max_concurrent: expected 1 to"),
        (with("usd_per_day", json!(-1)), "usd_per_day: "),
        (with("tokens_per_min", json!("many")), "tokens_per_min: "),
        (with("requests_per_min", json!(0)), "requests_per_min: "),
        (with("deadline", json!("1ms")), "deadline: "),
        (with("deadline", json!("${HOME}")), "deadline: "),
        (with("tools", json!("pen")), "tools: "),
        (with("cwd", json!("/")), "cwd: only"),
        (with("colour", json!("red")), "colour: "),
        (
            hosted(json!({"port": 80, "process": {"program": "true"}})),
            "instance.process: only the configuration file",
        ),
        (hosted(json!({"port": 0, "container": {"image": "acme/agent:1"}})), "instance.port: "),
        (image(json!({"image": "evil/agent:1"})), "instance.container.image: "),
        (image(json!({"env": {"KEY": "value"}})), "instance.container.env: "),
        (image(json!({"privileged": true})), "instance.container.privileged: "),
        (image(json!({})), "instance: it could call plimsoll like anybody"),
    ] {
        let answer = create(&server, entry.clone()).await;
        assert_eq!(answer.status, 422, "{entry}: {}", message(&answer));
        assert!(message(&answer).contains(key), "{key} is not in {:?}", message(&answer));
        assert_eq!(answer.json()["error"]["code"], "invalid");
        let call = rpc(&server, "agent.create", entry).await;
        assert_eq!(call["error"]["code"], -32602, "{call}");
    }
    for body in [
        "",
        "[]",
        "null",
        "{",
        "{}",
        r#"{"id": 7, "provider": "p"}"#,
        r#"{"id": "No Slug", "provider": "p"}"#,
    ] {
        let answer = post(&server, body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", message(&answer));
        assert!(!message(&answer).is_empty());
    }
    let twice = post(&server, r#"{"id": "made", "provider": "p", "provider": "slow"}"#.to_owned()).await;
    assert_eq!((twice.status, message(&twice).contains("`provider` is there twice")), (422, true));
    assert_eq!(Ask::post("/agents", "{}").send(server.address()).await.status, 415, "only JSON");
    let literal = create(&server, with("system", json!("${HOME}"))).await;
    assert_eq!(literal.status, 201, "no variable is expanded: {}", message(&literal));
    let journaled = Ask::get("/audit?kind=agent_created").send(server.address()).await.json();
    assert_eq!(journaled["records"][0]["detail"]["config"]["system"], "${HOME}");
    assert_eq!(listed(&server).await.len(), 2, "nothing else was made");
    let taken = create(&server, json!({"id": "a", "provider": "p"})).await;
    assert!(taken.status == 409 && message(&taken).contains("`agents.a`"), "{}", message(&taken));
    for (id, status) in [("a", 409), ("nobody", 404), ("No%20Slug", 404)] {
        assert_eq!(delete(&server, id).await.status, status, "{id}");
    }
}

#[tokio::test]
async fn what_is_counted_of_its_instance_begins_anew_when_it_is_made_again() {
    let act = json!({"takes": "1ms"});
    let script = json!({"starts": [act], "stops": [act]});
    let made = json!({"id": "made", "provider": "p", "instance": {"port": 0, "scripted": script}});
    let mut server = Server::start(house()).await;
    let starts = async |server: &Server| {
        let shown = entry(server, "made").await.expect("it is there");
        shown["state"]["lifecycle_metrics"]["lazy_start"].as_u64().unwrap_or_else(|| panic!("{shown}"))
    };
    let records = async |server: &Server, kind: &str| {
        let page = Ask::get("/audit?stream=instance/made&limit=100").send(server.address()).await.json();
        let records = page["records"].as_array().expect("records").clone();
        records.iter().filter(|record| record["kind"] == kind).count()
    };
    for round in 1..=2 {
        assert_eq!(create(&server, made.clone()).await.status, 201);
        assert_eq!(starts(&server).await, 0, "in round {round}");
        assert!(send(&server, "made", "hello").await["result"]["text"].is_string());
        until("the start is counted", async || (starts(&server).await == 1).then_some(())).await;
        server = restarted(server, true, house()).await;
        assert_eq!(starts(&server).await, 1, "it survives");
        assert!(series_of(&server, "made").await.contains(&"plimsoll_lifecycle_events_total".to_owned()));
        assert!(send(&server, "made", "hello").await["result"]["text"].is_string());
        assert_eq!(delete(&server, "made").await.status, 200);
        assert_eq!(series_of(&server, "made").await, [""; 0]);
        assert_eq!(records(&server, "removed").await, round);
        assert_eq!(records(&server, "lazy_stop").await, round, "its instance was stopped before");
    }
    server = restarted(server, false, house()).await;
    assert_eq!(create(&server, made).await.status, 201);
    assert_eq!(starts(&server).await, 0, "also after a restart");
}

/// An instance that comes at once and takes so long to go.
fn hosted(id: &str, provider: &str, stop: &str) -> Value {
    let script = json!({"starts": [{"takes": "1ms"}], "stops": [{"takes": stop}]});
    json!({"id": id, "provider": provider, "instance": {"port": 0, "scripted": script}})
}

async fn kinds(server: &Server, id: &str) -> Vec<String> {
    let path = format!("/audit?stream=instance/{id}&limit=100&order=asc");
    let page = Ask::get(&path).send(server.address()).await.json();
    let records = page["records"].as_array().expect("records");
    records.iter().map(|record| record["kind"].as_str().expect("a kind").to_owned()).collect()
}

async fn started(server: &Server, id: &str) {
    assert!(send(server, id, "hello").await["result"]["text"].is_string());
    until("the start is written", async || (kinds(server, id).await == ["lazy_start"]).then_some(())).await;
}

#[tokio::test]
async fn an_instance_that_does_not_end_holds_up_only_those_of_its_name() {
    let server = Server::start(house()).await;
    let stuck = hosted("stuck", "p", "1h");
    assert_eq!(create(&server, stuck.clone()).await.status, 201);
    started(&server, "stuck").await;
    assert_eq!(soon("the answer", delete(&server, "stuck")).await.status, 200);
    assert_eq!((entry(&server, "stuck").await, delete(&server, "stuck").await.status), (None, 404));
    let again = create(&server, stuck.clone()).await;
    assert!(again.status == 409 && message(&again).contains("still ends"), "{}", message(&again));
    assert_eq!(create(&server, hosted("next", "p", "1ms")).await.status, 201, "others come");
    assert_eq!(delete(&server, "next").await.status, 200, "and go");
    assert_eq!(kinds(&server, "stuck").await, ["lazy_start"], "it is not over");

    let server = restarted(server, true, house()).await;
    assert_eq!(entry(&server, "stuck").await, None, "that it was deleted was written before");
    assert_eq!(kinds(&server, "stuck").await, ["lazy_start", "removed"]);
    assert_eq!(create(&server, stuck).await.status, 201);
    let shown = entry(&server, "stuck").await.expect("it is there");
    assert_eq!(shown["state"]["lifecycle_metrics"]["lazy_start"], 0);
}

#[tokio::test]
async fn the_instance_of_one_that_does_not_fit_is_not_taken_for_gone() {
    let server = Server::start(house()).await;
    assert_eq!(create(&server, hosted("made", "other", "1ms")).await.status, 201);
    started(&server, "made").await;
    let mut config = house();
    config["providers"].as_object_mut().expect("keys").remove("other");
    let server = restarted(server, true, config.clone()).await;
    let shown = entry(&server, "made").await.expect("it is known");
    assert_eq!((&shown["status"], &shown["start"]), (&json!("unfit"), &json!("lazy")));
    assert_eq!(kinds(&server, "made").await, ["lazy_start"], "nothing was removed");
    assert_eq!(Ask::get("/v1/models/made").send(server.address()).await.status, 404);

    let server = restarted(server, true, house()).await;
    let shown = entry(&server, "made").await.expect("it is there");
    assert_eq!(shown["state"]["lifecycle_metrics"]["lazy_start"], 1, "it goes on");
    let server = restarted(server, true, config).await;
    assert_eq!(delete(&server, "made").await.status, 200);
    until("its end is written", async || {
        kinds(&server, "made").await.contains(&"removed".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn as_many_and_as_long_as_there_may_be_and_no_more() {
    let server = Server::start(house()).await;
    let sized = |id: &str, bytes: usize| {
        let length = |system: String| json!({"id": id, "provider": "p", "system": system}).to_string();
        length("x".repeat(bytes - length(String::new()).len()))
    };
    let hits =
        async |limit: &str| server.scrape().await.count("plimsoll_limit_hits_total", &[("limit", limit)]);
    assert_eq!(hits("made_agent_bytes").await, 0);
    let over = post(&server, sized("long", (64 << 10) + 1)).await;
    assert_eq!((over.status, &over.json()["error"]["code"]), (413, &json!("agent_too_large")));
    let params = serde_json::from_str(&sized("long", (64 << 10) + 1)).expect("JSON");
    let call = rpc(&server, "agent.create", params).await;
    assert_eq!(
        (&call["error"]["code"], &call["error"]["data"]["limit"]),
        (&json!(-32602), &json!("made_agent_bytes"))
    );
    assert_eq!(hits("made_agent_bytes").await, 2);
    let most = post(&server, sized("long", 64 << 10)).await;
    assert_eq!(most.status, 201, "{}", message(&most));
    for n in 1..256 {
        let answer = create(&server, json!({"id": format!("made-{n}"), "provider": "p"})).await;
        assert_eq!(answer.status, 201, "{n}: {}", message(&answer));
    }
    let more = json!({"id": "more", "provider": "p"});
    let over = create(&server, more.clone()).await;
    assert_eq!((over.status, &over.json()["error"]["code"]), (409, &json!("too_many_agents")));
    let call = rpc(&server, "agent.create", more.clone()).await;
    assert_eq!(
        (&call["error"]["code"], &call["error"]["data"]["limit"]),
        (&json!(-32014), &json!("made_agents"))
    );
    assert_eq!(hits("made_agents").await, 2);
    assert_eq!(delete(&server, "made-7").await.status, 200);
    assert_eq!(create(&server, more).await.status, 201, "there is room again");
    let scrape = server.scrape().await;
    let gauges = scrape.0.iter().filter(|sample| sample.name == "plimsoll_agent_spend_today_usd");
    assert_eq!(gauges.count(), 257, "each has its own, and there is no `other`");
}

#[tokio::test]
async fn only_an_operator_makes_and_deletes_and_both_are_told_on_the_stream() {
    let tokens: Vec<Value> = ["viewer", "operator"]
        .iter()
        .map(|role| json!({"name": role, "role": role, "sha256": token_hash(role)}))
        .collect();
    let mut config = house();
    config["auth"] = json!({"tokens": tokens});
    let server = Server::start(config).await;
    let as_role =
        |ask: Ask, role: &'static str| ask.token(Some(role)).header("content-type", "application/json");
    let body = json!({"id": "made", "provider": "p", "system": "be discreet"}).to_string();
    let make = |role| as_role(Ask::post("/agents", body.clone()), role);
    let end = |role| as_role(Ask::method("DELETE", "/agents/made"), role);
    let mut stream = Ask::get("/events").token(Some("viewer")).open(server.address()).await;
    stream.until("\r\n\r\n").await;
    assert_eq!(make("viewer").send(server.address()).await.status, 403);
    assert_eq!(make("operator").send(server.address()).await.status, 201);
    stream.until("operator made the agent made").await;
    for format in ["json", "ndjson", "csv"] {
        let path = format!("/audit?kind=agent_created&format={format}");
        let seen = async |role| Ask::get(&path).token(Some(role)).send(server.address()).await.text();
        let (viewer, operator) = (seen("viewer").await, seen("operator").await);
        assert!(viewer.contains("agent_created") && !viewer.contains("be discreet"), "{viewer}");
        assert!(operator.contains("be discreet"), "{operator}");
    }
    assert_eq!(end("viewer").send(server.address()).await.status, 403);
    assert_eq!(end("operator").send(server.address()).await.status, 200);
    let seen = stream.until("operator deleted the agent made").await;
    assert!(!seen.contains("be discreet"), "{seen}");
    assert!(seen.contains("\"agent.created\"") && seen.contains("\"agent.deleted\""), "{seen}");
}

#[tokio::test]
async fn deleting_an_agent_ends_what_runs_and_waits() {
    let server = Server::start(house()).await;
    assert_eq!(
        create(&server, json!({"id": "made", "provider": "slow", "max_concurrent": 1})).await.status,
        201
    );
    let asks: Vec<_> = (0..3)
        .map(|n| {
            let params = json!({"agent": "made", "message": "hello", "session": n.to_string()});
            let (address, ask) = (server.address(), Ask::call("agent.send", params));
            tokio::spawn(async move { ask.send(address).await.json() })
        })
        .collect();
    until("all are under way", async || {
        let active = server.call("system.activeRequests", json!({})).await;
        (active.as_array()?.len() == 3).then_some(())
    })
    .await;
    let answer = soon("the deletion", delete(&server, "made")).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"deleted": "made", "cancelled": 3})));
    for ask in asks {
        let answer = soon("an answer", ask).await.expect("no panic");
        assert_eq!(answer["error"]["code"], -32005, "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|why| why.contains("its agent was deleted")));
    }
}

/// Whoever sends while the agent comes and goes gets an answer or a refusal that says why, and none is left behind.
#[tokio::test]
async fn what_is_sent_while_an_agent_comes_and_goes_is_answered_or_refused() {
    let server = Server::start(house()).await;
    let mut senders = Vec::new();
    for sender in 0..4 {
        let address = server.address();
        senders.push(tokio::spawn(async move {
            let mut codes = Vec::new();
            for n in 0..100 {
                let session = format!("{sender}-{n}");
                let params = json!({"agent": "made", "message": "hello", "session": session});
                let answer = Ask::call("agent.send", params).send(address).await.json();
                let answered = answer["result"]["text"].is_string();
                codes.push(if answered { 0 } else { answer["error"]["code"].as_i64().expect("an error") });
            }
            codes
        }));
    }
    for _ in 0..25 {
        assert_eq!(create(&server, json!({"id": "made", "provider": "p"})).await.status, 201);
        assert_eq!(delete(&server, "made").await.status, 200);
    }
    for sender in senders {
        let codes = soon("the answers", sender).await.expect("no panic");
        assert!(codes.iter().all(|code| [0, -32003, -32005].contains(code)), "{codes:?}");
    }
    let active = server.call("system.activeRequests", json!({})).await;
    assert_eq!(active, json!([]));
    assert_eq!(series_of(&server, "made").await, [""; 0]);
}

#[tokio::test]
async fn the_command_line_adds_and_removes() {
    let server = Server::start(house()).await;
    let file = server.dir().join("made.json");
    std::fs::write(&file, json!({"id": "made", "provider": "p"}).to_string()).expect("written");
    let plimsoll = |arguments: &[&str]| {
        let mut command = clean_command();
        command.args(arguments).arg("--data-dir").arg(server.data_dir());
        let output = command.output().expect("plimsoll runs");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text.concat())
    };
    let file = file.to_str().expect("a path");
    assert_eq!(plimsoll(&["agents", "add", file]), (Some(0), "added made\n".to_owned()));
    let (code, text) = plimsoll(&["agents", "add", file]);
    assert!(code == Some(6) && text.contains("already"), "{code:?} {text}");
    assert!(plimsoll(&["agents"]).1.contains("made"));
    assert_eq!(plimsoll(&["agents", "remove", "made"]), (Some(0), "removed made\n".to_owned()));
    let (code, text) = plimsoll(&["agents", "remove", "a"]);
    assert!(code == Some(6) && text.contains("`agents.a`"), "{code:?} {text}");
    server.signal(Signal::TERM);
}
