//! Claims about the scheduler: examples first, then a model that takes every step the slow and obvious way.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LIMITS: LaneLimits = LaneLimits { running_max: 4, queued_max: 40, lane_depth_max: 8 };

fn key(agent: usize, session: usize) -> LaneKey {
    LaneKey {
        agent: AgentId::parse(&format!("a{agent}")).expect("valid"),
        session: SessionId::parse(&format!("s{session}")).expect("valid"),
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_lane_runs_one_at_a_time_in_order() {
    let mut lanes = Lanes::new(LIMITS);
    let tickets: Vec<_> = (0..3).map(|_| lanes.enqueue(key(1, 1), at(0)).expect("room").ticket).collect();
    for ticket in tickets {
        assert_eq!(lanes.start_next(at(1)), Some(ticket));
        assert_eq!(lanes.start_next(at(1)), None);
        assert_eq!(lanes.leave(ticket, at(2)), Some(Left::Running));
    }
    assert_eq!((lanes.queued(), lanes.running(), lanes.lanes()), (0, 0, 0));
}

#[test]
fn ahead_counts_the_running_one_too() {
    let mut lanes = Lanes::new(LIMITS);
    assert_eq!(lanes.enqueue(key(1, 1), at(0)).expect("room").ahead, 0);
    lanes.start_next(at(0)).expect("a turn");
    assert_eq!(lanes.enqueue(key(1, 1), at(0)).expect("room").ahead, 1);
    assert_eq!(lanes.enqueue(key(1, 1), at(0)).expect("room").ahead, 2);
}

#[test]
fn a_lane_refuses_the_one_after_its_last_place_with_a_hint() {
    let mut lanes = Lanes::new(LIMITS);
    for _ in 0..LIMITS.lane_depth_max {
        lanes.enqueue(key(1, 1), at(0)).expect("room");
    }
    let full = Full::Lane { depth: LIMITS.lane_depth_max, retry_after: RETRY_AFTER_MIN };
    assert_eq!(lanes.enqueue(key(1, 1), at(0)), Err(full));
    assert!(lanes.enqueue(key(1, 2), at(0)).is_ok());
}

#[test]
fn all_lanes_together_refuse_the_one_after_the_last_place() {
    let mut lanes = Lanes::new(LIMITS);
    for i in 0..LIMITS.queued_max {
        lanes.enqueue(key(1, i), at(0)).expect("room");
    }
    let refused = lanes.enqueue(key(2, 0), at(0));
    assert_eq!(refused, Err(Full::Gateway { queued: LIMITS.queued_max, retry_after: RETRY_AFTER_MIN }));
}

#[test]
fn the_hint_follows_how_long_requests_run() {
    let mut lanes = Lanes::new(LaneLimits { lane_depth_max: 1, ..LIMITS });
    let first = lanes.enqueue(key(1, 1), at(0)).expect("room").ticket;
    lanes.start_next(at(0)).expect("a turn");
    lanes.leave(first, at(3)).expect("there");
    lanes.enqueue(key(1, 1), at(3)).expect("room");
    assert_eq!(lanes.enqueue(key(1, 1), at(3)), Err(Full::Lane { depth: 1, retry_after: at(3) }));
}

#[test]
fn a_waiting_one_that_leaves_keeps_the_order_of_the_others() {
    let mut lanes = Lanes::new(LIMITS);
    let tickets: Vec<_> = (0..3).map(|_| lanes.enqueue(key(1, 1), at(0)).expect("room").ticket).collect();
    assert_eq!(lanes.leave(tickets[0], at(1)), Some(Left::Waiting));
    assert_eq!(lanes.leave(tickets[0], at(1)), None);
    assert_eq!(lanes.start_next(at(1)), Some(tickets[1]));
}

#[test]
fn the_oldest_age_is_that_of_the_oldest_waiting_one() {
    let mut lanes = Lanes::new(LIMITS);
    let first = lanes.enqueue(key(1, 1), at(0)).expect("room").ticket;
    lanes.enqueue(key(1, 1), at(5)).expect("room");
    assert_eq!(lanes.oldest_age(at(7)), at(7));
    assert_eq!(lanes.start_next(at(7)), Some(first));
    assert_eq!(lanes.oldest_age(at(8)), at(3));
}

#[test]
fn one_that_is_held_keeps_its_place_and_takes_no_turn() {
    let mut lanes = Lanes::new(LIMITS);
    lanes.cap_agent(&key(1, 0).agent, 1);
    let place = |lanes: &mut Lanes, session| lanes.enqueue(key(1, session), at(0)).expect("room").ticket;
    let (held, behind, beside) = (place(&mut lanes, 1), place(&mut lanes, 1), place(&mut lanes, 2));
    lanes.hold(held);
    assert_eq!(lanes.start_next(at(0)), Some(beside), "the agent's only turn is free for another lane");
    lanes.leave(beside, at(0));
    assert_eq!(lanes.start_next(at(0)), None, "who stands behind it waits too");
    lanes.release(held);
    assert_eq!(lanes.start_next(at(0)), Some(held));
    lanes.leave(held, at(0));
    assert_eq!(lanes.start_next(at(0)), Some(behind));
    lanes.leave(behind, at(0));
    let (held, behind) = (place(&mut lanes, 1), place(&mut lanes, 1));
    lanes.hold(held);
    lanes.leave(held, at(0));
    assert_eq!(lanes.start_next(at(0)), Some(behind), "one that leaves holds nobody up");
}

#[test]
fn five_hundred_flooded_lanes_cost_another_agent_one_turn() {
    let limits = LaneLimits { running_max: 2, queued_max: 100_000, lane_depth_max: 200 };
    let mut lanes = Lanes::new(limits);
    for session in 0..500 {
        for _ in 0..20 {
            lanes.enqueue(key(1, session), at(0)).expect("room");
        }
    }
    let mut running: VecDeque<_> = std::iter::from_fn(|| lanes.start_next(at(0))).collect();
    for round in 0..100 {
        let quiet = lanes.enqueue(key(2, round), at(0)).expect("room").ticket;
        let mut turns = 0;
        loop {
            turns += 1;
            lanes.leave(running.pop_front().expect("something runs"), at(1)).expect("it ran");
            let started = lanes.start_next(at(1)).expect("there is work");
            running.push_back(started);
            if started == quiet {
                break;
            }
        }
        assert!(turns <= 2, "waited {turns} turns behind the flood");
    }
}

#[test]
fn an_agent_at_its_cap_leaves_the_slots_to_others() {
    let mut lanes = Lanes::new(LIMITS);
    lanes.cap_agent(&key(1, 0).agent, 1);
    for session in 0..3 {
        lanes.enqueue(key(1, session), at(0)).expect("room");
    }
    let quiet = lanes.enqueue(key(2, 0), at(0)).expect("room").ticket;
    let started: Vec<_> = std::iter::from_fn(|| lanes.start_next(at(0))).collect();
    assert_eq!(started.len(), 2);
    assert!(started.contains(&quiet));
}

/// One step of the outside world.
#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        agent: usize,
        session: usize,
    },
    StartNext,
    /// Picks among the tickets that are in, by remainder.
    Leave(usize),
    /// One that runs gives its turn back.
    Park(usize),
    /// One that did may have another.
    Release(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, 0..4_usize).prop_map(|(agent, session)| Step::Enqueue { agent, session }),
        3 => Just(Step::StartNext),
        3 => any::<usize>().prop_map(Step::Leave),
        2 => any::<usize>().prop_map(Step::Park),
        2 => any::<usize>().prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..200)
}

