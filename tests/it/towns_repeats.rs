//! What is sent to towns more than once: calls with an idempotency key, and reports of progress.

use serde_json::{Value, json};

use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, until};

async fn lab() -> Server {
    let server = Server::start(json!({})).await;
    assert_eq!(post(&server, "/api/towns", json!({"id": "lab"}), &[]).await.status, 201);
    server
}

async fn post(server: &Server, path: &str, body: Value, keys: &[&str]) -> Answer {
    let ask = Ask::post(path, body.to_string()).header("content-type", "application/json");
    let ask = keys.iter().fold(ask, |ask, key| ask.header("idempotency-key", key));
    ask.send(server.address()).await
}

async fn beads(server: &Server, kind: &str) -> usize {
    let path = format!("/api/towns/lab/beads?kind={kind}");
    let list = Ask::get(&path).send(server.address()).await.json();
    list["beads"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn with_a_key_a_bead_and_a_convoy_are_made_once_however_often_they_are_asked_for() {
    let server = lab().await;
    let path = "/api/towns/lab/beads";
    let task = json!({"title": "Fix it", "instructions": "well"});
    let first = post(&server, path, task.clone(), &["k1"]).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let (bead, seq) = (first.json()["bead"].clone(), first.json()["seq"].clone());
    let again = post(&server, path, task.clone(), &["k1"]).await;
    assert_eq!((again.status, again.json()), (200, json!({"bead": bead, "seq": seq, "repeated": true})));
    let mut by_method = task.clone();
    by_method["town"] = json!("lab");
    by_method["idempotencyKey"] = json!("k1");
    assert_eq!(
        server.call("town.addBead", by_method).await,
        again.json(),
        "over the other road it is the same"
    );
    let other = post(&server, path, json!({"title": "Something else"}), &["k1"]).await;
    assert_eq!((other.status, other.json()["error"]["code"].clone()), (409, json!("key_reused")));
    let named = post(&server, path, json!({"id": "mine", "title": "t"}), &["k2"]).await;
    let named_again = post(&server, path, json!({"id": "mine", "title": "t"}), &["k2"]).await;
    assert_eq!((named.status, named_again.status), (201, 200), "{}", named_again.text());
    assert_eq!(named_again.json()["bead"], "mine");
    assert_eq!(beads(&server, "task").await, 2);
    for _ in 0..2 {
        let without = post(&server, path, task.clone(), &[]).await;
        assert_eq!((without.status, &without.json()["repeated"]), (201, &json!(false)));
    }
    assert_eq!(beads(&server, "task").await, 4, "without a key it is another one each time");

    let convoy = json!({"title": "both", "beads": [bead, "mine"]});
    let first = post(&server, "/api/towns/lab/convoys", convoy.clone(), &["k3"]).await;
    let again = post(&server, "/api/towns/lab/convoys", convoy.clone(), &["k3"]).await;
    assert_eq!((first.status, again.status), (201, 200), "{} {}", first.text(), again.text());
    assert_eq!((&again.json()["convoy"], beads(&server, "convoy").await), (&first.json()["convoy"], 1));

    let mut said_twice = task.clone();
    said_twice["idempotencyKey"] = json!("k4");
    for (body, keys) in
        [(task.clone(), &["k4", "k5"][..]), (said_twice, &["k4"]), (task, &[&*"x".repeat(129)])]
    {
        let refused = post(&server, path, body, keys).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().to_lowercase().contains("idempotency"), "{}", refused.text());
    }
    let dir = server.kill();
    let mut server = Server::spawn(dir, json!({}));
    server.ready().await;
    let task = json!({"title": "Fix it", "instructions": "well"});
    let later = post(&server, path, task, &["k1"]).await;
    assert_eq!((later.status, &later.json()["bead"]), (200, &bead), "a restart forgets no key");
}

#[tokio::test]
async fn progress_that_comes_too_often_is_answered_and_not_written() {
    let server = lab().await;
    assert_eq!(post(&server, "/api/towns/lab/agents", json!({"id": "ext"}), &[]).await.status, 201);
    assert_eq!(
        post(&server, "/api/towns/lab/beads", json!({"id": "fix", "title": "t"}), &[]).await.status,
        201
    );
    until("fix is dispatched", async || {
        let bead = Ask::get("/api/towns/lab/beads/fix").send(server.address()).await.json();
        (bead["dispatchId"] == "fix.1").then_some(())
    })
    .await;
    let progress = json!({"type": "agent_progress", "agent": "ext", "dispatchId": "fix.1"});
    let first = post(&server, "/api/towns/lab/events", progress.clone(), &["p0"]).await;
    let seq = first.json()["seq"].clone();
    assert_eq!(
        (first.status, first.json()),
        (201, json!({"seq": seq, "repeated": false, "coalesced": false}))
    );
    for n in 1..20 {
        let more = post(&server, "/api/towns/lab/events", progress.clone(), &[&format!("p{n}")]).await;
        let told = json!({"seq": seq, "repeated": false, "coalesced": true});
        assert_eq!((more.status, more.json()), (200, told), "{n}");
    }
    let again = post(&server, "/api/towns/lab/events", progress, &["p7"]).await;
    assert_eq!(again.json(), json!({"seq": seq, "repeated": true, "coalesced": true}));
    let audit = Ask::get("/audit?stream=town/lab&kind=agent_progress").send(server.address()).await.json();
    assert_eq!(audit["records"].as_array().map(Vec::len), Some(1), "{audit}");
}
