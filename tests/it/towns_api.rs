//! Towns over the API: what may be asked and told, by whom, how it is refused, and what runtimes elsewhere report.

use std::collections::BTreeSet;

use plimsoll::clock::Timestamp;
use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, clean_command, token_hash, until};

/// A server with a town `lab` of its own, where the agent `ext` of a runtime elsewhere works.
async fn lab() -> Server {
    let server = Server::start(json!({})).await;
    assert_eq!(post(&server, "/api/towns", json!({"id": "lab"})).await.status, 201);
    assert_eq!(post(&server, "/api/towns/lab/agents", json!({"id": "ext"})).await.status, 201);
    server
}

async fn post(server: &Server, path: &str, body: Value) -> Answer {
    told(server, path, body, None, None).await
}

async fn told(server: &Server, path: &str, body: Value, key: Option<&str>, token: Option<&str>) -> Answer {
    let mut ask = Ask::post(path, body.to_string()).header("content-type", "application/json").token(token);
    if let Some(key) = key {
        ask = ask.header("idempotency-key", key);
    }
    ask.send(server.address()).await
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = Ask::get(path).send(server.address()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Adds a task with this id, which must go well.
async fn add(server: &Server, id: &str, more: Value) {
    let mut bead = json!({"id": id, "title": id});
    for (key, value) in more.as_object().into_iter().flatten() {
        bead[key] = value.clone();
    }
    let added = post(server, "/api/towns/lab/beads", bead).await;
    assert_eq!((added.status, &added.json()["bead"]), (201, &json!(id)), "{}", added.text());
}

async fn bead(server: &Server, id: &str) -> Value {
    get(server, &format!("/api/towns/lab/beads/{id}")).await
}

/// Waits until a bead stands so.
async fn stands(server: &Server, id: &str, status: &str) -> Value {
    until(&format!("{id} is {status}"), async || {
        let bead = bead(server, id).await;
        (bead["status"] == status).then_some(bead)
    })
    .await
}

/// Status and code of a refusal, which must say something.
fn refused(answer: &Answer) -> (u16, String) {
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{}", answer.text());
    (answer.status, error["code"].as_str().unwrap_or_default().to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn report(server: &Server, body: Value, key: Option<&str>, token: Option<&str>) -> Answer {
    told(server, "/api/towns/lab/events", body, key, token).await
}

#[tokio::test]
async fn a_bead_goes_to_an_agent_elsewhere_and_ends_by_its_report() {
    let server = lab().await;
    let told = json!({"instructions": "Do it well.", "priority": 0});
    add(&server, "fix", told).await;
    let dispatched = stands(&server, "fix", "in_progress").await;
    assert_eq!((&dispatched["assignee"], &dispatched["dispatchId"]), (&json!("ext"), &json!("fix.1")));
    assert_eq!(dispatched["instructions"], "Do it well.");
    let agents = get(&server, "/api/towns/lab/agents").await;
    assert_eq!(agents["agents"][0]["hook"]["dispatchId"], "fix.1");

    let done = json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.1", "outcome": "done", "summary": "ok"});
    let first = report(&server, done.clone(), Some("k1"), None).await;
    assert_eq!((first.status, &first.json()["repeated"]), (201, &json!(false)), "{}", first.text());
    let again = report(&server, done.clone(), Some("k1"), None).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json(), json!({"seq": first.json()["seq"], "repeated": true, "coalesced": false}));
    let by_method = server.call("town.report", json!({"town": "lab", "idempotencyKey": "k1", "event": done}));
    assert_eq!(by_method.await, again.json(), "over the other road it is the same report");
    let mut other = done.clone();
    other["outcome"] = json!("failed");
    assert_eq!(refused(&report(&server, other, Some("k1"), None).await), code(409, "key_reused"));
    assert_eq!(refused(&report(&server, done.clone(), None, None).await), code(400, "bad_request"));

    let ended = stands(&server, "fix", "closed").await;
    assert_eq!((&ended["kind"], &ended["reason"]), (&json!("task"), &json!("done")));
    let stale = report(&server, done, Some("k2"), None).await;
    assert_eq!(stale.status, 201, "what is nobody's dispatch any more is taken and changes nothing");
    let after = bead(&server, "fix").await;
    assert_eq!((&after["status"], &after["seq"]), (&json!("closed"), &ended["seq"]));
}

#[tokio::test]
async fn agents_report_for_their_own_dispatch_only() {
    let token = |name: &str, more: Value| {
        let mut token = json!({"name": name, "role": "agent", "sha256": token_hash(name)});
        for (key, value) in more.as_object().into_iter().flatten() {
            token[key] = value.clone();
        }
        token
    };
    let tokens = json!([
        {"name": "ann", "role": "operator", "sha256": token_hash("ann")},
        {"name": "vic", "role": "viewer", "sha256": token_hash("vic")},
        token("any", json!({})),
        token("ext", json!({"town": "lab", "agent": "ext"})),
        token("other", json!({"town": "lab", "agent": "other"})),
        token("elsewhere", json!({"town": "main"})),
    ]);
    let server = Server::start(json!({"auth": {"tokens": tokens}})).await;
    let ann = Some("ann");
    for (path, body) in [
        ("/api/towns", json!({"id": "lab"})),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab/beads", json!({"id": "fix", "title": "t", "instructions": "secret"})),
    ] {
        assert_eq!(told(&server, path, body, None, ann).await.status, 201, "{path}");
    }
    let shown =
        async |token| Ask::get("/api/towns/lab/beads/fix").token(Some(token)).send(server.address()).await;
    until("fix is dispatched", async || (shown("ann").await.json()["dispatchId"] == "fix.1").then_some(()))
        .await;
    assert_eq!(shown("ann").await.json()["instructions"], "secret");
    assert_eq!(shown("vic").await.json()["instructions"], Value::Null, "that is for operators");
    let joined = told(&server, "/api/towns/lab/agents", json!({"id": "other"}), None, ann).await;
    assert_eq!(joined.status, 201);

    let progress = |agent: &str| json!({"type": "agent_progress", "agent": agent, "dispatchId": "fix.1"});
    for (token, agent, status) in [
        ("ext", "ext", 201),
        ("any", "ext", 200),
        ("ann", "ext", 200),
        ("vic", "ext", 403),
        ("other", "ext", 403),
        ("elsewhere", "ext", 403),
        ("ext", "other", 403),
        ("other", "other", 403),
        ("any", "other", 403),
        ("ann", "other", 403),
    ] {
        let answer = report(&server, progress(agent), Some("p"), Some(token)).await;
        assert_eq!(answer.status, status, "{token} for {agent}: {}", answer.text());
    }
    let running =
        json!({"type": "container_status", "agent": "ext", "dispatchId": "fix.1", "status": "running"});
    assert_eq!(report(&server, running.clone(), Some("c"), Some("ext")).await.status, 201);
    let nobody =
        json!({"type": "container_status", "agent": "nobody", "dispatchId": "no.1", "status": "running"});
    let nobody = report(&server, nobody, Some("n"), Some("any")).await;
    assert_eq!(refused(&nobody), code(404, "unknown_agent"));
    let nowhere = told(&server, "/api/towns/none/events", running, Some("c"), Some("any")).await;
    assert_eq!(refused(&nowhere), code(404, "unknown_town"));
}

#[tokio::test]
async fn beads_are_held_released_cancelled_tied_and_batched() {
    let server = lab().await;
    assert_eq!(post(&server, "/api/towns/lab/drain", json!({"draining": true})).await.status, 200);
    for id in ["a", "b", "c"] {
        add(&server, id, json!({})).await;
    }
    let path = |bead: &str, what: &str| format!("/api/towns/lab/beads/{bead}/{what}");
    let tie = async |bead: &str, blocked_by: &str| {
        post(&server, &path(bead, "dependencies"), json!({"blockedBy": blocked_by})).await
    };
    assert_eq!(tie("b", "a").await.status, 201);
    assert_eq!(refused(&tie("a", "b").await), code(409, "cycle"));
    assert_eq!(refused(&tie("a", "nothing").await), code(404, "unknown_bead"));
    assert_eq!(bead(&server, "b").await["blockedBy"], json!(["a"]));

    let convoy = json!({"title": "both", "beads": ["a", "b"]});
    let convoy = post(&server, "/api/towns/lab/convoys", convoy).await;
    let id = convoy.json()["convoy"].as_str().expect("an id").to_owned();
    assert_eq!((convoy.status, bead(&server, &id).await["kind"].clone()), (201, json!("convoy")));
    let taken = post(&server, "/api/towns/lab/convoys", json!({"title": "again", "beads": ["a"]})).await;
    assert_eq!(refused(&taken), code(409, "in_convoy"));

    let held = post(&server, &path("c", "hold"), json!({"reason": "not yet"})).await;
    assert_eq!(held.status, 200, "{}", held.text());
    assert_eq!(post(&server, "/api/towns/lab/drain", json!({"draining": false})).await.status, 200);
    stands(&server, "a", "in_progress").await;
    let c = bead(&server, "c").await;
    assert_eq!((&c["held"], &c["heldBecause"]), (&json!(true), &json!("not yet")));
    let listed = get(&server, "/api/towns/lab/beads?status=open&kind=task").await;
    let ids = |list: &Value| -> BTreeSet<String> {
        let beads = list["beads"].as_array().expect("a list").iter();
        beads.filter_map(|bead| bead["id"].as_str()).map(str::to_owned).collect()
    };
    assert_eq!(ids(&listed), ["b", "c"].map(str::to_owned).into());
    until("b and c say why they wait", async || {
        let listed = get(&server, "/api/towns/lab/beads?status=open&kind=task").await;
        let whys: Vec<_> = listed["beads"].as_array()?.iter().map(|b| b["wait"]["why"].clone()).collect();
        (whys == [json!("blocked_by"), json!("held")]).then_some(())
    })
    .await;

    // Page by page it is the same list.
    let first = get(&server, "/api/towns/lab/beads?limit=2").await;
    let second = get(
        &server,
        &format!("/api/towns/lab/beads?limit=2&cursor={}", first["next"].as_str().expect("more")),
    )
    .await;
    assert_eq!((first["beads"].as_array().map(Vec::len), &second["next"]), (Some(2), &Value::Null));
    let all: BTreeSet<_> = ids(&first).union(&ids(&second)).cloned().collect();
    assert_eq!(all, ["a", "b", "c", &id].map(str::to_owned).into());

    let cancelled =
        post(&server, &path("a", "cancel"), json!({"status": "closed", "reason": "no need"})).await;
    assert_eq!(cancelled.status, 200);
    stands(&server, "a", "closed").await;
    stands(&server, "b", "in_progress").await;
    for what in ["cancel", "hold", "release"] {
        assert_eq!(refused(&post(&server, &path("a", what), json!({})).await), code(409, "ended"), "{what}");
    }
    assert_eq!(post(&server, &path("c", "release"), json!({})).await.status, 200);
    assert_eq!(ids(&get(&server, "/api/towns/lab/beads?status=closed").await), ["a".to_owned()].into());

    let left = Ask::method("DELETE", "/api/towns/lab/agents/ext").send(server.address()).await;
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(get(&server, "/api/towns/lab/agents").await, json!({"agents": [], "next": null}));
    stands(&server, "b", "open").await;
    let again = Ask::method("DELETE", "/api/towns/lab/agents/ext").send(server.address()).await;
    assert_eq!(refused(&again), code(404, "unknown_agent"));
}

#[tokio::test]
async fn towns_are_made_listed_drained_and_ruled_by_their_policy() {
    let server = lab().await;
    let listed = get(&server, "/api/towns").await;
    let lab = listed["towns"].as_array().expect("a list").iter().find(|town| town["id"] == "lab");
    assert_eq!(lab.expect("it is there")["agents"], 1);
    assert_eq!(refused(&post(&server, "/api/towns", json!({"id": "lab"})).await), code(409, "town_exists"));
    let long = json!({"id": "x".repeat(33)});
    assert_eq!(refused(&post(&server, "/api/towns", long).await), code(422, "invalid"));

    let drain =
        async |draining| post(&server, "/api/towns/lab/drain", json!({"draining": draining})).await.json();
    assert!(drain(true).await["seq"].is_u64());
    assert_eq!(drain(true).await, json!({"draining": true, "seq": null}), "it drained before");
    assert_eq!(get(&server, "/api/towns/lab/status").await["draining"], true);
    assert!(drain(false).await["seq"].is_u64());

    let policy =
        async |changes: Value| post(&server, "/api/towns/lab/policy", json!({"policy": changes})).await;
    let before = policy(json!({})).await.json();
    assert_eq!((&before["seq"], &before["policy"]["review"]["enabled"]), (&Value::Null, &json!(false)));
    let after = policy(json!({"review": {"enabled": true}})).await.json();
    assert_eq!(
        (&after["policy"]["review"]["enabled"], &after["policy"]["dispatch"]),
        (&json!(true), &before["policy"]["dispatch"])
    );
    for wrong in
        [json!({"review": {"rounds": 1}}), json!({"dispatch": {"attempts_max": 0}}), json!({"nonsense": 1})]
    {
        assert_eq!(refused(&policy(wrong.clone()).await), code(422, "invalid"), "{wrong}");
    }
    let own = json!({"stuck": {"nudge_after": "7m"}, "lost": {"quiet_after": "77s"}, "dispatch": {"attempts_max": 7}});
    let keys: Vec<(&String, &Value)> = own.as_object().expect("keys").iter().collect();
    futures_util::future::join_all(keys.iter().map(|(key, value)| policy(json!({*key: value})))).await;
    let all = policy(json!({})).await.json();
    for (key, value) in keys {
        let (name, value) = value.as_object().and_then(|of| of.iter().next()).expect("one");
        assert_eq!(&all["policy"][key][name], value, "one change undid another: {all}");
    }
    let named = policy(json!({"dispatch": {"attempts_max": 0}})).await.json();
    let message = named["error"]["message"].as_str().expect("a message");
    assert_eq!(message, "policy.dispatch.attempts_max: must be 1 to 100");

    until("a tick is told", async || get(&server, "/api/towns/lab/status").await["lastTick"]["at"].as_u64())
        .await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_says_why() {
    let server = lab().await;
    add(&server, "there", json!({})).await;
    let beads = "/api/towns/lab/beads";
    for (path, body, expected) in [
        ("/api/towns/none/beads", json!({"title": "t"}), code(404, "unknown_town")),
        ("/api/towns/NO/beads", json!({"title": "t"}), code(404, "not_found")),
        (beads, json!({"title": "t", "id": "there"}), code(409, "bead_exists")),
        (beads, json!({"title": "t", "town": "lab"}), code(400, "bad_request")),
        (beads, json!({"title": "t", "command": "rm"}), code(400, "bad_request")),
        (beads, json!({"title": 1}), code(400, "bad_request")),
        (beads, json!([]), code(400, "bad_request")),
        (beads, json!({}), code(400, "bad_request")),
        (beads, json!({"title": ""}), code(422, "invalid")),
        (beads, json!({"title": "t", "priority": 5}), code(422, "invalid")),
        (beads, json!({"title": "t", "instructions": "x".repeat((64 << 10) + 1)}), code(422, "invalid")),
        (beads, json!({"title": "t", "id": "x".repeat(49)}), code(422, "invalid")),
        (beads, json!({"title": "t", "blockedBy": ["nothing"]}), code(404, "unknown_bead")),
        (beads, json!({"title": "t", "convoy": "there"}), code(409, "wrong_kind")),
        ("/api/towns/lab/beads/none/hold", json!({}), code(404, "unknown_bead")),
        ("/api/towns/lab/agents", json!({"id": "ext"}), code(409, "agent_exists")),
        ("/api/towns/lab/agents", json!({"id": "a", "image": "x"}), code(400, "bad_request")),
        ("/api/towns/lab/convoys", json!({"title": "t", "beads": []}), code(422, "invalid")),
        ("/api/towns/lab/drain", json!({}), code(400, "bad_request")),
    ] {
        let answer = post(&server, path, body.clone()).await;
        assert_eq!(refused(&answer), expected, "{path} {body}: {}", answer.text());
    }
    for (path, expected) in [
        ("/api/towns/none/status", code(404, "unknown_town")),
        ("/api/towns/lab/beads/none", code(404, "unknown_bead")),
        ("/api/towns/lab/beads?limit=0", code(400, "bad_request")),
        ("/api/towns/lab/beads?limit=1001", code(400, "bad_request")),
        ("/api/towns/lab/beads?status=done", code(400, "bad_request")),
        ("/api/towns/lab/beads?town=main", code(400, "bad_request")),
        ("/api/towns/lab/beads?colour=red", code(400, "bad_request")),
    ] {
        let answer = Ask::get(path).send(server.address()).await;
        assert_eq!(refused(&answer), expected, "{path}: {}", answer.text());
    }
    let generated = post(&server, beads, json!({"title": "t"})).await.json();
    let id = generated["bead"].as_str().expect("an id");
    assert!(id.starts_with("b-") && id.len() == 10, "{id}");
    let refused =
        server.client().call("town.addBead", json!({"town": "lab", "title": "t", "id": "there"})).await;
    let refused = refused.expect_err("it is taken").to_string();
    assert!(refused.contains("there is a bead there"), "{refused}");
}

#[tokio::test]
async fn an_agent_of_plimsolls_own_is_nudged_as_its_entry_says_and_not_as_it_joins() {
    let config = json!({"providers": {"p": {"kind": "echo"}}, "agents": {"own": {"provider": "p"}}});
    let server = Server::start(config).await;
    assert_eq!(post(&server, "/api/towns", json!({"id": "lab"})).await.status, 201);
    let joins = async |id: &str, nudges: bool| {
        post(&server, "/api/towns/lab/agents", json!({"id": id, "nudges": nudges})).await
    };
    let told = joins("own", true).await;
    assert_eq!(refused(&told), code(422, "invalid"));
    assert!(told.text().contains("leave this out"), "{}", told.text());
    assert_eq!(joins("far", true).await.status, 201);
}

#[tokio::test]
async fn the_next_tick_and_the_past_can_be_asked_for_and_nothing_changes() {
    let server = lab().await;
    add(&server, "fix", json!({"instructions": "secret"})).await;
    add(&server, "later", json!({"blockedBy": ["fix"]})).await;
    stands(&server, "fix", "in_progress").await;
    let records = async || {
        let page = get(&server, "/audit?stream=town/lab&limit=1000").await;
        page["records"].as_array().map(Vec::len)
    };
    let before = records().await;
    let dry = post(&server, "/api/towns/lab/debug/reconcile-dry-run", json!({})).await;
    assert_eq!(dry.status, 200, "{}", dry.text());
    let dry = dry.json();
    assert_eq!((&dry["actions"], &dry["metrics"]["actionsEmitted"]), (&json!([]), &json!(0)));
    assert_eq!(dry["report"][1]["wait"]["why"], "blocked_by");

    let replay = async |body: Value| post(&server, "/api/towns/lab/debug/replay-events", body).await;
    let (from, to) = ("2000-01-01T00:00:00+02:00", "2100-01-01T00:00:00Z");
    let whole = replay(json!({"from": from, "to": to, "compare": true})).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let whole = whole.json();
    assert_eq!(whole["eventsReplayed"].as_u64(), before.map(|count| count as u64));
    assert_eq!(whole["stateSnapshot"]["nonTerminalBeads"][0]["status"], "in_progress");
    assert!(!whole.to_string().contains("secret"), "{whole}");
    for (body, status, says) in [
        (json!({"to": to}), 400, "from: "),
        (json!({"from": from}), 400, "to: "),
        (json!({"from": "yesterday", "to": to}), 400, "from: "),
        (json!({"from": from, "to": "never"}), 400, "to: "),
        (json!({"from": to, "to": from}), 400, "to: "),
        (json!({"from": from, "to": to, "command": "x"}), 400, "command"),
        (json!({"from": from, "to": to, "policy": {"nonsense": 1}}), 422, "policy: "),
    ] {
        let answer = replay(body.clone()).await;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, status, "{body}: {message}");
        assert!(message.starts_with(says) || message.contains(says), "{body}: {message}");
    }
    for what in ["reconcile-dry-run", "replay-events"] {
        let body = if what == "replay-events" { json!({"from": from, "to": to}) } else { json!({}) };
        let nowhere = post(&server, &format!("/api/towns/none/debug/{what}"), body).await;
        assert_eq!(refused(&nowhere), code(404, "unknown_town"), "{what}");
    }
    assert_eq!(records().await, before, "nothing was written");
}

/// What a command prints, and its exit code.
fn run(server_dir: &std::path::Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = clean_command();
    let output = command.args(args).arg("--data-dir").arg(server_dir).output().expect("plimsoll runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A replay by another policy is made from a file, by the server and on the files.
fn what_if(dir: &std::path::Path) {
    let file = dir.join("policy.json");
    let replay = |policy: &str| {
        std::fs::write(&file, policy).expect("written");
        let policy = file.to_str().expect("text");
        run(dir, &["replay", "lab", "--from", "1h", "--to", "0s", "--policy", policy])
    };
    let (code, text) = replay(r#"{"dispatch": {"attempts_max": 9}}"#);
    assert_eq!((code, text.starts_with("planned by the policy of ")), (Some(0), true), "{text}");
    let (code, text) = replay(r#"{"dispatch": {"attempts_max": 0}}"#);
    assert_eq!((code, text.contains("attempts_max")), (Some(6), true), "{text}");
}

#[tokio::test]
async fn the_command_line_does_the_same_and_asks_the_files_where_no_server_runs() {
    let mut server = lab().await;
    let dir = server.data_dir();
    let ok = |args: &[&str]| {
        let (code, text) = run(&dir, args);
        assert_eq!(code, Some(0), "{args:?}: {text}");
        text
    };
    assert!(ok(&["town", "list"]).contains("lab"));
    assert_eq!(ok(&["town", "create", "other"]), "made other\n");
    let nothing = ok(&["bead", "list", "--town", "other"]);
    assert!(nothing.contains("`--status closed`"), "{nothing}");
    assert_eq!(ok(&["town", "drain", "lab", "--reason", "test"]), "lab drains\n");
    let id = ok(&["bead", "add", "Fix it", "--town", "lab", "--instructions", "well", "--priority", "1"]);
    let id = id.trim();
    let after = ok(&["bead", "add", "Then this", "--town", "lab", "--id", "then", "--blocked-by", id]);
    assert_eq!(after, "then\n");
    assert_eq!(ok(&["bead", "hold", "then", "--town", "lab"]), "then is held\n");
    assert_eq!(ok(&["bead", "release", "then", "--town", "lab"]), "then may go on\n");
    until("the list says why", async || {
        let (_, listed) = run(&dir, &["bead", "list", "--town", "lab"]);
        (listed.contains("the town is draining") && listed.contains(&format!("it waits for {id}")))
            .then_some(())
    })
    .await;
    let shown = ok(&["bead", "show", id, "--town", "lab"]);
    assert!(shown.contains("Fix it") && shown.contains("\ninstructions:\nwell"), "{shown}");
    let status = ok(&["town", "status", "lab"]);
    assert!(status.contains("draining") && status.contains("2 open"), "{status}");
    let dry = ok(&["dry-run", "lab"]);
    assert!(dry.contains("do 0 things") && dry.contains("the town is draining"), "{dry}");
    let replayed = ok(&["replay", "lab", "--from", "1h", "--to", "now", "--compare"]);
    assert!(replayed.contains("Fix it") && replayed.contains("the town did nothing"), "{replayed}");
    let (code, text) = run(&dir, &["bead", "hold", "none", "--town", "lab"]);
    assert_eq!((code, text.contains("there is no bead none")), (Some(6), true), "{text}");
    let (code, text) = run(&dir, &["replay", "none", "--from", "1h", "--to", "0s"]);
    assert_eq!((code, text.contains("there is no town none")), (Some(6), true), "{text}");
    assert_eq!(ok(&["bead", "cancel", "then", "--town", "lab"]), "then is cancelled\n");
    let ended = ok(&["bead", "show", "then", "--town", "lab"]);
    assert!(ended.contains("because       cancelled") && ended.contains("--stream town/lab"), "{ended}");
    what_if(&dir);
    server.stop().await;

    let dry = ok(&["dry-run", "lab"]);
    assert!(dry.contains("the town is draining"), "{dry}");
    let asked: Value = serde_json::from_str(&ok(&["dry-run", "lab", "--json"])).expect("JSON");
    let shown = ok(&["audit", "list", "--stream", "town/lab", "--limit", "1", "--json"]);
    let last: Value = serde_json::from_str(shown.trim()).expect("one record");
    let now: Timestamp = asked["now"].as_u64().map(Timestamp::from_millis).expect("milliseconds");
    assert_eq!(json!(now.to_string()), last["time"], "the time in which nothing runs does not count");
    let told: Value =
        serde_json::from_str(&ok(&["replay", "lab", "--from", "1h", "--to", "0s", "--json"])).expect("JSON");
    assert_eq!(told["stateSnapshot"]["nonTerminalBeads"][0]["id"], id);
    assert_eq!(run(&dir, &["replay", "none", "--from", "1h", "--to", "0s"]).0, Some(6));
    what_if(&dir);
    assert_eq!(run(&dir, &["replay", "lab", "--from", "1h", "--to", "0s", "--until-violation"]).0, Some(0));
}

#[tokio::test]
async fn what_agents_are_told_and_say_is_for_operators_in_the_audit_and_in_no_event() {
    let tokens = json!([
        {"name": "ann", "role": "operator", "sha256": token_hash("ann")},
        {"name": "vic", "role": "viewer", "sha256": token_hash("vic")},
    ]);
    let server = Server::start(json!({"auth": {"tokens": tokens}})).await;
    let mut events = Ask::get("/events?town=lab").token(Some("ann")).open(server.address()).await;
    events.until(": plimsoll").await;
    for (path, body) in [
        ("/api/towns", json!({"id": "lab"})),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab/beads", json!({"id": "fix", "title": "t", "instructions": "secret1"})),
    ] {
        assert_eq!(told(&server, path, body, None, Some("ann")).await.status, 201, "{path}");
    }
    let said = json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.1", "outcome": "done", "summary": "secret2"});
    assert_eq!(report(&server, said, Some("k"), Some("ann")).await.status, 201);
    let audit = async |token| {
        Ask::get("/audit?stream=town/lab").token(Some(token)).send(server.address()).await.text()
    };
    let (ann, vic) = (audit("ann").await, audit("vic").await);
    assert!(ann.contains("secret1") && ann.contains("secret2"), "{ann}");
    assert!(vic.contains("agent_done") && !vic.contains("secret"), "{vic}");
    let seen = events.until("agent ext says of fix.1: done").await.to_owned();
    assert!(seen.contains("\"type\":\"bead.created\"") && !seen.contains("secret"), "{seen}");
}

#[tokio::test]
async fn an_agent_whose_runtime_reports_an_eviction_loses_its_bead_once() {
    let server = lab().await;
    let swift = json!({"policy": {"stuck": {"ending_grace": "0s"}}});
    assert_eq!(post(&server, "/api/towns/lab/policy", swift).await.status, 200);
    add(&server, "fix", json!({})).await;
    stands(&server, "fix", "in_progress").await;
    let evicted = json!({"type": "container_eviction", "agent": "ext", "dispatchId": "fix.1", "reason": "out of memory"});
    assert_eq!(report(&server, evicted.clone(), Some("k"), None).await.status, 201);
    let waits = stands(&server, "fix", "open").await;
    assert_eq!(waits["failure"], "its agent was lost (evicted): out of memory");
    let again = report(&server, evicted, Some("k"), None).await;
    assert_eq!((again.status, &again.json()["repeated"]), (200, &json!(true)));
    assert_eq!(bead(&server, "fix").await["attempts"], 1);
}

#[tokio::test]
async fn why_an_attempt_failed_is_for_operators_wherever_beads_are_shown() {
    let tokens = json!([
        {"name": "ann", "role": "operator", "sha256": token_hash("ann")},
        {"name": "vic", "role": "viewer", "sha256": token_hash("vic")},
    ]);
    let server = Server::start(json!({"auth": {"tokens": tokens}})).await;
    let policy =
        |attempts: u32| json!({"dispatch": {"attempts_max": attempts}, "stuck": {"ending_grace": "0s"}});
    for (path, body) in [
        ("/api/towns", json!({"id": "lab", "policy": policy(1)})),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab/beads", json!({"id": "fix", "title": "t"})),
        ("/api/towns/lab/beads", json!({"id": "try", "title": "t", "priority": 4})),
    ] {
        assert_eq!(told(&server, path, body, None, Some("ann")).await.status, 201, "{path}");
    }
    let shown = async |path: &str, token: &str| {
        Ask::get(&format!("/api/towns/lab/{path}")).token(Some(token)).send(server.address()).await.text()
    };
    until("it is given away", async || shown("beads/fix", "ann").await.contains("fix.1").then_some(())).await;
    let failed = json!({"type": "agent_completed", "agent": "ext", "dispatchId": "fix.1", "status": "failed", "reason": "401"});
    assert_eq!(report(&server, failed, Some("k"), Some("ann")).await.status, 201);
    until("it failed", async || {
        shown("beads/fix", "ann").await.contains("\"status\":\"failed\"").then_some(())
    })
    .await;
    let more = json!({"policy": policy(5)});
    assert_eq!(told(&server, "/api/towns/lab/policy", more, None, Some("ann")).await.status, 200);
    until("the next is given away", async || shown("beads/try", "ann").await.contains("try.1").then_some(()))
        .await;
    let failed = json!({"type": "agent_done", "agent": "ext", "dispatchId": "try.1", "outcome": "failed", "summary": "402"});
    assert_eq!(report(&server, failed, Some("l"), Some("ann")).await.status, 201);
    until("it waits", async || shown("beads/try", "ann").await.contains("back_off").then_some(())).await;
    for (path, why) in [
        ("beads/fix", "\"failure\":\"401\""),
        ("beads?status=failed", "\"failure\":\"401\""),
        ("beads/fix.e1", "\"summary\":\"401\""),
        ("beads/try", "\"failure\":\"402\""),
        ("beads", "the last failure: 402\""),
        ("status", "the last failure: 402\""),
    ] {
        let (ann, vic) = (shown(path, "ann").await, shown(path, "vic").await);
        assert!(ann.contains(why), "{path}: {ann}");
        assert!(vic.contains("lab") || vic.contains("fix") || vic.contains("try"), "{path}: {vic}");
        assert!(!vic.contains("401") && !vic.contains("402"), "{path}: {vic}");
    }
}

#[tokio::test]
async fn questions_about_the_past_and_the_next_tick_change_nothing() {
    let server = lab().await;
    // Nothing is to be done: the next tick comes in minutes.
    let drain = post(&server, "/api/towns/lab/drain", json!({"draining": true})).await;
    assert_eq!(drain.status, 200, "{}", drain.text());
    add(&server, "held", json!({})).await;
    assert_eq!(post(&server, "/api/towns/lab/beads/held/hold", json!({})).await.status, 200);
    let silent = |name: &str| {
        [
            "plimsoll_reconciler_",
            "plimsoll_invariant_",
            "plimsoll_requests_",
            "plimsoll_journal_",
            "plimsoll_agents",
            "plimsoll_beads",
            "plimsoll_errors",
            "gen_ai_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
    };
    let look = async || {
        let heads = server.call("audit.head", json!({})).await;
        let text = Ask::get("/metrics").send(server.address()).await.text();
        let series: Vec<String> = text.lines().filter(|line| silent(line)).map(str::to_owned).collect();
        (heads["heads"].clone(), series)
    };
    // The last tick may still have to end.
    let before = until("a town at rest", async || {
        let (first, second) = (look().await, look().await);
        (first == second).then_some(first)
    })
    .await;
    assert!(before.1.len() > 50 && !before.0.is_null(), "{before:?}");
    for _ in 0..3 {
        let dry = post(&server, "/api/towns/lab/debug/reconcile-dry-run", json!({})).await;
        assert_eq!(dry.status, 200, "{}", dry.text());
        let window = json!({"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "compare": true});
        let replay = post(&server, "/api/towns/lab/debug/replay-events", window).await;
        assert_eq!(replay.status, 200, "{}", replay.text());
    }
    assert_eq!(look().await, before);
}
