//! Damage that no event may do, of every invariant, in a town that turns: who is told of it, what is done about it, and how
//! it ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::world::{Act, Cast, World, agent, bead, joins, swift, town};
use crate::clock::Clock;
use crate::ids::DispatchId;
use crate::notify::{Notifier, NotifierParts};
use crate::secret::Secret;
use crate::telemetry::{SentryConfig, Shared};
use crate::town::event::TownEvent;
use crate::town::invariant::{INVARIANTS, name_of};
use crate::town::words::{AgentStatus, BeadStatus, CancelStatus, Entity, Outcome, Recovery, Role};
use crate::town::{Policy, Town};

/// A place that takes envelopes as Sentry does (<https://develop.sentry.dev/sdk/foundations/transport/envelopes/>).
struct Ingest {
    address: SocketAddr,
    events: watch::Receiver<Vec<Value>>,
    _tasks: JoinSet<()>,
}

impl Ingest {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("bound");
        let (taken, events) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                served.spawn(serve(stream, taken.clone()));
            }
        });
        Self { address, events, _tasks: tasks }
    }

    /// The events so far, once there are so many.
    async fn got(&self, count: usize) -> Vec<Value> {
        let mut events = self.events.clone();
        let got = events.wait_for(|events| events.len() >= count);
        let got = tokio::time::timeout(Duration::from_secs(30), got).await.expect("Sentry is told");
        got.expect("it is there").clone()
    }
}

