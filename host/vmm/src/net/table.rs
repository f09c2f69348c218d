//! The nftables table in the host's namespace: who is in it, and when it goes.
//!
//! To add an element is cheap; whatever removes something makes the kernel wait. So its rules are set once per process and not once per
//! instance.

use std::collections::{BTreeMap, BTreeSet};

use super::links::Links;
use super::plan::{self, Listed, PortRules, VethRules};
use super::{HostNetwork, NetworkError, nft, rules};

/// What this process knows about the table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Whether the table has all its rules, and no element but those of interfaces that are there.
    in_order: bool,
    /// Interfaces that have elements in it, with what they may do. Before the table is in order, there may be more.
    pub(super) users: BTreeMap<String, VethRules>,
    /// Whether the tables of bridges have all their rules.
    pub(super) ports_in_order: bool,
    /// Ports of bridges, under the same lock: those that a sweep found, and those that this process made, which a sweep leaves alone. None
    /// when nothing is known of one.
    pub(super) ports: BTreeMap<String, Option<PortRules>>,
}

impl HostNetwork {
    /// Gives an interface that is about to be made its place in the table.
    pub(super) async fn admit(
        &self,
        table: &mut Table,
        links: &Links,
        link: &str,
        may: VethRules,
    ) -> Result<(), NetworkError> {
        let name = self.names().table();
        let place = rules::outer_add(&name, link, may);
        let what = "set the rules of the host";
        // An interface of this name that went without being dismissed left its elements.
        let usual = table.in_order && !table.users.contains_key(link);
        if !usual || nft::apply(what, &place).await.is_err() {
            // First use, or someone else removed the table (a firewall that was loaded anew does so).
            table.in_order = false;
            let veths = self.veths(&links.list().await?);
            let members = match nft::list("ip", &name).await? {
                Some(listed) => rules::members(&listed).unwrap_or_default(),
                None => BTreeSet::new(),
            };
            let stale = members.difference(&veths).map(String::as_str);
            let mut script = rules::outer_rules(&name);
            script.push_str(&rules::outer_remove(&name, stale));
            // What others may do is not always known; that they are ours is.
            for veth in veths {
                let may = *table.users.entry(veth.clone()).or_default();
                script.push_str(&rules::outer_add(&name, &veth, may));
            }
            script.push_str(&place);
            nft::apply(what, &script).await?;
            table.in_order = true;
        }
        table.users.insert(link.to_owned(), may);
        Ok(())
    }

    /// Takes an interface that is gone out of the table; the table goes with its last one.
    pub(super) async fn dismiss(
        &self,
        table: &mut Table,
        links: &Links,
        link: &str,
    ) -> Result<(), NetworkError> {
        table.users.remove(link);
        let unused = table.users.is_empty() && self.veths(&links.list().await?).is_empty();
        let name = self.names().table();
        let script = if unused {
            table.in_order = false;
            rules::outer_drop(&name)
        } else {
            rules::outer_remove(&name, [link])
        };
        match nft::apply("remove the rules of the instance", &script).await {
            // Then there are no rules either.
            Err(NetworkError::NoNft) => Ok(()),
            Err(_) if nft::list("ip", &name).await?.is_none() => {
                table.in_order = false;
                Ok(())
            }
            other => other,
        }
    }

    /// Leaves only these interfaces in the table, and puts those in it that it lost; with none, the table goes. Returns what was removed, in
    /// words.
    pub(super) async fn sweep_table(
        &self,
        table: &mut Table,
        veths: BTreeMap<String, VethRules>,
    ) -> Result<Vec<String>, NetworkError> {
        let name = self.names().table();
        let listed = nft::list("ip", &name).await?;
        let mut removed = Vec::new();
        if veths.is_empty() {
            table.in_order = false;
            if listed.is_some() {
                nft::apply("remove the rules of the host", &rules::outer_drop(&name)).await?;
                removed.push(format!("table {name}"));
            }
        } else {
            let members = listed.and_then(|listed| rules::members(&listed)).unwrap_or_default();
            let stale: Vec<&str> =
                members.iter().map(String::as_str).filter(|member| !veths.contains_key(*member)).collect();
            let mut script = rules::outer_rules(&name) + &rules::outer_remove(&name, stale.iter().copied());
            let lost = veths.iter().filter(|(veth, _)| !members.contains(*veth));
            script.extend(lost.map(|(veth, may)| rules::outer_add(&name, veth, *may)));
            nft::apply("set the rules of the host", &script).await?;
            table.in_order = true;
            removed.extend(stale.iter().map(|name| format!("rules about {name}")));
        }
        table.users = veths;
        Ok(removed)
    }

    /// Names of our veths among these interfaces.
    fn veths(&self, links: &[Listed]) -> BTreeSet<String> {
        let ours = |link: &&Listed| {
            link.kind == plan::Kind::Veth
                && !link.is_port()
                && link.alias.as_ref().is_some_and(|alias| self.names().owner(alias).is_some())
        };
        links.iter().filter(ours).map(|link| link.name.clone()).collect()
    }
}
