//! A town whose agents are real programs, some of which die, works through its beads while plimsoll itself is killed again
//! and again.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use plimsoll::ids::Seq;
use plimsoll::journal::offline::Offline;
use plimsoll::journal::{Record, StreamId};
use plimsoll::town::{Town, TownEvent};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::server::{PATIENCE, Server};
use crate::support::tools::soak;

/// What every agent runs: it notes when somebody else is at the same bead, dies now and then, and says how it ended.
const AGENT: &str = r#"
message=$(cat)
id=$(printf '%s' "$message" | sed -n '1s/^Task \([^:]*\):.*/\1/p;1s/^Review the work on task \([^:]*\):.*/\1.review/p')
# Asked for its ending, or of a message that an end of plimsoll cut: it works at no bead.
[ -n "$id" ] || exit 1
exec 9>>"$TOWN_DIR/at.$id"
flock -n 9 || { echo "$id" >> "$TOWN_DIR/twice"; exit 1; }
roll=$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')
sleep "0.0$((roll % 10))"
[ "$roll" -lt 16 ] && kill -9 $$
case "$id" in
*.review) [ "$roll" -lt 70 ] && ending='{\"verdict\":\"changes\",\"notes\":\"more\"}' || ending='{\"verdict\":\"approved\"}' ;;
*) [ "$roll" -lt 36 ] && ending='{\"outcome\":\"failed\"}' || ending='{\"outcome\":\"done\",\"summary\":\"well\"}' ;;
esac
printf '{"type":"delta","text":"%s"}\n' "$ending"
"#;

/// How long a plimsoll lives, at most.
const LIFE_MAX: Duration = Duration::from_millis(2_500);

struct Work {
    dir: TempDir,
    agents: usize,
    beads: usize,
}

impl Work {
    fn config(&self) -> Value {
        let names: Vec<String> = (0..self.agents).map(|n| format!("agent-{n}")).collect();
        let agents: BTreeMap<_, _> =
            names.iter().map(|name| (name, json!({"provider": "p", "cwd": self.dir.path()}))).collect();
        let role = |n: usize| if n % 4 == 3 { "reviewer" } else { "worker" };
        let members: BTreeMap<_, _> =
            names.iter().enumerate().map(|(n, name)| (name, json!({"role": role(n)}))).collect();
        let script = self.dir.path().join("agent.sh");
        fs::write(&script, AGENT).expect("written");
        json!({
            "server": {"shutdown_grace": "200ms"},
            "providers": {"p": {"kind": "exec", "program": "sh", "args": [script], "kill_grace": "300ms", "env": {"TOWN_DIR": self.dir.path()}}},
            "agents": agents,
            "towns": {"main": {"agents": members, "policy": {
                "dispatch": {"attempts_max": 50, "backoff": ["50ms"]},
                "breaker": {"beads": 10_000},
                "review": {"enabled": true, "rounds_max": 100},
                "stuck": {"ending_grace": "0s"},
            }}},
        })
    }

    /// Adds every bead that is not there yet: tasks, of which many wait for earlier ones, and a convoy of each twenty.
    async fn add(&self, server: &Server, chance: &mut StdRng, next: &mut usize) {
        while *next < self.beads {
            let n = *next;
            let waits = if n > 0 && n.is_multiple_of(3) {
                vec![format!("t{}", chance.random_range(0..n))]
            } else {
                vec![]
            };
            let bead = json!({"town": "main", "id": format!("t{n}"), "title": format!("task {n}"), "instructions": "do it",
                "priority": n % 5, "blockedBy": waits});
            let added = server.client().call("town.addBead", bead).await;
            if !taken(added.map_err(|error| error.to_string())) {
                return;
            }
            if n % 20 == 19 {
                let beads: Vec<_> = (n - 19..=n).map(|n| format!("t{n}")).collect();
                let convoy =
                    json!({"town": "main", "id": format!("c{n}"), "title": "twenty", "beads": beads});
                let started = server.client().call("town.startConvoy", convoy).await;
                if !taken(started.map_err(|error| error.to_string())) {
                    return;
                }
            }
            *next += 1;
        }
    }
}

/// Whether it is there now: one that was cut off by a kill may be.
fn taken(answer: Result<Value, String>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) => error.contains("there is a bead"),
    }
}

