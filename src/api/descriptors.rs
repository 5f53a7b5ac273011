//! Open files: every connection is one, and many systems allow 1,024 unless asked.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides connections: the journal's partitions, log files, connections to providers.
const OTHERS: u64 = 512;

/// Asks the system for as many open files as `connections` need, as far as it allows, and says so if that is less.
pub(crate) fn allow_for(connections: usize) {
    let needed = connections as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
    if raised.is_err() || current < needed {
        let allowed = getrlimit(Resource::Nofile).current;
        tracing::warn!(
            needed,
            ?allowed,
            "the system allows fewer open files than server.connections_max needs: raise `ulimit -n`"
        );
    }
}
