//! What agents print: the last lines of each, for the operator who looks over its shoulder.
//!
//! It is content, so it stays here: in memory, bounded, told to operators only, never logged, journaled or traced. Lines
//! are numbered from 1 per agent, so that a reader goes on where it was and sees by a gap what left the ring before it
//! came. Start at [`Outputs`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::ids::{AgentId, RequestId};
use crate::limits::{OUTPUT_BYTES_MAX, OUTPUT_GONE_MAX, OUTPUT_LINE_BYTES_MAX, OUTPUT_LINES_MAX};

/// Which of a program's streams a line stood on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Hears each line that the instance of an agent prints, without its end.
pub type Heard = Arc<dyn Fn(&AgentId, OutputStream, &[u8]) + Send + Sync>;

/// One line that an agent printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputLine {
    /// Its number among the agent's lines since the server started, from 1.
    pub seq: u64,
    /// When it was read, in epoch milliseconds.
    pub timestamp: Timestamp,
    /// The request it was printed for; absent where an instance printed it, which serves many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Where it stood.
    pub stream: OutputStream,
    /// The line without its end.
    pub text: String,
    /// Whether the line was longer than is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Lines of one agent, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct OutputPage {
    /// The lines.
    pub lines: Vec<OutputLine>,
    /// What to pass as `after` to go on from here.
    pub next: u64,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputWanted {
    /// The last so many.
    Last(usize),
    /// At most `lines` of those after number `seq`.
    After {
        /// The number of the last line that is known.
        seq: u64,
        /// How many at most.
        lines: usize,
    },
}

/// The output of all agents. A std mutex suffices: a line is put down or a page is copied under it, nothing waits.
#[derive(Default)]
pub(super) struct Outputs {
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    agents: HashMap<AgentId, Output>,
    /// The numbers of the newest lines of agents that were deleted, the last one at the end: one that is made again
    /// counts on, for the reader that goes on where it was.
    gone: Gone,
    /// Bytes of all lines of all agents.
    bytes: usize,
}

type Gone = VecDeque<(AgentId, u64)>;

/// The lines of one agent.
struct Output {
    lines: VecDeque<OutputLine>,
    bytes: usize,
    /// The number of the newest line, 0 before the first.
    newest: watch::Sender<u64>,
}

impl Outputs {
    /// Keeps a line; the oldest of this agent leave if it has too many, the oldest of whoever has most if all have.
    pub(super) fn record(
        &self,
        agent: &AgentId,
        request_id: Option<&RequestId>,
        stream: OutputStream,
        text: &str,
        timestamp: Timestamp,
    ) {
        let (text, cut) = cut_to_size(text.trim_end_matches(['\r', '\n']));
        let mut store = self.store();
        let Store { agents, gone, bytes } = &mut *store;
        let output = output_of(agents, gone, agent);
        let seq = *output.newest.borrow() + 1;
        let line = OutputLine {
            seq,
            timestamp,
            request_id: request_id.cloned(),
            stream,
            text: text.to_owned(),
            cut,
        };
        *bytes += cost(&line);
        output.bytes += cost(&line);
        output.lines.push_back(line);
        if output.lines.len() > OUTPUT_LINES_MAX {
            *bytes -= output.drop_oldest();
        }
        output.newest.send_replace(seq);
        while *bytes > OUTPUT_BYTES_MAX {
            let Some(fullest) = agents.values_mut().max_by_key(|output| output.bytes) else { break };
            *bytes -= fullest.drop_oldest();
        }
    }

    /// Forgets all lines of an agent. Who waits for the next one waits no more.
    pub(super) fn forget(&self, agent: &AgentId) {
        let mut store = self.store();
        let Some(output) = store.agents.remove(agent) else { return };
        store.bytes -= output.bytes;
        let newest = *output.newest.borrow();
        if newest > 0 {
            store.gone.push_back((agent.clone(), newest));
        }
        if store.gone.len() > OUTPUT_GONE_MAX {
            store.gone.pop_front();
        }
    }

    /// The lines asked for, as far as they are kept.
    pub(super) fn page(&self, agent: &AgentId, wanted: OutputWanted) -> OutputPage {
        let store = self.store();
        let Some(output) = store.agents.get(agent) else {
            return OutputPage { lines: Vec::new(), next: newest_gone(&store.gone, agent) };
        };
        let newest = *output.newest.borrow();
        let lines: Vec<OutputLine> = match wanted {
            OutputWanted::Last(lines) => {
                output.lines.range(output.lines.len().saturating_sub(lines)..).cloned().collect()
            }
            OutputWanted::After { seq, lines } => {
                let known = known(seq, newest);
                let from = output.lines.partition_point(|line| line.seq <= known);
                output.lines.range(from..).take(lines).cloned().collect()
            }
        };
        let next = lines.last().map_or(newest, |line| line.seq);
        OutputPage { lines, next }
    }

