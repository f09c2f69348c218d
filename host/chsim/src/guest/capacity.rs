//! The capacity model: so many workers, a bounded queue, a service time per request. Pure; time is an argument.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::Nanos;

/// Names one request from its arrival to its answer.
pub(crate) type Ticket = u64;

/// What became of a request on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Started,
    Queued,
    /// Workers and queue are full.
    Refused,
}

const BUCKET: Nanos = 100_000_000;
/// Buckets of the sliding window: one second.
const BUCKETS: usize = 10;

/// Workers, queue and what they did lately.
#[derive(Debug)]
pub(crate) struct Capacity {
    workers: usize,
    queue_limit: usize,
    busy: BinaryHeap<Reverse<(Nanos, Ticket)>>,
    waiting: VecDeque<(Ticket, Nanos)>,
    /// Worker-nanoseconds of work per bucket, a ring over bucket numbers.
    work: [Nanos; BUCKETS + 1],
    /// Up to when `work` is accounted for.
    accounted: Nanos,
}

impl Capacity {
    /// `workers` is at least 1.
    pub(crate) fn new(workers: usize, queue_limit: usize, now: Nanos) -> Self {
        Self {
            workers: workers.max(1),
            queue_limit,
            busy: BinaryHeap::new(),
            waiting: VecDeque::new(),
            work: [0; BUCKETS + 1],
            accounted: now,
        }
    }

    /// A request arrives that will keep a worker busy for `service`.
    pub(crate) fn offer(&mut self, now: Nanos, ticket: Ticket, service: Nanos) -> Offer {
        self.account(now);
        if self.busy.len() < self.workers {
            self.busy.push(Reverse((now.saturating_add(service), ticket)));
            Offer::Started
        } else if self.waiting.len() < self.queue_limit {
            self.waiting.push_back((ticket, service));
            Offer::Queued
        } else {
            Offer::Refused
        }
    }

    /// When the next request is done.
    pub(crate) fn next_completion(&self) -> Option<Nanos> {
        self.busy.peek().map(|Reverse((done, _))| *done)
    }

    /// Takes the requests that are done by `now`, in the order in which they got done. Those that waited start at the
    /// moment a worker became free, not at `now`.
    pub(crate) fn complete(&mut self, now: Nanos) -> Vec<Ticket> {
        let mut done = Vec::new();
        while let Some(Reverse((at, ticket))) = self.busy.peek().copied()
            && at <= now
        {
            self.account(at);
            self.busy.pop();
            done.push(ticket);
            if let Some((next, service)) = self.waiting.pop_front() {
                self.busy.push(Reverse((at.saturating_add(service), next)));
            }
        }
        self.account(now);
        done
    }

    /// Requests being worked on and waiting.
    pub(crate) fn in_flight(&self) -> usize {
        self.busy.len() + self.waiting.len()
    }

    /// Requests waiting for a worker.
    pub(crate) fn queue_depth(&self) -> usize {
        self.waiting.len()
    }

    /// Share of the workers that were busy over the last second, `0.0..=1.0`.
    pub(crate) fn utilization(&mut self, now: Nanos) -> f64 {
        self.account(now);
        let current = now % BUCKET;
        let slots = BUCKETS as u64 + 1;
        let oldest = ((now / BUCKET + 1) % slots) as usize;
        // The oldest bucket counts for what the current one is still short of.
        let total: f64 = (self.work.iter().enumerate())
            .map(|(slot, work)| {
                let share = if slot == oldest { (BUCKET - current) as f64 / BUCKET as f64 } else { 1.0 };
                *work as f64 * share
            })
            .sum();
        (total / ((BUCKETS as u64 * BUCKET) as f64 * self.workers as f64)).clamp(0.0, 1.0)
    }

    /// Books the work of the busy workers since the last call.
    fn account(&mut self, now: Nanos) {
        let slots = self.work.len() as u64;
        let busy = self.busy.len() as u64;
        if now.saturating_sub(self.accounted) > slots * BUCKET {
            // Whatever came before fell out of the window.
            self.work = [busy * BUCKET; BUCKETS + 1];
            self.accounted = now - now % BUCKET;
            self.work[(now / BUCKET % slots) as usize] = 0;
        }
        while self.accounted < now {
            let bucket = self.accounted / BUCKET;
            let end = ((bucket + 1) * BUCKET).min(now);
            self.work[(bucket % slots) as usize] += busy * (end - self.accounted);
            self.accounted = end;
            if end.is_multiple_of(BUCKET) {
                self.work[(end / BUCKET % slots) as usize] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn workers_then_queue_then_refusal() {
        let mut capacity = Capacity::new(1, 1, 0);
        assert_eq!(capacity.offer(0, 1, 10 * MS), Offer::Started);
        assert_eq!(capacity.offer(0, 2, 10 * MS), Offer::Queued);
        assert_eq!(capacity.offer(0, 3, 10 * MS), Offer::Refused);
        assert!(capacity.complete(9 * MS).is_empty());
        assert_eq!(capacity.complete(30 * MS), [1, 2], "the second started when the first was done");
        assert_eq!(capacity.in_flight(), 0);
    }

    #[test]
    fn utilization_is_the_busy_share_of_a_second() {
        let mut capacity = Capacity::new(2, 0, 0);
        capacity.offer(0, 1, 1000 * MS);
        capacity.complete(1000 * MS);
        assert!((capacity.utilization(1000 * MS) - 0.5).abs() < 1e-9);
        assert!((capacity.utilization(1500 * MS) - 0.25).abs() < 1e-9);
        assert_eq!(capacity.utilization(60_000 * MS), 0.0);
        capacity.offer(60_000 * MS, 2, 60_000 * MS);
        capacity.offer(60_000 * MS, 3, 60_000 * MS);
        assert!((capacity.utilization(90_000 * MS) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn every_request_ends_exactly_once(
            workers in 1usize..5, queue in 0usize..5,
            arrivals in proptest::collection::vec((0u64..50, 0u64..100), 0..60),
        ) {
            let mut capacity = Capacity::new(workers, queue, 0);
            let (mut now, mut accepted, mut done) = (0, 0, 0);
            for (ticket, (gap, service)) in arrivals.into_iter().enumerate() {
                now += gap * MS;
                done += capacity.complete(now).len();
                prop_assert!(capacity.queue_depth() <= queue);
                if capacity.offer(now, ticket as u64, service * MS) != Offer::Refused {
                    accepted += 1;
                }
                prop_assert!((0.0..=1.0).contains(&capacity.utilization(now)));
                prop_assert_eq!(capacity.in_flight(), accepted - done);
            }
            done += capacity.complete(u64::MAX / 2).len();
            prop_assert_eq!(accepted, done);
        }
    }
}
