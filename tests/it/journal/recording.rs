//! A recording of everything a child did to its files, and the disks that a power loss could have left.
//!
//! The model is stricter than most file systems: data is durable once its file was synced, a name once its folder was.
//! What was not synced is there, not there, or there in part, as the [`Loss`] says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use super::child::parse_ack;
use super::crash::random;

/// What a power loss does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing of it is there.
    All,
    /// Each page of 4 KiB is there or not; of the names, the first few.
    Pages,
    /// Everything up to some moment, the last write torn.
    Torn,
}

#[derive(Debug, Clone)]
enum Event {
    Open { id: u64, path: String, truncated: bool },
    Write { id: u64, offset: usize, bytes: Vec<u8> },
    Truncate { id: u64, length: usize },
    Sync { id: u64 },
    MakeDir(String),
    Remove(String),
    Rename(String, String),
    Said(String),
}

/// The events in order.
pub(crate) struct Recording(Vec<Event>);

impl Recording {
    pub(crate) fn read(log: &Path) -> Self {
        let bytes = fs::read(log).expect("the recording");
        let (mut events, mut at) = (Vec::new(), 0);
        while at + 25 <= bytes.len() {
            let number = |i: usize| {
                let part = bytes[at + 1 + i * 8..at + 9 + i * 8].try_into().expect("8 bytes");
                usize::try_from(u64::from_le_bytes(part)).expect("fits")
            };
            let (id, offset, length) = (number(0) as u64, number(1), number(2));
            let data = bytes[at + 25..at + 25 + length].to_vec();
            let text = || String::from_utf8(data.clone()).expect("a path");
            events.push(match bytes[at] {
                b'O' => Event::Open { id, path: text(), truncated: offset == 1 },
                b'W' => Event::Write { id, offset, bytes: data },
                b'T' => Event::Truncate { id, length: offset },
                b'S' => Event::Sync { id },
                b'M' => Event::MakeDir(text()),
                b'U' | b'D' => Event::Remove(text()),
                b'R' => {
                    let both = text();
                    let (from, to) = both.split_once('\0').expect("two paths");
                    Event::Rename(from.to_owned(), to.to_owned())
                }
                b'A' => Event::Said(String::from_utf8_lossy(&data).into_owned()),
                other => panic!("unknown event {other}"),
            });
            at += 25 + length;
        }
        Self(events)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many partitions were dropped, by the renames that do it.
    pub(crate) fn drops(&self) -> usize {
        self.0.iter().filter(|e| matches!(e, Event::Rename(_, to) if to.contains(".dropped-"))).count()
    }
}

#[derive(Clone)]
enum Data {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Data {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(length) => content.resize(*length, 0),
        }
    }
}

#[derive(Clone)]
enum Name {
    File(String, usize),
    Dir(String),
    Gone(String),
    Moved(String, String),
}

impl Name {
    fn folder(&self) -> &str {
        let (Self::File(path, _) | Self::Dir(path) | Self::Gone(path) | Self::Moved(path, _)) = self;
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::File(path, inode) => drop(names.files.insert(path.clone(), *inode)),
            Self::Dir(path) => drop(names.dirs.insert(path.clone())),
            Self::Gone(path) => {
                names.files.remove(path);
                names.dirs.remove(path);
            }
            Self::Moved(from, to) => names.rename(from, to),
        }
    }
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<String, usize>,
    dirs: BTreeSet<String>,
}

impl Names {
    fn rename(&mut self, from: &str, to: &str) {
        if let Some(inode) = self.files.remove(from) {
            self.files.insert(to.to_owned(), inode);
        }
        let inside = format!("{from}/");
        let moved = |path: &str| path.strip_prefix(&inside).map(|rest| format!("{to}/{rest}"));
        self.files = std::mem::take(&mut self.files)
            .into_iter()
            .map(|(path, inode)| (moved(&path).unwrap_or(path), inode))
            .collect();
        if self.dirs.remove(from) {
            self.dirs.insert(to.to_owned());
        }
        self.dirs =
            std::mem::take(&mut self.dirs).into_iter().map(|path| moved(&path).unwrap_or(path)).collect();
    }
}

/// What happened and is not synced, in order.
#[derive(Clone)]
enum Pending {
    Data(usize, Data),
    Name(Name),
}

/// The disk while the recording runs.
#[derive(Default)]
pub(crate) struct Disk {
    now: Names,
    durable: Names,
    /// The synced content of each file.
    synced: Vec<Vec<u8>>,
    pending: Vec<Pending>,
    /// What an open file is: a file or a folder.
    open: HashMap<u64, Result<usize, String>>,
    pub(crate) acked: Vec<(u64, u64)>,
    at: usize,
}

