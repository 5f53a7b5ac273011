//! Power loss: a child's writes are recorded, and the journal is opened on what could be left of them at many moments.

use super::child::{Work, check_all_there};
use super::crash::random;
use super::recording::{Disk, Loss, Recording};
use super::shim::shim;

/// Records a child that starts on nothing, appends, rolls, drops partitions and closes.
fn record(root: &std::path::Path, log: &std::path::Path, shim: &std::path::Path) -> (Work, Recording) {
    let work = Work {
        dir: root.join("data"),
        run: 1,
        writers: 4,
        appends: 60,
        partition_records_max: 60,
        age_max_ms: Some(150),
        persistent: false,
    };
    let (mut child, output) = work.start(|command| {
        command.env("LD_PRELOAD", shim).env("SHIM_ROOT", root).env("SHIM_LOG", log);
    });
    let acked = super::child::acks(output);
    assert!(child.wait().expect("ended").success(), "the child works under the shim");
    assert!(acked.len() >= 240, "{} acknowledgements", acked.len());
    (work, Recording::read(log))
}

#[test]
fn after_a_power_loss_each_acknowledged_record_is_there() {
    let Some(shim) = shim() else { return };
    let temporary = tempfile::tempdir().expect("temporary folder");
    let root = temporary.path().join("root");
    std::fs::create_dir(&root).expect("made");
    let (work, recording) = record(&root, &temporary.path().join("log"), shim);
    assert!(recording.drops() > 0, "partitions were dropped meanwhile");
    let mut seed = 11;
    let soak = std::env::var_os("PLIMSOLL_SOAK").is_some();
    let count = if soak { 200 } else { 24 };
    let mut points: Vec<usize> =
        (0..count).map(|_| random(&mut seed) as usize % recording.len()).chain([recording.len()]).collect();
    // The first start is short: some moments of it for certain.
    points.extend((0..count / 4).map(|i| 5 + i * 7));
    points.sort_unstable();
    let mut disk = Disk::new(root.to_str().expect("UTF-8"));
    let mut failures = Vec::new();
    for point in points.into_iter().filter(|point| *point <= recording.len()) {
        disk.advance(&recording, point);
        for loss in [Loss::All, Loss::Pages, Loss::Torn] {
            let target = tempfile::tempdir().expect("temporary folder");
            let root = root.to_str().expect("UTF-8");
            disk.lose(loss, &mut seed, root, target.path());
            let data = target.path().join("data");
            if let Err(what) = check_all_there(&data, &work.config(), &disk.acked) {
                failures.push(format!("event {point} of {}, {loss:?}: {what}", recording.len()));
            }
        }
    }
    assert!(failures.is_empty(), "{} states are wrong:\n{}", failures.len(), failures.join("\n"));
}