/// Every event of the town, oldest first.
fn records(data_dir: &Path) -> Vec<Record> {
    let journal = Offline::open(data_dir).expect("nobody uses it");
    let town = StreamId::parse("town/main").expect("a stream");
    let all = journal.export(Seq(0), None).map(|record| record.expect("a record"));
    all.filter(|record| record.stream == town).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bead_ends_and_none_is_worked_twice_at_once_however_often_plimsoll_is_killed() {
    let (beads, agents, kills) = (soak(60, 500), soak(8, 20), soak(3, 10));
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let work = Work { dir: tempfile::tempdir().expect("a temporary directory"), agents, beads };
    let mut server = Server::start(work.config()).await;
    let mut next = 0;
    for _ in 0..kills {
        let life = chance.random_range(LIFE_MAX / 5..LIFE_MAX);
        let _killed = timeout(life, async {
            work.add(&server, &mut chance, &mut next).await;
            std::future::pending::<()>().await;
        })
        .await;
        server = Server::spawn(server.kill(), work.config());
        server.ready().await;
    }
    work.add(&server, &mut chance, &mut next).await;
    let ended = async {
        loop {
            let status = server.call("town.status", json!({"town": "main"})).await;
            let open =
                ["open", "in_progress", "in_review"].map(|of| status["beads"][of].as_u64().expect("a count"));
            if open == [0; 3] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let patience = PATIENCE + Duration::from_secs(1) * u32::try_from(beads).expect("few");
    timeout(patience, ended).await.expect("every bead ends");
    let window = json!({"town": "main", "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"});
    let replay = server.call("town.replay", window).await;
    server.stop().await;
    let records = records(&server.data_dir());
    let kind = |kind: &str| records.iter().filter(|record| record.kind == kind).count();
    println!(
        "{} dispatches, {} lost to restarts, {} reviews, {} failed runs",
        kind("bead_dispatched"),
        given_back(&records).len(),
        kind("review_opened"),
        records.iter().filter(|record| record.detail["status"] == "failed").count(),
    );
    let twice = fs::read_to_string(work.dir.path().join("twice")).unwrap_or_default();
    assert_eq!(twice, "", "beads that were worked twice at once");
    assert_eq!((kind("violation_opened"), kind("event_rejected")), (0, 0));
    let town = folded(&records);
    assert_eq!((town.beads().len(), town.closed().len() >= beads), (0, true), "every bead ends");
    no_attempt_is_burnt(&records);
    assert_eq!(replay["hash"], town.hash().to_string(), "the server's town is the fold of its events");
}

fn folded(records: &[Record]) -> Town {
    let mut town = Town::default();
    for record in records {
        let event = TownEvent::parse(&record.kind, record.version, &record.detail).expect("readable");
        town.apply(record.seq, record.time, &event).expect("accepted");
    }
    town
}

/// The dispatches that an end of plimsoll cut.
fn given_back(records: &[Record]) -> Vec<&str> {
    let lost = records.iter().filter(|record| record.kind == "dispatch_lost");
    let ours =
        lost.filter(|record| ["restart", "shutdown"].map(Value::from).contains(&record.detail["cause"]));
    ours.filter_map(|record| record.detail["dispatch_id"].as_str()).collect()
}

/// What our own restart cut goes out again as the same attempt.
fn no_attempt_is_burnt(records: &[Record]) {
    let dispatched = records.iter().filter(|record| record.kind == "bead_dispatched");
    let attempts: BTreeMap<&str, u64> = dispatched
        .filter_map(|record| {
            Some((record.detail["dispatch_id"].as_str()?, record.detail["attempt"].as_u64()?))
        })
        .collect();
    let cut = given_back(records);
    assert!(!cut.is_empty(), "no kill met a dispatch");
    for dispatch in cut {
        let (bead, n) = dispatch.rsplit_once('.').expect("a dispatch id");
        let again = format!("{bead}.{}", n.parse::<u64>().expect("a number") + 1);
        // One that was cancelled or failed meanwhile goes out no more.
        if let Some(attempt) = attempts.get(again.as_str()) {
            assert_eq!(
                attempt, &attempts[dispatch],
                "{dispatch} was cut by us, and {again} is no new attempt"
            );
        }
    }
}
