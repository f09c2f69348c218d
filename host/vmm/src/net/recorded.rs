//! What the rules about interfaces are made of again after a restart: the records of the instances that live.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{LinkRules, PortRules, VethRules};
use super::read_record;
use super::table::Table;
use crate::instance::InstanceDir;

/// By interface; none for one that a version without such records made.
#[derive(Debug, Default)]
pub(super) struct Recorded(BTreeMap<String, Option<LinkRules>>);

impl Recorded {
    /// Of these instances. A record that cannot be read is left out, with a word. Blocking.
    pub(super) fn of(live: &[InstanceDir]) -> Self {
        let mut recorded = BTreeMap::new();
        for dir in live {
            match read_record(dir) {
                Ok(Some(record)) => drop(recorded.insert(record.link, record.rules)),
                Ok(None) => {}
                Err(error) => {
                    let instance = dir.path().display();
                    tracing::error!(%instance, %error, "unreadable network record: the instance is cut off")
                }
            }
        }
        Self(recorded)
    }

    /// What these veths may do: nothing, where nothing is known.
    pub(super) fn veths(&self, veths: BTreeSet<String>, table: &Table) -> BTreeMap<String, VethRules> {
        let rules = |veth: &String| match (table.users.get(veth), self.0.get(veth)) {
            (Some(known), _) => *known,
            (None, Some(Some(LinkRules::Veth(may)))) => *may,
            _ => VethRules::default(),
        };
        veths.into_iter().map(|veth| (veth.clone(), rules(&veth))).collect()
    }

    /// Who is behind these ports. Those of earlier versions are left out: they were made without rules.
    pub(super) fn ports(
        &self,
        ports: BTreeSet<String>,
        table: &Table,
    ) -> BTreeMap<String, Option<PortRules>> {
        let rules = |link: &String| match (table.ports.get(link), self.0.get(link)) {
            (Some(known), _) => Some(known.clone()),
            (None, Some(Some(LinkRules::Port(port)))) => Some(Some(port.clone())),
            (None, Some(None)) => None,
            (None, _) => Some(None),
        };
        ports.into_iter().filter_map(|link| Some((link.clone(), rules(&link)?))).collect()
    }
}
