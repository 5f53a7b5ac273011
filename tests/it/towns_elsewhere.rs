//! Agents of runtimes elsewhere: what they poll for, with nothing but a token of their own, and what they report.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, token_hash, until};

/// A server with a town `lab`, where work is reviewed, and two agents of a runtime elsewhere: `ext`, and the reviewer
/// `rev`. Each has a token of its own name; `ann` is the operator, `vic` a viewer, and `any` an agent's token that is
/// bound to none.
async fn lab() -> Server {
    let tokens = json!([
        {"name": "ann", "role": "operator", "sha256": token_hash("ann")},
        {"name": "vic", "role": "viewer", "sha256": token_hash("vic")},
        {"name": "any", "role": "agent", "sha256": token_hash("any")},
        {"name": "ext", "role": "agent", "agent": "ext", "sha256": token_hash("ext")},
        {"name": "rev", "role": "agent", "agent": "rev", "town": "lab", "sha256": token_hash("rev")},
        {"name": "far", "role": "agent", "agent": "rev", "town": "main", "sha256": token_hash("far")},
    ]);
    let server = Server::start(json!({"auth": {"tokens": tokens}})).await;
    let town = json!({"id": "lab", "policy": {"review": {"enabled": true}}});
    for (path, body) in [
        ("/api/towns", town),
        ("/api/towns/lab/agents", json!({"id": "ext"})),
        ("/api/towns/lab/agents", json!({"id": "rev", "role": "reviewer"})),
    ] {
        let made = post(&server, path, body, None, "ann").await;
        assert_eq!(made.status, 201, "{path}: {}", made.text());
    }
    server
}

async fn post(server: &Server, path: &str, body: Value, key: Option<&str>, token: &str) -> Answer {
    let ask = Ask::post(path, body.to_string()).header("content-type", "application/json").token(Some(token));
    let ask = key.into_iter().fold(ask, |ask, key| ask.header("idempotency-key", key));
    ask.send(server.address()).await
}

async fn report(server: &Server, body: Value, key: &str, token: &str) -> Answer {
    post(server, "/api/towns/lab/events", body, Some(key), token).await
}

async fn asked(server: &Server, path: &str, token: &str) -> Answer {
    Ask::get(path).token(Some(token)).send(server.address()).await
}

/// Status and code of a refusal, which must say something.
fn refused(answer: &Answer) -> (u16, String) {
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{}", answer.text());
    (answer.status, error["code"].as_str().unwrap_or_default().to_owned())
}

/// What an agent is told when it asks with its own token, once there is something.
async fn work(server: &Server, agent: &str) -> Value {
    until(&format!("{agent} has something to do"), async || {
        let answer = asked(server, &format!("/api/towns/lab/agents/{agent}/dispatch"), agent).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let work = answer.json()["dispatch"].clone();
        (!work.is_null()).then_some(work)
    })
    .await
}

fn part(work: &Value, keys: &[&str]) -> BTreeMap<String, Value> {
    keys.iter().map(|key| ((*key).to_owned(), work[*key].clone())).collect()
}

fn parts(expected: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(expected).expect("an object")
}