impl Disk {
    /// A disk with nothing but the folder `root`.
    pub(crate) fn new(root: &str) -> Self {
        let root = Names { dirs: BTreeSet::from([root.to_owned()]), ..Names::default() };
        Self { now: root.clone(), durable: root, ..Self::default() }
    }

    /// Goes on to an event.
    pub(crate) fn advance(&mut self, recording: &Recording, to: usize) {
        for event in &recording.0[self.at..to] {
            self.take(event.clone());
        }
        self.at = to;
    }

    fn name(&mut self, name: Name) {
        name.apply(&mut self.now);
        self.pending.push(Pending::Name(name));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Open { id, path, truncated } => {
                if self.now.dirs.contains(&path) {
                    self.open.insert(id, Err(path));
                    return;
                }
                let inode = self.now.files.get(&path).copied().unwrap_or_else(|| {
                    self.synced.push(Vec::new());
                    let inode = self.synced.len() - 1;
                    self.name(Name::File(path, inode));
                    inode
                });
                if truncated {
                    self.pending.push(Pending::Data(inode, Data::Truncate(0)));
                }
                self.open.insert(id, Ok(inode));
            }
            Event::Write { id, offset, bytes } => self.data(id, Data::Write(offset, bytes)),
            Event::Truncate { id, length } => self.data(id, Data::Truncate(length)),
            Event::Sync { id } => self.sync(id),
            Event::MakeDir(path) => self.name(Name::Dir(path)),
            Event::Remove(path) => self.name(Name::Gone(path)),
            Event::Rename(from, to) => self.name(Name::Moved(from, to)),
            Event::Said(text) => self.acked.extend(text.lines().filter_map(parse_ack)),
        }
    }

    fn data(&mut self, id: u64, data: Data) {
        if let Some(Ok(inode)) = self.open.get(&id) {
            self.pending.push(Pending::Data(*inode, data));
        }
    }

    fn sync(&mut self, id: u64) {
        let Some(open) = self.open.get(&id).cloned() else { return };
        for pending in std::mem::take(&mut self.pending) {
            match (&pending, &open) {
                (Pending::Data(inode, data), Ok(synced)) if inode == synced => {
                    data.apply(&mut self.synced[*inode]);
                }
                (Pending::Name(name), Err(folder)) if name.folder() == folder => {
                    name.apply(&mut self.durable)
                }
                (Pending::Data(..) | Pending::Name(_), _) => self.pending.push(pending),
            }
        }
    }

    /// Writes what a power loss now leaves of the files under `root` to `target`.
    pub(crate) fn lose(&self, loss: Loss, seed: &mut u64, root: &str, target: &Path) {
        let (mut names, mut files) = (self.durable.clone(), self.synced.clone());
        let count = self.pending.len();
        let kept = if count == 0 { 0 } else { random(seed) as usize % (count + 1) };
        for (i, pending) in self.pending.iter().enumerate() {
            match (loss, pending) {
                (Loss::All, _) => {}
                (Loss::Torn, Pending::Data(inode, Data::Write(offset, bytes))) if i + 1 == kept => {
                    let torn = bytes[..random(seed) as usize % (bytes.len() + 1)].to_vec();
                    Data::Write(*offset, torn).apply(&mut files[*inode]);
                }
                (Loss::Torn, _) if i >= kept => {}
                (Loss::Pages, Pending::Name(_)) if i >= kept => {}
                (Loss::Pages, Pending::Data(inode, Data::Write(offset, bytes))) => {
                    let mut start = 0;
                    while start < bytes.len() {
                        let end = bytes.len().min((offset + start) / 4_096 * 4_096 + 4_096 - offset);
                        if random(seed).is_multiple_of(2) {
                            Data::Write(offset + start, bytes[start..end].to_vec()).apply(&mut files[*inode]);
                        }
                        start = end;
                    }
                }
                (Loss::Torn | Loss::Pages, Pending::Data(inode, data)) => data.apply(&mut files[*inode]),
                (Loss::Torn | Loss::Pages, Pending::Name(name)) => name.apply(&mut names),
            }
        }
        let place =
            |path: &str| path.strip_prefix(root).map(|rest| target.join(rest.trim_start_matches('/')));
        for dir in names.dirs.iter().filter_map(|dir| place(dir)) {
            // A name whose folder is gone cannot be reached.
            let _ = fs::create_dir(dir);
        }
        for (path, inode) in &names.files {
            if let Some(path) = place(path).filter(|p| p.parent().is_some_and(Path::is_dir)) {
                fs::write(path, &files[*inode]).expect("written");
            }
        }
    }
}