    /// Waits until there is a line after number `seq`, or `wait` is over.
    pub(super) async fn arrived(&self, agent: &AgentId, seq: u64, wait: Duration) {
        let mut newest = {
            let mut store = self.store();
            let Store { agents, gone, bytes: _ } = &mut *store;
            output_of(agents, gone, agent).newest.subscribe()
        };
        let known = known(seq, *newest.borrow());
        // Over, forgotten or not, the caller looks at what there is.
        let _ = tokio::time::timeout(wait, newest.wait_for(|newest| *newest > known)).await;
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of this agent, from now on.
fn output_of<'a>(
    agents: &'a mut HashMap<AgentId, Output>,
    gone: &mut Gone,
    agent: &AgentId,
) -> &'a mut Output {
    agents.entry(agent.clone()).or_insert_with(|| {
        let newest = newest_gone(gone, agent);
        gone.retain(|(other, _)| other != agent);
        Output { lines: VecDeque::new(), bytes: 0, newest: watch::Sender::new(newest) }
    })
}

/// The number of the last line of an agent that is gone, if that is known.
fn newest_gone(gone: &Gone, agent: &AgentId) -> u64 {
    gone.iter().find(|(other, _)| other == agent).map_or(0, |(_, newest)| *newest)
}

impl Output {
    /// Lets the oldest line go, and says how many bytes that gave back.
    fn drop_oldest(&mut self) -> usize {
        let freed = self.lines.pop_front().as_ref().map_or(0, cost);
        self.bytes -= freed;
        freed
    }
}

/// A number from before the server's last start is past all there are: the reader begins anew.
fn known(seq: u64, newest: u64) -> u64 {
    if seq > newest { 0 } else { seq }
}

/// What a line takes of the budget: its text and what is around it.
fn cost(line: &OutputLine) -> usize {
    line.text.len() + size_of::<OutputLine>()
}