async fn serve(stream: TcpStream, taken: watch::Sender<Vec<Value>>) {
    let mut stream = BufStream::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if length == 0 || stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let body = String::from_utf8(body).expect("text");
        let event = body.lines().nth(2).expect("a header, the header of an item, and the item");
        let event = serde_json::from_str(event).expect("JSON");
        taken.send_modify(|events| events.push(event));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        if stream.write_all(answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

type Fault = fn(&mut Value);

/// What violates each invariant, by its number.
const FAULTS: [(u8, Fault); 10] = [
    (1, |town| town["beads"]["d"]["work"]["priority"] = json!(0)),
    (2, |town| hook(town, "e3", "ended")),
    (3, |town| {
        town["beads"]["f.r2"] = town["beads"]["f.r1"].clone();
        town["agents"]["e3"]["role"] = json!("reviewer");
        hook(town, "e3", "f.r2");
    }),
    (4, |town| {
        town["beads"].as_object_mut().expect("a map").remove("f.r1");
        town["agents"]["rev"]["hook"] = json!(null);
        town["agents"]["rev"]["status"] = json!("idle");
    }),
    (5, |town| town["convoys"]["con"]["total"] = json!(7)),
    (6, |town| hook(town, "e3", "a")),
    (7, |town| town["agents"]["e3"]["status"] = json!("working")),
    (8, |town| hook(town, "e3", "ghost")),
    (9, |town| town["beads"]["e"]["status"] = json!("in_progress")),
    (10, |town| town["beads"]["d"]["tries"]["attempts"] = json!(6)),
];

fn hook(town: &mut Value, agent: &str, bead: &str) {
    let mut hook = town["agents"]["e1"]["hook"].clone();
    hook["bead"] = json!(bead);
    hook["dispatch_id"] = json!(format!("{bead}.1"));
    town["agents"][agent]["hook"] = hook;
    town["agents"][agent]["status"] = json!("working");
}

/// A town of agents elsewhere, who tell nothing by themselves: `e1` is at `a`, `rev` reviews `f`, `d` and `e` are held and
/// make the convoy `con`, `ended` is closed, `e2` and `e3` are idle.
struct Watched {
    world: World,
    notifier: Notifier,
    sentry: Ingest,
}

impl Watched {
    async fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = swift();
        policy.review.enabled = true;
        change(&mut policy);
        let world = World::new(&[], &Cast::of([Act::Fail]), policy).await;
        let sentry = Ingest::start().await;
        let dsn = format!("http://0123456789abcdef@{}/42", sentry.address);
        let notifier = Notifier::start(NotifierParts {
            webhooks: &BTreeMap::new(),
            sentry: &SentryConfig { dsn: Some(Secret::new(dsn, "${DSN}")), ..SentryConfig::default() },
            journal: Arc::clone(&world.journal) as _,
            registry: &world.registry,
            shared: Shared::new(&world.registry),
            clock: Clock::system(),
        });
        let town = Self { world, notifier, sentry };
        town.work_begins().await;
        town
    }

    async fn work_begins(&self) {
        let world = &self.world;
        for (id, role) in
            [("e1", Role::Worker), ("e2", Role::Worker), ("e3", Role::Worker), ("rev", Role::Reviewer)]
        {
            world.submit(joins(id, role)).await;
        }
        world.submit(TownEvent::DrainStarted { reason: None }).await;
        for id in ["a", "f", "d", "e", "ended"] {
            world.add(id, &[]).await;
        }
        for id in ["d", "e"] {
            world.submit(TownEvent::BeadHeld { bead: bead(id), reason: None }).await;
        }
        let beads = ["d", "e"].map(bead).into();
        world
            .submit(TownEvent::ConvoyStarted {
                convoy: bead("con"),
                title: "both".into(),
                beads,
                report: None,
            })
            .await;
        self.cancel("ended").await;
        world.submit(TownEvent::DrainEnded {}).await;
        self.holds("f").await;
        let done = TownEvent::AgentDone {
            agent: agent("e2"),
            dispatch_id: DispatchId::parse("f.1").expect("an id"),
            outcome: Outcome::Done,
            summary: None,
            report: None,
        };
        world.submit(done).await;
        self.holds("a").await;
        self.holds("f.r1").await;
        world.ticks().await;
        assert_eq!(world.count("violation_opened"), 0);
    }

    async fn holds(&self, id: &str) {
        let held = |town: &Town| town.hooked_to(&bead(id)).next().is_some();
        self.world.until(id, held).await;
    }

    async fn cancel(&self, id: &str) {
        let (bead, cancel_status) = (bead(id), CancelStatus::Closed);
        self.world.submit(TownEvent::BeadCancelled { bead, cancel_status, reason: None }).await;
    }

    /// Puts a state in the place of the town's, as no event does.
    fn damage(&self, change: impl FnOnce(&mut Value)) {
        let cell = self.world.reconciler.cell(&town()).expect("there is a town");
        let changed = |town: &Town| {
            let mut snapshot = town.snapshot();
            change(&mut snapshot["town"]);
            Some(Town::restore(&snapshot).expect("readable"))
        };
        assert!(cell.replace(changed));
        cell.wake();
    }

    /// How many episodes of this invariant were opened, are open, and were resolved: in the journal, by the counter and the
    /// gauge, in the status, and as Sentry heard of them.
    fn stands(&self, number: u8) -> Stands {
        let world = &self.world;
        let label = format!("town=\"main\",invariant=\"{number}_{}\"", name_of(number));
        let of = |kind: &str| {
            let records = world.records().into_iter();
            records.filter(|record| record.kind == kind && record.detail["invariant"] == number).count()
        };
        let status = world.reconciler.status(&town()).expect("there is a town");
        Stands {
            opened: of("violation_opened"),
            resolved: of("violation_resolved"),
            counted: world.scraped(&format!("plimsoll_invariant_violations_total{{{label}}}")),
            gauge: world.scraped(&format!("plimsoll_invariant_violations_open{{{label}}}")),
            shown: status.violations.iter().filter(|found| found.invariant == number).count(),
        }
    }

    async fn until_stands(&self, number: u8, stands: Stands) {
        self.world.until(&format!("{number}: {stands:?}"), |_| self.stands(number) == stands).await;
    }

    /// Has the town ticked and looked at its events a few times.
    async fn goes_on(&self) {
        for _ in 0..3 {
            self.world.ticks().await;
        }
    }

    async fn stop(self) -> Vec<Value> {
        self.world.stop().await;
        self.notifier.stop(Duration::from_secs(10)).await;
        self.sentry.events.borrow().clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stands {
    opened: usize,
    resolved: usize,
    counted: u64,
    gauge: u64,
    shown: usize,
}

const OPEN: Stands = Stands { opened: 1, resolved: 0, counted: 1, gauge: 1, shown: 1 };
const OVER: Stands = Stands { opened: 1, resolved: 1, counted: 1, gauge: 0, shown: 0 };

/// Damages a town, and what was broken ends as it does for people.
async fn one_episode(number: u8, fault: Fault) {
    let watched = Watched::new(|_| {}).await;
    watched.damage(fault);
    if number == 1 {
        // It is looked for whenever the town is written down.
        watched.world.journal.take_snapshot();
        watched.world.ticks().await;
    }
    let mends_itself = [1, 2, 7, 8].contains(&number);
    if !mends_itself {
        watched.until_stands(number, OPEN).await;
        watched.goes_on().await;
        watched.until_stands(number, OPEN).await;
    }
    match number {
        3 => watched.cancel("f.r2").await,
        4 => watched.cancel("f").await,
        5 => watched.cancel("con").await,
        6 => watched.cancel("a").await,
        9 => watched.cancel("e").await,
        10 => watched.cancel("d").await,
        _ => assert!(mends_itself, "{number} has no way out"),
    }
    watched.until_stands(number, OVER).await;
    watched.goes_on().await;
    watched.until_stands(number, OVER).await;
    if mends_itself {
        let mended = |town: &Town| {
            let e3 = &town.agents()[&agent("e3")];
            let free = e3.status == AgentStatus::Idle && e3.hook.is_none();
            free && town.beads()[&bead("d")].work.priority == 2
        };
        watched.world.until("it is as it was", mended).await;
    }
    watched.sentry.got(1).await;
    let events = watched.stop().await;
    let name = format!("{number}_{}", name_of(number));
    assert_eq!(events.len(), 1, "{number}: {events:#?}");
    assert_eq!(events[0]["fingerprint"], json!([name, "main"]));
    assert_eq!(events[0]["tags"], json!({"invariant": name, "townId": "main"}));
    assert!(events[0]["extra"]["lastEvents"].as_array().is_some_and(|events| !events.is_empty()));
}

#[tokio::test]
async fn each_invariant_that_is_violated_is_one_episode_one_event_at_sentry_and_one_step_and_ends() {
    assert_eq!(
        FAULTS.map(|(number, _)| number).as_slice(),
        INVARIANTS.iter().map(|known| known.number).collect::<Vec<_>>()
    );
    for (number, fault) in FAULTS {
        one_episode(number, fault).await;
    }
}

/// With `suggest` and with `off` nothing is mended, and with `suggest` it is said what would; others go on.
#[tokio::test]
async fn what_the_policy_does_not_mend_stays_and_gets_no_other_action() {
    for (recovery, says) in [(Recovery::Suggest, true), (Recovery::Off, false)] {
        for (number, fault) in FAULTS.into_iter().filter(|(number, _)| [2, 7, 8].contains(number)) {
            let set = |policy: &mut Policy, recovery| {
                policy.recovery.terminal_bead_hooked = recovery;
                policy.recovery.working_without_hook = recovery;
                policy.recovery.hook_points_nowhere = recovery;
            };
            let watched = Watched::new(|policy| set(policy, recovery)).await;
            watched.damage(fault);
            watched.until_stands(number, OPEN).await;
            // There is one idle agent, and work for two.
            watched.world.add("x", &[]).await;
            watched.world.add("y", &[]).await;
            watched.holds("x").await;
            watched.goes_on().await;
            let about_e3 = |record: &crate::journal::Record| {
                record.detail["agent"] == "e3" && record.kind != "agent_registered"
            };
            assert!(!watched.world.records().iter().any(about_e3), "{:?}", watched.world.kinds());
            let status = watched.world.reconciler.status(&town()).expect("there is a town");
            let [found] = status.violations.as_slice() else { panic!("{:?}", status.violations) };
            assert_eq!(found.repair.is_some(), says, "{found:?}");
            assert!(found.entities.contains(&Entity::Agent(agent("e3"))));
            watched.until_stands(number, OPEN).await;
            // A person thinks better of it.
            let mut policy = watched
                .world
                .reconciler
                .look(&town(), |town, _| town.policy().clone())
                .expect("there is a town");
            set(&mut policy, Recovery::Auto);
            watched.world.submit(TownEvent::PolicyChanged { policy: Box::new(policy) }).await;
            watched.until_stands(number, OVER).await;
            watched.holds("y").await;
            watched.stop().await;
        }
    }
}

/// Beads that an open violation is about wait for it, and say so.
#[tokio::test]
async fn beads_of_an_open_violation_wait_for_its_end() {
    let watched = Watched::new(|_| {}).await;
    watched.damage(FAULTS[9].1);
    watched.until_stands(10, OPEN).await;
    watched.world.submit(TownEvent::BeadReleased { bead: bead("e") }).await;
    watched.holds("e").await;
    watched.world.submit(TownEvent::BeadReleased { bead: bead("d") }).await;
    watched.goes_on().await;
    let d = watched.world.reconciler.look(&town(), |town, _| town.beads()[&bead("d")].clone());
    assert_eq!(d.expect("there is a town").status, BeadStatus::Open);
    watched.stop().await;
}
