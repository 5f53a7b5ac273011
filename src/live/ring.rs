//! A ring of the last `N` facts that is written and read without a lock.
//!
//! A writer takes the next number and puts its fact into the slot of that number; a reader looks at every slot. Neither
//! ever waits for the other. A fact that is being written while somebody reads is either seen or not, never half.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

/// The last facts, numbered from 0.
pub(super) struct Ring<T> {
    slots: Box<[ArcSwapOption<Entry<T>>]>,
    pushed: AtomicU64,
}

struct Entry<T> {
    number: u64,
    fact: Arc<T>,
}

impl<T> Ring<T> {
    /// An empty ring that keeps `capacity` facts, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        let slots = (0..capacity.max(1)).map(|_| ArcSwapOption::empty()).collect();
        Self { slots, pushed: AtomicU64::new(0) }
    }

    /// Keeps `fact`; the oldest leaves if the ring is full.
    pub(super) fn push(&self, fact: Arc<T>) {
        let number = self.pushed.fetch_add(1, Ordering::AcqRel);
        let Some(slot) = self.slots.get(self.index_of(number)) else { return };
        let entry = Arc::new(Entry { number, fact });
        // A writer that was overtaken by a whole round must not put its older fact over a newer one.
        slot.rcu(|current| match current {
            Some(newer) if newer.number > number => Some(Arc::clone(newer)),
            Some(_) | None => Some(Arc::clone(&entry)),
        });
    }

    /// Facts pushed since the ring was made, those that left included.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Acquire)
    }

    /// The facts kept, newest first.
    pub(super) fn newest_first(&self) -> Vec<Arc<T>> {
        let mut entries: Vec<_> = self.slots.iter().filter_map(ArcSwapOption::load_full).collect();
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.number));
        // What a slow writer has yet to replace has left the ring already.
        let newest = entries.first().map_or(0, |entry| entry.number);
        let kept = self.slots.len() as u64;
        entries.retain(|entry| newest - entry.number < kept);
        entries.iter().map(|entry| Arc::clone(&entry.fact)).collect()
    }

    fn index_of(&self, number: u64) -> usize {
        usize::try_from(number % self.slots.len() as u64).expect("the remainder is less than a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(ring: &Ring<u64>) -> Vec<u64> {
        ring.newest_first().iter().map(|fact| **fact).collect()
    }

    #[test]
    fn the_oldest_leaves_when_one_more_than_fits_is_pushed() {
        for capacity in [1_u64, 200, 500] {
            let ring = Ring::new(usize::try_from(capacity).expect("small"));
            (0..capacity).for_each(|n| ring.push(Arc::new(n)));
            assert_eq!(kept(&ring), (0..capacity).rev().collect::<Vec<_>>());
            ring.push(Arc::new(capacity));
            assert_eq!(kept(&ring), (1..=capacity).rev().collect::<Vec<_>>());
            assert_eq!(ring.pushed(), capacity + 1);
        }
    }

    #[test]
    fn a_ring_asked_to_keep_nothing_keeps_one() {
        let ring = Ring::new(0);
        ring.push(Arc::new(1));
        ring.push(Arc::new(2));
        assert_eq!(kept(&ring), [2]);
    }

    /// Writers race over a tiny ring while a reader checks what it sees.
    #[test]
    fn readers_see_ordered_whole_rounds_while_writers_race() {
        let ring = Ring::new(8);
        let (writers, each) = (4, 20_000);
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| (0..each).for_each(|n| ring.push(Arc::new(n))));
            }
            while ring.pushed() < writers * each {
                assert!(kept(&ring).len() <= 8);
            }
        });
        assert_eq!(kept(&ring).len(), 8);
        assert_eq!(ring.pushed(), writers * each);
    }
}
