//! What several checks look at, looked at once: the configuration, a running server, the data directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::client::{Client, Target};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, ConfigProblem, LoadRequest, Loaded, Located};
use crate::journal::offline::Offline;
use crate::journal::{OpenError, Scan, check_free};

/// How long a running server may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// The variables that say where traces go when the configuration does not; see the OpenTelemetry specification.
const OTLP_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Everything that checks look at.
pub(super) struct Scene {
    pub(super) located: Located,
    pub(super) searched: Vec<std::path::PathBuf>,
    pub(super) loaded: Result<Loaded, Vec<ConfigProblem>>,
    /// Whether a plimsoll answers on the control socket of the data directory.
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) clock: Clock,
    variables: BTreeMap<&'static str, OsString>,
}

/// Whether a plimsoll runs on the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Answers,
    Silent,
}

/// What is in the data directory.
#[derive(Debug)]
pub(super) enum Store {
    /// It is not known which directory that is.
    Unknown,
    /// There is no such directory yet.
    Absent,
    /// A plimsoll that answers uses it.
    Served,
    /// It cannot be used.
    Unusable(OpenError),
    /// There is nothing in it yet.
    Empty,
    /// Read: the time of the newest record, and what cannot be read.
    Readable { newest: Option<Timestamp>, unreadable: Vec<String> },
    /// It can be opened, and not be read.
    Damaged(String),
}

impl Scene {
    pub(super) async fn look(request: &LoadRequest<'_>, clock: Clock) -> Self {
        let variable = |name: &'static str| Some((name, (request.environment)(name)?));
        let variables = OTLP_VARIABLES.into_iter().filter_map(variable).collect();
        let loaded = config::load(request);
        let data_dir = loaded.as_ref().ok().map(|loaded| loaded.data_dir.clone());
        let server = match &data_dir {
            Some(dir) => answers(dir).await,
            None => Server::Silent,
        };
        let store = match (data_dir, server) {
            (None, _) => Store::Unknown,
            (Some(_), Server::Answers) => Store::Served,
            (Some(dir), Server::Silent) => {
                let read = spawn_blocking(move || store(&dir)).await;
                read.unwrap_or_else(|_| Store::Damaged("reading the journal panicked".to_owned()))
            }
        };
        let located = config::locate(request);
        Self { located, searched: config::searched(request), loaded, server, store, clock, variables }
    }

    /// Where traces go: the key, else the standard variables.
    pub(super) fn collector(&self) -> Option<String> {
        let key = self.loaded.as_ref().ok().and_then(|loaded| loaded.config.telemetry.otlp.endpoint.clone());
        let variable = |name| self.variables.get(name)?.to_str().filter(|text| !text.is_empty());
        key.or_else(|| OTLP_VARIABLES.into_iter().find_map(variable).map(str::to_owned))
    }
}

async fn answers(data_dir: &Path) -> Server {
    let Ok(client) = Client::new(Target::DataDir(data_dir.to_owned())) else { return Server::Silent };
    match tokio::time::timeout(ANSWER_DEADLINE, client.get("/health")).await {
        Ok(Ok(_)) => Server::Answers,
        Ok(Err(_)) | Err(_) => Server::Silent,
    }
}

fn store(data_dir: &Path) -> Store {
    if !data_dir.exists() {
        return Store::Absent;
    }
    if let Err(error) = check_free(data_dir) {
        return Store::Unusable(error);
    }
    // Opening makes what is missing, and a check changes nothing.
    if !data_dir.join("FORMAT").exists() {
        return Store::Empty;
    }
    let journal = match Offline::open(data_dir) {
        Ok(journal) => journal,
        Err(error) => return Store::Unusable(error),
    };
    let unreadable = journal.unreadable().to_vec();
    match journal.scan(&Scan { limit: 1, newest_first: true, ..Scan::default() }) {
        Ok(page) => Store::Readable { newest: page.records.first().map(|record| record.time), unreadable },
        Err(error) => Store::Damaged(error.to_string()),
    }
}