const AGENT_CAPS: [usize; 3] = [1, 2, usize::MAX];

/// The same queue without any cleverness: a list of everybody in, in the order of arrival.
#[derive(Default)]
struct Model {
    members: Vec<Member>,
}

struct Member {
    ticket: Ticket,
    agent: usize,
    session: usize,
    running: bool,
    held: bool,
    /// Turns given to others since this one could have had one.
    passed_over: usize,
}

impl Model {
    fn waiting(&self) -> usize {
        self.members.iter().filter(|m| !m.running).count()
    }

    fn running(&self) -> usize {
        self.members.iter().filter(|m| m.running).count()
    }

    fn depth(&self, agent: usize, session: usize) -> usize {
        self.members.iter().filter(|m| (m.agent, m.session, m.running) == (agent, session, false)).count()
    }

    fn lanes(&self) -> usize {
        let keys: std::collections::HashSet<_> = self.members.iter().map(|m| (m.agent, m.session)).collect();
        keys.len()
    }

    /// The heads of lanes that may run now.
    fn eligible(&self) -> Vec<Ticket> {
        if self.running() >= LIMITS.running_max {
            return Vec::new();
        }
        let may = |m: &&Member| {
            let same_lane = |o: &&Member| (o.agent, o.session) == (m.agent, m.session);
            let head = self.members.iter().find(|o| same_lane(o)).is_some_and(|o| o.ticket == m.ticket);
            let agent_running = self.members.iter().filter(|o| o.agent == m.agent && o.running).count();
            head && !m.running && !m.held && agent_running < AGENT_CAPS[m.agent]
        };
        self.members.iter().filter(may).map(|m| m.ticket).collect()
    }
}

