//! A model of a set's load balancer: connections on endpoints. It ends with its daemon.

use std::collections::{BTreeMap, BTreeSet};

use regatta_core::machine::TrafficReading;

use crate::dice::Dice;

/// The load balancer of one set.
#[derive(Debug, Default)]
pub(crate) struct Lb {
    /// Ids that get new connections.
    pub(crate) endpoints: BTreeSet<u32>,
    /// Open connections.
    pub(crate) open: BTreeMap<u32, u32>,
    accepted: u64,
}

impl Lb {
    /// Connections come to endpoints and go everywhere.
    pub(crate) fn run(&mut self, dice: &mut Dice, sticky: bool, calm: bool) {
        for id in &self.endpoints {
            let new = dice.small(0..=2);
            *self.open.entry(*id).or_default() += new;
            self.accepted += u64::from(new);
        }
        for (id, open) in &mut self.open {
            let stays = sticky && !calm && !self.endpoints.contains(id);
            let most = (*open).min(if calm { 4 } else { 3 });
            *open -= if stays { 0 } else { dice.small(0..=most) };
        }
    }

    pub(crate) fn reading(&self) -> TrafficReading {
        let listed = |id: &u32, open: u32| self.endpoints.contains(id) || open > 0;
        let mut open: BTreeMap<u32, u32> =
            self.open.iter().filter(|&(id, &open)| listed(id, open)).map(|(id, open)| (*id, *open)).collect();
        for id in &self.endpoints {
            open.entry(*id).or_default();
        }
        TrafficReading { accepted: self.accepted, open, ..TrafficReading::default() }
    }

    /// Its VM has ended: connections break.
    pub(crate) fn cut(&mut self, id: u32) {
        self.open.remove(&id);
    }
}