fn cut_to_size(text: &str) -> (&str, bool) {
    if text.len() <= OUTPUT_LINE_BYTES_MAX {
        return (text, false);
    }
    (&text[..text.floor_char_boundary(OUTPUT_LINE_BYTES_MAX)], true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentId {
        AgentId::parse(name).expect("valid")
    }

    fn print(outputs: &Outputs, name: &str, text: &str) {
        let request = RequestId::parse("r").expect("valid");
        outputs.record(&agent(name), Some(&request), OutputStream::Stdout, text, Timestamp::from_millis(7));
    }

    fn texts(page: &OutputPage) -> Vec<&str> {
        page.lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn bytes(outputs: &Outputs) -> usize {
        let store = outputs.store();
        let lines = store.agents.values().flat_map(|output| &output.lines);
        let bytes = lines.map(cost).sum();
        assert_eq!(store.bytes, bytes, "the count of bytes is that of the lines");
        assert_eq!(store.agents.values().map(|output| output.bytes).sum::<usize>(), bytes);
        bytes
    }

    #[test]
    fn the_last_lines_and_those_after_a_number_are_told_oldest_first() {
        let outputs = Outputs::default();
        ["one\n", "two\r\n", "three"].iter().for_each(|text| print(&outputs, "a", text));
        print(&outputs, "b", "other");
        let page = outputs.page(&agent("a"), OutputWanted::Last(2));
        assert_eq!((texts(&page), page.next), (vec!["two", "three"], 3));
        let page = outputs.page(&agent("a"), OutputWanted::After { seq: 0, lines: 2 });
        assert_eq!((texts(&page), page.next), (vec!["one", "two"], 2));
        let page = outputs.page(&agent("a"), OutputWanted::After { seq: 2, lines: 2 });
        assert_eq!((texts(&page), page.next), (vec!["three"], 3));
        let page = outputs.page(&agent("a"), OutputWanted::After { seq: 3, lines: 2 });
        assert_eq!((texts(&page), page.next), (vec![], 3));
    }

    #[test]
    fn a_number_from_before_a_restart_begins_anew() {
        let outputs = Outputs::default();
        print(&outputs, "a", "first since the start");
        let page = outputs.page(&agent("a"), OutputWanted::After { seq: 900, lines: 9 });
        assert_eq!((texts(&page), page.next), (vec!["first since the start"], 1));
        assert_eq!(outputs.page(&agent("quiet"), OutputWanted::After { seq: 900, lines: 9 }).next, 0);
    }

    #[test]
    fn what_is_forgotten_is_gone_and_numbers_go_on() {
        let outputs = Outputs::default();
        ["one", "two"].iter().for_each(|text| print(&outputs, "a", text));
        print(&outputs, "b", "other");
        outputs.forget(&agent("a"));
        assert_eq!(outputs.page(&agent("a"), OutputWanted::Last(9)), OutputPage { lines: vec![], next: 2 });
        bytes(&outputs);
        print(&outputs, "a", "of the next one");
        let page = outputs.page(&agent("a"), OutputWanted::After { seq: 2, lines: 9 });
        assert_eq!((texts(&page), page.next), (vec!["of the next one"], 3));
        outputs.forget(&agent("nobody"));
    }

    #[test]
    fn agents_that_come_and_go_leave_no_more_than_their_last_numbers() {
        let outputs = Outputs::default();
        let come_and_go = |n: usize| {
            print(&outputs, &format!("a{n}"), "here");
            outputs.forget(&agent(&format!("a{n}")));
        };
        let next = |n: usize| outputs.page(&agent(&format!("a{n}")), OutputWanted::Last(1)).next;
        (0..OUTPUT_GONE_MAX).for_each(come_and_go);
        assert_eq!((next(0), next(1)), (1, 1));
        come_and_go(0);
        assert_eq!((next(0), next(1)), (2, 1), "it counts on, and stands there once");
        come_and_go(OUTPUT_GONE_MAX);
        assert_eq!((next(0), next(1), next(2)), (2, 0, 1), "the one that went first is not known any more");
        let store = outputs.store();
        assert_eq!((store.agents.len(), store.gone.len(), store.bytes), (0, OUTPUT_GONE_MAX, 0));
    }

    #[test]
    fn the_oldest_line_leaves_when_there_is_one_too_many() {
        let outputs = Outputs::default();
        (0..OUTPUT_LINES_MAX).for_each(|n| print(&outputs, "a", &n.to_string()));
        let first =
            |outputs: &Outputs| outputs.page(&agent("a"), OutputWanted::Last(usize::MAX)).lines[0].seq;
        assert_eq!(first(&outputs), 1);
        print(&outputs, "a", "one more");
        assert_eq!(first(&outputs), 2);
        bytes(&outputs);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_says_so() {
        let outputs = Outputs::default();
        for (extra, cut) in [(0, false), (1, true)] {
            let text = format!("{}ä{}", "x".repeat(OUTPUT_LINE_BYTES_MAX - 2), "y".repeat(extra));
            print(&outputs, "a", &text);
            let page = outputs.page(&agent("a"), OutputWanted::Last(1));
            assert_eq!((page.lines[0].cut, page.lines[0].text.len()), (cut, OUTPUT_LINE_BYTES_MAX));
        }
        print(&outputs, "a", &format!("{}ää", "x".repeat(OUTPUT_LINE_BYTES_MAX - 1)));
        let page = outputs.page(&agent("a"), OutputWanted::Last(1));
        assert_eq!((page.lines[0].cut, page.lines[0].text.len()), (true, OUTPUT_LINE_BYTES_MAX - 1));
    }

    #[test]
    fn a_flood_of_many_agents_stays_in_its_budget_and_spares_the_quiet_one() {
        let outputs = Outputs::default();
        print(&outputs, "quiet", "still here");
        let text = "x".repeat(OUTPUT_LINE_BYTES_MAX);
        for n in 0..3 * OUTPUT_BYTES_MAX / OUTPUT_LINE_BYTES_MAX {
            print(&outputs, &format!("loud-{}", n % 7), &text);
        }
        assert!(bytes(&outputs) <= OUTPUT_BYTES_MAX);
        assert!(bytes(&outputs) > OUTPUT_BYTES_MAX - 2 * OUTPUT_LINE_BYTES_MAX, "it is used, too");
        assert_eq!(texts(&outputs.page(&agent("quiet"), OutputWanted::Last(1))), ["still here"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_of_the_next_line_at_once_and_else_of_the_end_of_the_wait() {
        let outputs = std::sync::Arc::new(Outputs::default());
        let wait = Duration::from_secs(30);
        outputs.arrived(&agent("a"), 0, wait).await;
        let waiting = tokio::spawn({
            let outputs = std::sync::Arc::clone(&outputs);
            async move { outputs.arrived(&agent("a"), 0, Duration::from_secs(1 << 20)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        print(&outputs, "a", "here");
        waiting.await.expect("it hears of it");
        outputs.arrived(&agent("a"), 0, Duration::from_secs(1 << 20)).await;
        let deleted = agent("a");
        let waits = outputs.arrived(&deleted, 1, Duration::from_secs(1 << 20));
        tokio::time::timeout(wait, async { tokio::join!(biased; waits, async { outputs.forget(&deleted) }) })
            .await
            .expect("who waits for one that is deleted waits no more");
    }
}