/// One that waits for its instance has waited since it came: how long is asked by alerts.
#[test]
fn one_that_gives_its_turn_back_keeps_its_place_and_its_age() {
    let mut lanes = Lanes::new(LIMITS);
    let first = lanes.enqueue(key(0, 0), at(0)).expect("room").ticket;
    let second = lanes.enqueue(key(0, 0), at(1)).expect("room").ticket;
    assert_eq!(lanes.start_next(at(5)), Some(first));
    lanes.park(first);
    assert_eq!((lanes.start_next(at(7)), lanes.queued()), (None, 2), "nobody goes before it");
    assert_eq!(lanes.oldest_age(at(10)), Duration::from_secs(10));
    lanes.release(first);
    assert_eq!(lanes.start_next(at(11)), Some(first));
    lanes.leave(first, at(12));
    assert_eq!(lanes.start_next(at(12)), Some(second));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("PLIMSOLL_SOAK").is_some() { 20_000 } else { 256 }
    ))]

    /// Order in each lane, one running per lane, caps, counts, nothing lost, and a bounded wait: whoever could run is
    /// passed over at most once by each of the 12 lanes.
    #[test]
    fn the_scheduler_does_what_the_model_does(steps in steps()) {
        let mut lanes = Lanes::new(LIMITS);
        for (agent, cap) in AGENT_CAPS.into_iter().enumerate() {
            lanes.cap_agent(&key(agent, 0).agent, cap);
        }
        let mut model = Model::default();
        for (second, step) in (0_u64..).zip(steps) {
            match step {
                Step::Enqueue { agent, session } => {
                    let depth = model.depth(agent, session);
                    match lanes.enqueue(key(agent, session), at(second)) {
                        Ok(queued) => {
                            prop_assert!(depth < LIMITS.lane_depth_max && model.waiting() < LIMITS.queued_max);
                            let ahead = model.members.iter()
                                .filter(|m| (m.agent, m.session) == (agent, session)).count();
                            prop_assert_eq!(queued.ahead, ahead);
                            model.members.push(Member {
                                ticket: queued.ticket, agent, session, running: false, held: false, passed_over: 0,
                            });
                        }
                        Err(Full::Lane { depth: said, .. }) => {
                            prop_assert_eq!(said, LIMITS.lane_depth_max);
                            prop_assert_eq!(depth, said);
                        }
                        Err(Full::Gateway { queued, .. }) => prop_assert_eq!(queued, model.waiting()),
                    }
                }
                Step::StartNext => {
                    let eligible = model.eligible();
                    let started = lanes.start_next(at(second));
                    prop_assert_eq!(started.is_some(), !eligible.is_empty());
                    if let Some(ticket) = started {
                        prop_assert!(eligible.contains(&ticket), "{ticket:?} had no right to run");
                        for member in &mut model.members {
                            if member.ticket == ticket {
                                member.running = true;
                            } else if eligible.contains(&member.ticket) {
                                member.passed_over += 1;
                                prop_assert!(member.passed_over <= 12, "{:?} starves", member.ticket);
                            }
                        }
                    }
                }
                Step::Leave(pick) if !model.members.is_empty() => {
                    let index = pick % model.members.len();
                    let member = model.members.remove(index);
                    let left = if member.running { Left::Running } else { Left::Waiting };
                    prop_assert_eq!(lanes.leave(member.ticket, at(second)), Some(left));
                    prop_assert_eq!(lanes.leave(member.ticket, at(second)), None);
                }
                Step::Leave(_) => {}
                Step::Park(pick) => {
                    let running: Vec<_> = model.members.iter_mut().filter(|m| m.running).collect();
                    let count = running.len();
                    if let Some(member) = running.into_iter().nth(pick % count.max(1)) {
                        (member.running, member.held, member.passed_over) = (false, true, 0);
                        lanes.park(member.ticket);
                    }
                }
                Step::Release(pick) => {
                    let held: Vec<_> = model.members.iter_mut().filter(|m| m.held).collect();
                    let count = held.len();
                    if let Some(member) = held.into_iter().nth(pick % count.max(1)) {
                        member.held = false;
                        lanes.release(member.ticket);
                    }
                }
            }
            prop_assert_eq!(lanes.queued(), model.waiting());
            prop_assert_eq!(lanes.running(), model.running());
            prop_assert_eq!(lanes.lanes(), model.lanes());
        }
    }

    /// Whatever went in comes out exactly once when everything is run to the end.
    #[test]
    fn nothing_is_lost_and_nothing_runs_twice(arrivals in prop::collection::vec((0..3_usize, 0..4_usize), 0..40)) {
        let mut lanes = Lanes::new(LIMITS);
        let mut accepted = Vec::new();
        for (agent, session) in arrivals {
            accepted.extend(lanes.enqueue(key(agent, session), at(0)).ok().map(|q| q.ticket));
        }
        let mut ran = Vec::new();
        while let Some(ticket) = lanes.start_next(at(0)) {
            ran.push(ticket);
            lanes.leave(ticket, at(0));
        }
        ran.sort();
        prop_assert_eq!(ran, accepted);
    }
}