#[tokio::test]
async fn a_worker_and_a_reviewer_elsewhere_need_nothing_but_their_own_tokens() {
    let server = lab().await;
    let idle = asked(&server, "/api/towns/lab/agents/ext/dispatch", "ext").await;
    assert_eq!((idle.status, idle.json()), (200, json!({"dispatch": null})));
    let bead = json!({"id": "fix", "title": "Fix the login", "instructions": "Check it on the server."});
    assert_eq!(post(&server, "/api/towns/lab/beads", bead, None, "ann").await.status, 201);

    let task = work(&server, "ext").await;
    let named =
        ["dispatchId", "bead", "kind", "title", "instructions", "attempt", "notes", "review", "endingAsked"];
    let expected = json!({
        "dispatchId": "fix.1", "bead": "fix", "kind": "task", "title": "Fix the login",
        "instructions": "Check it on the server.", "attempt": 1, "notes": null, "review": null, "endingAsked": false,
    });
    assert_eq!(part(&task, &named), parts(expected));
    let left = task["deadlineMs"].as_u64().expect("a number");
    assert!((7_000_000..=7_200_000).contains(&left), "two hours by default: {left}");

    let progress = json!({"type": "agent_progress", "agent": "ext", "dispatchId": "fix.1"});
    assert_eq!(report(&server, progress, "p1", "ext").await.status, 201);
    let done = json!({
        "type": "agent_done", "agent": "ext", "dispatchId": "fix.1", "outcome": "done", "summary": "It is checked.",
    });
    assert_eq!(report(&server, done, "d1", "ext").await.status, 201);
    let idle = asked(&server, "/api/towns/lab/agents/ext/dispatch", "ext").await;
    assert_eq!(idle.json(), json!({"dispatch": null}), "what was reported is not told again");

    let review = work(&server, "rev").await;
    let target = json!({
        "task": "fix", "instructions": "Check it on the server.", "round": 1, "agent": "ext",
        "summary": "It is checked.", "notes": null,
    });
    let expected = json!({
        "dispatchId": "fix.r1.1", "bead": "fix.r1", "kind": "review", "title": "Fix the login", "instructions": "",
        "attempt": 1, "notes": null, "review": target, "endingAsked": false,
    });
    assert_eq!(part(&review, &named), parts(expected));
    let changes = json!({
        "type": "review_done", "agent": "rev", "dispatchId": "fix.r1.1", "verdict": "changes", "notes": "Add a test.",
    });
    let first = report(&server, changes.clone(), "v1", "rev").await;
    assert_eq!(first.status, 201, "{}", first.text());
    let again = report(&server, changes.clone(), "v1", "rev").await;
    assert_eq!(
        (again.status, again.json()),
        (200, json!({"seq": first.json()["seq"], "repeated": true, "coalesced": false}))
    );
    let mut other = changes;
    other["verdict"] = json!("approved");
    assert_eq!(refused(&report(&server, other, "v1", "rev").await), (409, "key_reused".to_owned()));

    let again = work(&server, "ext").await;
    let expected = json!({"dispatchId": "fix.2", "attempt": 1, "notes": "Add a test."});
    assert_eq!(part(&again, &["dispatchId", "attempt", "notes"]), parts(expected));
    let done = json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.2", "outcome": "done"});
    assert_eq!(report(&server, done, "d2", "ext").await.status, 201);
    let review = work(&server, "rev").await;
    let expected = json!({
        "task": "fix", "instructions": "Check it on the server.", "round": 2, "agent": "ext", "summary": null,
        "notes": "Add a test.",
    });
    assert_eq!((&review["dispatchId"], &review["review"]), (&json!("fix.r2.1"), &expected));
    let approved =
        json!({"type": "review_done", "agent": "rev", "dispatchId": "fix.r2.1", "verdict": "approved"});
    assert_eq!(report(&server, approved, "v2", "rev").await.status, 201);
    let bead = until("fix is closed", async || {
        let bead = asked(&server, "/api/towns/lab/beads/fix", "vic").await.json();
        (bead["status"] == "closed").then_some(bead)
    })
    .await;
    assert_eq!(bead["reason"], "approved");
}

