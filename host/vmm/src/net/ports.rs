//! The nftables tables about ports of bridges: who is in them, and when they go.

use std::collections::BTreeMap;

use super::links::Links;
use super::plan::{Listed, Owner, PortRules};
use super::table::Table;
use super::{HostNetwork, NetworkError, nft, port_rules};

impl HostNetwork {
    /// Gives an interface that is about to become a port its rules.
    pub(super) async fn admit_port(
        &self,
        table: &mut Table,
        link: &str,
        port: &PortRules,
    ) -> Result<(), NetworkError> {
        let name = self.names().table();
        let what = "set the rules of the bridge";
        let place = port_rules::add(&name, link, Some(port));
        if !table.ports_in_order || nft::apply(what, &place).await.is_err() {
            // First use, or someone else removed the tables. What a former daemon put into them stays.
            table.ports_in_order = false;
            let known = table.ports.iter().map(|(link, port)| port_rules::add(&name, link, port.as_ref()));
            let script = port_rules::rules(&name) + &known.collect::<String>() + &place;
            nft::apply(what, &script).await?;
            table.ports_in_order = true;
        }
        table.ports.insert(link.to_owned(), Some(port.clone()));
        Ok(())
    }

    /// Takes a port that is gone out of the tables; they go with the last one.
    pub(super) async fn dismiss_port(
        &self,
        table: &mut Table,
        links: &Links,
        link: &str,
        port: Option<&PortRules>,
    ) -> Result<(), NetworkError> {
        table.ports.remove(link);
        let name = self.names().table();
        let unused = table.ports.is_empty() && self.ports(&links.list().await?).next().is_none();
        let script = match port {
            _ if unused => port_rules::drop_tables(&name),
            Some(port) => port_rules::remove(&name, link, port),
            // Launched by a version without rules.
            None => return Ok(()),
        };
        table.ports_in_order &= !unused;
        match nft::apply("remove the rules of the instance's port", &script).await {
            // Then there are no rules either.
            Err(NetworkError::NoNft) => Ok(()),
            Err(_) if nft::list("bridge", &name).await?.is_none() => {
                table.ports_in_order = false;
                Ok(())
            }
            other => other,
        }
    }

    /// Makes the tables anew with these ports and no others; without any, they go. Returns what was removed, in words.
    pub(super) async fn sweep_ports(
        &self,
        table: &mut Table,
        ports: BTreeMap<String, Option<PortRules>>,
    ) -> Result<Vec<String>, NetworkError> {
        let name = self.names().table();
        let listed = nft::list("bridge", &name).await?;
        let mut removed = Vec::new();
        if ports.is_empty() {
            table.ports_in_order = false;
            if listed.is_some() {
                nft::apply("remove the rules of the bridge", &port_rules::drop_tables(&name)).await?;
                removed.push(format!("table {name} of bridges"));
            }
        } else {
            nft::apply("set the rules of the bridge", &port_rules::replace(&name, &ports)).await?;
            table.ports_in_order = true;
            let members = listed.and_then(|listed| super::rules::members(&listed)).unwrap_or_default();
            removed.extend(
                members
                    .iter()
                    .filter(|link| !ports.contains_key(*link))
                    .map(|link| format!("rules about {link}")),
            );
        }
        table.ports = ports;
        Ok(removed)
    }

    /// Our ports among these interfaces.
    fn ports<'a>(&self, links: &'a [Listed]) -> impl Iterator<Item = &'a Listed> {
        links.iter().filter(|link| {
            let owner = link.alias.as_ref().and_then(|alias| self.names().owner(alias));
            link.is_port() && matches!(owner, Some(Owner::Instance { .. }))
        })
    }
}
