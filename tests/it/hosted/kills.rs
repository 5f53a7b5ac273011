//! plimsoll is killed at any point: nothing runs twice, nothing is left, and what was seen stays true.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::world::World;
use crate::support::server::{Server, until};
use crate::support::tools::soak;

/// Each life gets messages and orders from the beginning, and is killed within this time.
const LIFE_MAX: Duration = Duration::from_millis(1_200);

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outlives_no_kill_and_no_row_is_lost() {
    die_often(&World::in_a_process(), soak(10, 200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_found_after_each_kill_and_none_is_beside_it() {
    let Some(world) = World::in_a_container("kills") else { return };
    die_often(&world, soak(10, 200)).await;
}

async fn die_often(world: &World, kills: usize) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut chance = rand::rngs::StdRng::seed_from_u64(seed);
    let mut server = Server::start(world.config()).await;
    let mut seen: Vec<Value> = Vec::new();
    // However slow the machine is, one kill meets an instance that is up.
    world.send(&server, "s", "hello").await;
    until("its row", async || world.kinds(&server).await.contains(&"lazy_start".to_owned()).then_some(()))
        .await;
    server = Server::spawn(server.kill(), world.config());
    server.ready().await;
    for kill in 0..kills {
        let life = chance.random_range(Duration::ZERO..LIFE_MAX);
        let params = serde_json::json!({"instance": world.id});
        let orders = async {
            loop {
                // A server that ends refuses; so may an instance that was stopped meanwhile.
                let _ = world.try_send(&server, "s", "hello").await;
                let _ = server.client().call("lifecycle.stop", params.clone()).await;
            }
        };
        let watches = async {
            loop {
                if let Some(rows) = world.try_records(&server).await {
                    seen = rows;
                }
                tokio::task::yield_now().await;
            }
        };
        let _killed = tokio::time::timeout(life, async { tokio::join!(orders, watches) }).await;
        server = Server::spawn(server.kill(), world.config());
        server.ready().await;
        let now = world.records(&server).await;
        assert!(now.len() >= seen.len(), "kill {kill}: a row that was seen is gone");
        assert_eq!(now[..seen.len()], seen[..], "kill {kill}");
        assert!(world.running().len() <= 1 && world.containers().len() <= 1, "kill {kill}: one, or none");
        world.agree(&server).await;
    }
    let kinds = world.kinds(&server).await;
    let times = |kind: &str| kinds.iter().filter(|other| *other == kind).count();
    println!(
        "{} starts, {} stops, {} adopted, {} lost",
        times("lazy_start"),
        times("lazy_stop"),
        times("adopted"),
        times("lost")
    );
    assert!(times("lazy_start") > 0, "nothing was tried: {kinds:?}");
    assert!(times("adopted") + times("lost") > 0, "no kill met one that was up: {kinds:?}");
    until("an answer", async || world.try_send(&server, "s", "at last").await.ok()).await;
    server.stop().await;
    assert!(world.running().is_empty(), "nothing is left");
}