#[tokio::test]
async fn what_an_agent_is_told_is_for_its_own_token_and_for_operators() {
    let server = lab().await;
    let bead = json!({"id": "fix", "title": "t", "instructions": "secret"});
    assert_eq!(post(&server, "/api/towns/lab/beads", bead, None, "ann").await.status, 201);
    work(&server, "ext").await;
    let path = |town: &str, agent: &str| format!("/api/towns/{town}/agents/{agent}/dispatch");
    for (token, town, agent, expected) in [
        ("ext", "lab", "ext", (200, true)),
        ("ann", "lab", "ext", (200, true)),
        ("rev", "lab", "rev", (200, false)),
        ("rev", "lab", "ext", (403, false)),
        ("far", "lab", "rev", (403, false)),
        ("far", "lab", "ext", (403, false)),
        ("any", "lab", "ext", (403, false)),
        ("vic", "lab", "ext", (403, false)),
        ("ext", "lab", "rev", (403, false)),
        ("ext", "main", "ext", (404, false)),
        ("ext", "none", "ext", (404, false)),
        ("ann", "lab", "nobody", (404, false)),
    ] {
        let answer = asked(&server, &path(town, agent), token).await;
        let seen = (answer.status, answer.text().contains("secret"));
        assert_eq!(seen, expected, "{token} asks for {agent} in {town}: {}", answer.text());
    }
    let unbound = asked(&server, &path("lab", "ext"), "any").await;
    assert!(unbound.text().contains("--role agent --agent ext"), "it says what to do: {}", unbound.text());
    assert_eq!(refused(&asked(&server, &path("main", "ext"), "ext").await).1, "unknown_agent");
    assert_eq!(refused(&asked(&server, &path("none", "ext"), "ext").await).1, "unknown_town");
    for hidden in
        ["/api/towns/lab/beads/fix", "/api/towns/lab/beads", "/api/towns/lab/agents", "/events", "/audit"]
    {
        assert_eq!(asked(&server, hidden, "ext").await.status, 403, "{hidden}");
    }
}

#[tokio::test]
async fn a_verdict_is_of_a_review_that_its_reporter_holds() {
    let server = lab().await;
    let bead = json!({"id": "fix", "title": "t"});
    assert_eq!(post(&server, "/api/towns/lab/beads", bead, None, "ann").await.status, 201);
    work(&server, "ext").await;
    let verdict = |agent: &str, dispatch: &str| json!({"type": "review_done", "agent": agent, "dispatchId": dispatch, "verdict": "approved"});
    let on_a_task = report(&server, verdict("ext", "fix.1"), "k1", "ext").await;
    assert_eq!(refused(&on_a_task), (409, "wrong_kind".to_owned()));
    assert!(on_a_task.text().contains("agent_done"), "it says what to do: {}", on_a_task.text());
    let done = json!({"type": "agent_done", "agent": "ext", "dispatchId": "fix.1", "outcome": "done"});
    assert_eq!(report(&server, done, "k2", "ext").await.status, 201);
    work(&server, "rev").await;
    assert_eq!(report(&server, verdict("ext", "fix.r1.1"), "k3", "ext").await.status, 403, "it is rev's");
    assert_eq!(
        report(&server, verdict("rev", "fix.r1.1"), "k3", "ext").await.status,
        403,
        "and ext is not rev"
    );
    assert_eq!(report(&server, verdict("rev", "fix.r1.1"), "k3", "far").await.status, 403);
    assert_eq!(report(&server, verdict("rev", "fix.r1.1"), "k3", "rev").await.status, 201);
}

#[tokio::test]
async fn an_agent_sees_when_it_polls_that_it_is_asked_for_its_ending_or_cancelled() {
    let server = lab().await;
    let bead = json!({"id": "fix", "title": "t"});
    assert_eq!(post(&server, "/api/towns/lab/beads", bead, None, "ann").await.status, 201);
    work(&server, "ext").await;
    let ended =
        json!({"type": "agent_completed", "agent": "ext", "dispatchId": "fix.1", "status": "completed"});
    assert_eq!(report(&server, ended, "k1", "ext").await.status, 201);
    let quick = json!({"policy": {"stuck": {"ending_grace": "0s"}}});
    let changed = post(&server, "/api/towns/lab/policy", quick, None, "ann").await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    until("it is asked how the work ended", async || {
        (work(&server, "ext").await["endingAsked"] == true).then_some(())
    })
    .await;
    let cancelled = post(&server, "/api/towns/lab/beads/fix/cancel", json!({}), None, "ann").await;
    assert_eq!(cancelled.status, 200);
    let told = asked(&server, "/api/towns/lab/agents/ext/dispatch", "ext").await;
    assert_eq!(told.json(), json!({"dispatch": null}), "at once");
}
