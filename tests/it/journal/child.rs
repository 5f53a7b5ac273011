//! A process of its own that appends, so that it can be killed or watched: this test binary, run again with a variable
//! that makes the one test here do something.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll::journal::{Append, Config, Fold, Journal, Retention, Scan, SledJournal, StreamId, kinds};
use plimsoll::units::{Bytes, Period};
use serde::{Deserialize, Serialize};

use super::fixture::{Sum, append, deps, instance, record};

const VARIABLE: &str = "PLIMSOLL_TEST_JOURNAL_CHILD";

/// What the child does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) dir: std::path::PathBuf,
    /// Makes the numbers of its records unlike those of other runs.
    pub(crate) run: u64,
    pub(crate) writers: u64,
    /// Appends of each writer; it then closes the journal and ends.
    pub(crate) appends: u64,
    pub(crate) partition_records_max: u64,
    /// Keeps partitions for so long only.
    pub(crate) age_max_ms: Option<u64>,
    /// Goes on after refusals, until its standard input ends.
    pub(crate) persistent: bool,
}

impl Work {
    pub(crate) fn config(&self) -> Config {
        let mut config = Config { partition_records_max: self.partition_records_max, ..Config::default() };
        if let Some(ms) = self.age_max_ms {
            config.work = Retention { age_max: Period::from_millis(ms), bytes_max: Bytes(1 << 30) };
        }
        config
    }

    /// Starts the child; `set` may add to its environment.
    pub(crate) fn start(&self, set: impl FnOnce(&mut Command)) -> (Child, BufReader<ChildStdout>) {
        let mut command = Command::new(std::env::current_exe().expect("this test binary"));
        command
            .args(["--exact", "journal::child::child", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, serde_json::to_string(self).expect("JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        set(&mut command);
        let mut child = command.spawn().expect("starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        (child, output)
    }
}

/// `ack <seq> <number>`, as the child says it.
pub(crate) fn parse_ack(line: &str) -> Option<(u64, u64)> {
    let (seq, number) = line.trim().strip_prefix("ack ")?.split_once(' ')?;
    Some((seq.parse().ok()?, number.parse().ok()?))
}

/// The acknowledgements until the child's output ends.
pub(crate) fn acks(output: BufReader<ChildStdout>) -> Vec<(u64, u64)> {
    output.lines().map_while(Result::ok).filter_map(|line| parse_ack(&line)).collect()
}

#[test]
fn child() {
    let Ok(work) = std::env::var(VARIABLE) else { return };
    let work: Work = serde_json::from_str(&work).expect("JSON");
    let mut with = deps(Clock::system());
    with.folds = vec![Sum::new() as Arc<dyn Fold>];
    let journal: Arc<SledJournal> =
        Arc::new(SledJournal::open(&work.dir, &work.config(), with).expect("opens"));
    say("\nready");
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    if work.persistent {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            ended.store(true, Ordering::SeqCst);
        });
    }
    runtime.block_on(async {
        let writers: Vec<_> = (0..work.writers)
            .map(|writer| tokio::spawn(write(Arc::clone(&journal), work.clone(), writer, Arc::clone(&ended))))
            .collect();
        for writer in writers {
            writer.await.expect("no panic");
        }
        if work.age_max_ms.is_some() {
            until_dropped(&journal, &work).await;
        }
    });
    journal.close();
    say("closed");
}

/// Goes on appending until retention has dropped a partition, however fast the machine is.
async fn until_dropped(journal: &SledJournal, work: &Work) {
    let dropped = Scan { kind: Some(kinds::PARTITION_DROPPED.to_owned()), limit: 1, ..Scan::default() };
    for i in work.appends.. {
        if !journal.scan(&dropped).expect("scans").records.is_empty() {
            return;
        }
        let number = work.run * 1_000_000_000 + i;
        let appended = journal.append(to_append(0, i, number)).await.expect("appended");
        say(&format!("ack {} {number}", appended.first));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn write(journal: Arc<SledJournal>, work: Work, writer: u64, ended: Arc<AtomicBool>) {
    for i in 0..work.appends {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let number = work.run * 1_000_000_000 + writer * 1_000_000 + i;
        match journal.append(to_append(writer, i, number)).await {
            Ok(appended) => say(&format!("ack {} {number}", appended.first)),
            Err(error) => {
                // The newest: an old partition cannot be opened without the disk.
                let read = journal.scan(&Scan { limit: 10, newest_first: true, ..Scan::default() });
                let read = read.map_or_else(|e| e.to_string(), |_| "true".to_owned());
                say(&format!("refused {number} read={read} {error}"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if work.persistent {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Mostly requests; now and then another log, several records at once, or a record of several rows.
fn to_append(writer: u64, i: u64, number: u64) -> Append {
    let stream = if (writer + i).is_multiple_of(7) { instance("a") } else { StreamId::request() };
    let mut append = append(&stream, [number]);
    if i % 11 == 3 {
        append.records.extend([record(number), record(number)].map(|mut more| {
            more.detail = serde_json::json!({ "with": number });
            more
        }));
    }
    if i % 13 == 5 {
        append.records[0].detail["text"] = "z".repeat(20_000).into();
    }
    append
}

fn say(line: &str) {
    // One write a line: the recording of the disk puts it between the writes.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Opens the journal that children left, and checks that it has every acknowledged record once and whole chains.
pub(crate) fn check_all_there(dir: &Path, config: &Config, acked: &[(u64, u64)]) -> Result<(), String> {
    use super::fixture::{all, number};
    use plimsoll::journal::Log;
    let sum = Sum::new();
    let mut with = deps(Clock::system());
    with.folds = vec![Arc::clone(&sum) as Arc<dyn Fold>];
    let keep = Config { work: Config::default().work, ..*config };
    let journal = SledJournal::open(dir, &keep, with)
        .map_err(|e| format!("{e}: {:?}", std::error::Error::source(&e)))?;
    if let Some(cause) = journal.status().degraded {
        return Err(cause);
    }
    let records = all(&journal);
    let dropped = records.iter().filter(|r| r.kind == kinds::PARTITION_DROPPED);
    let dropped_to = dropped.filter_map(|r| r.detail["last_seq"].as_u64()).max().unwrap_or(0);
    let mut numbers: std::collections::HashMap<u64, u64> = std::collections::HashMap::new();
    for record in records.iter().filter(|r| r.detail["number"].is_u64()) {
        if numbers.insert(number(record), record.seq.0).is_some() {
            return Err(format!("number {} is there twice", number(record)));
        }
    }
    for (seq, number) in acked {
        let audit = records.iter().any(|r| r.seq.0 == *seq && r.stream == instance("a"));
        if numbers.get(number) != Some(seq) && (*seq > dropped_to || audit) {
            return Err(format!(
                "record {seq} was acknowledged with {number}, found {:?}",
                numbers.get(number)
            ));
        }
    }
    for log in Log::ALL {
        journal.verify(log, None).map_err(|e| e.to_string())?;
    }
    Ok(())
}
