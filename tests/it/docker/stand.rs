//! An instance in a container, with what the tests look at. Each life of plimsoll is a runtime of its own: what ends with
//! it ends as after `kill -9`.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::ids::AgentId;
use plimsoll::journal::{Fold, Journal, MemoryJournal, Record, Scan};
use plimsoll::lifecycle::{
    Backoff, Cause, ContainerBook, DockerEngine, DockerRunner, EngineConfig, FailureKind, InstanceConfig,
    Instances, InstancesParts, Kept, Lease, Ledger, Policy, Runner, Start, State, Unavailable,
};
use plimsoll::telemetry::Registry;
use serde_json::{Value, json};

use super::engine::{CHECKED, Engine, IMAGE};
use crate::support::server::until;

/// Answers on port 8080, and ends when it is asked to.
pub(crate) const SERVER: &str = "trap 'exit 0' TERM; echo it serves; httpd -f -p 8080 -h /www & wait";

/// One that says that it is ready, and ends when it is asked to.
pub(crate) fn says_ready() -> Value {
    with(script("trap 'exit 0' TERM; echo ready; sleep 1000 & wait"), &json!({"ready": {"line": "ready"}}))
}

/// The world of one test: it outlives plimsoll.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) id: AgentId,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) owner: String,
    clock: Clock,
}

/// One life of plimsoll.
pub(crate) struct Life<'a> {
    pub(crate) world: &'a World,
    pub(crate) client: Arc<DockerEngine>,
    pub(crate) runner: Arc<DockerRunner>,
    pub(crate) book: ContainerBook,
    pub(crate) instances: Instances,
    pub(crate) printed: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// A world with an instance of this name, and of this test run only.
    pub(crate) fn new(engine: &Engine, name: &str) -> Self {
        let clock = Clock::system();
        let id = AgentId::parse(&format!("it-{name}-{}", std::process::id())).expect("valid");
        let ledger = Arc::new(Ledger::default());
        let journal = Arc::new(MemoryJournal::new(clock.clone(), vec![Arc::clone(&ledger) as Arc<dyn Fold>]));
        Self { engine: engine.clone(), owner: format!("owner-of-{id}"), id, journal, ledger, clock }
    }

    /// To be called within a runtime.
    pub(crate) fn life(&self, instance: &Value, engine: &Value) -> Life<'_> {
        let mut config = json!({
            "address": self.engine.address,
            "network": self.engine.network,
            "trust": "create",
            "images": [IMAGE, CHECKED],
            "pull": "never",
            "timeout": "20s",
        });
        merge(&mut config, engine);
        let config: EngineConfig = serde_json::from_value(config).expect("valid");
        let mut kept = json!({"port": 8080, "ready_timeout": "30s", "stop_grace": "1s"});
        merge(&mut kept, instance);
        let instance: InstanceConfig = serde_json::from_value(kept).expect("valid");
        let client =
            DockerEngine::new(&config, &self.owner, Path::new("/var/lib/plimsoll"), self.clock.clone());
        let journal = Arc::clone(&self.journal) as Arc<dyn Journal>;
        let book = ContainerBook::new(Arc::clone(&self.ledger), Arc::clone(&journal), &config);
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&printed);
        let hear = Arc::new(move |_, line: &[u8]| {
            heard.lock().expect("no panic under it").push(String::from_utf8_lossy(line).into_owned());
        });
        let runner = DockerRunner::new(self.id.clone(), &instance, Arc::clone(&client), book.clone(), hear)
            .expect("made");
        let runner = Arc::new(runner);
        let policy = Policy {
            start: Start::Lazy,
            idle_after: instance.idle_after.0,
            backoff: Backoff { min: Duration::from_millis(1), max: Duration::from_millis(1) },
            well_after: Duration::ZERO,
            crash_loop_failures: 3,
            waiting_max: 100,
        };
        let kept = Kept { policy, runner: Arc::clone(&runner) as Arc<dyn Runner> };
        let registry = Registry::new(&plimsoll::catalogue::all()).expect("buckets are set");
        let parts = InstancesParts::bare(Arc::clone(&self.ledger), journal, &registry, &self.clock);
        let instances = Instances::new(parts);
        instances.keep(self.id.clone(), kept);
        Life { world: self, client, runner, book, instances, printed }
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.journal.scan(&Scan { limit: 1_000, ..Scan::default() }).expect("readable").records
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.records().into_iter().map(|record| record.kind).collect()
    }

    /// The containers of the instance that run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.engine.containers(self.id.as_str(), &[])
    }

    /// All of them.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.engine.containers(self.id.as_str(), &["--all"])
    }

    /// The name that was planned last.
    pub(crate) fn planned(&self) -> String {
        let plans = self.records().into_iter().filter(|record| record.kind == "container_planned");
        plans.last().expect("there was one").detail["name"].as_str().expect("a name").to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine.clear(self.id.as_str());
    }
}

impl Life<'_> {
    pub(crate) async fn acquire(&self) -> Result<Lease, Unavailable> {
        self.instances.acquire(&self.world.id, Cause::system()).await
    }

    pub(crate) async fn up(&self) -> Lease {
        self.acquire().await.expect("up")
    }

    pub(crate) async fn failure(&self) -> (FailureKind, String) {
        let refused = self.acquire().await;
        let Err(Unavailable::Failed { failure, .. }) = refused else { panic!("not {refused:?}") };
        (failure.kind, failure.error.to_string())
    }

    pub(crate) fn state(&self) -> State {
        self.instances.state(&self.world.id).expect("known")
    }

    pub(crate) async fn until_state(&self, wanted: State) {
        until("the state", async || (self.state() == wanted).then_some(())).await;
    }

    pub(crate) async fn until_written(&self, kinds: &[&str]) {
        until(&format!("the records {kinds:?}"), async || (self.world.kinds() == kinds).then_some(())).await;
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.printed.lock().expect("no panic under it").clone()
    }
}

/// A life of plimsoll, after which nothing of it is left in this process, and nobody was told.
pub(crate) fn live<T>(life: impl AsyncFnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let lived = runtime.block_on(life());
    runtime.shutdown_background();
    lived
}

/// A container of the image with this script.
pub(crate) fn script(script: &str) -> Value {
    json!({"container": {"image": IMAGE, "command": ["/bin/sh", "-c", script]}})
}

/// The same with other keys.
pub(crate) fn with(mut base: Value, keys: &Value) -> Value {
    merge(&mut base, keys);
    base
}

fn merge(base: &mut Value, keys: &Value) {
    match (base, keys) {
        (Value::Object(base), Value::Object(keys)) => {
            for (key, value) in keys {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, keys) => *base = keys.clone(),
    }
}
