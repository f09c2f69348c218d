//! A port of a bridge: a tap in the host's namespace.

use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::links::{Links, keep_tap, make_tap, set_sysctl};
use super::plan::{Kind, LinkRules, Listed, Record};
use super::{HostNetwork, NetworkError, Steps};
use crate::instance::BridgedNetwork;

impl HostNetwork {
    /// Makes the tap, and the bridge if it is managed and not there. Runs in a thread of its own.
    pub(super) async fn make_bridged(
        &self,
        spec: &BridgedNetwork,
        record: &Record,
        alias: &str,
        owner: Option<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<(), NetworkError> {
        let links = Links::connect()?;
        self.free_name(&links, &record.link, alias).await?;
        if links.route_of(spec.address).await?.is_some_and(|route| route.local) {
            let by = "is the host's own".to_owned();
            return Err(NetworkError::AddressTaken { address: spec.address, by });
        }
        // Held until the bridge has its port, lest another's last port takes the bridge with it.
        let mut held = self.table().await;
        let bridge = self.bridge(&links, spec, steps).await?;
        steps.reached("bridge there")?;

        // The tap's name may send as nobody else before there is a tap.
        let Some(LinkRules::Port(port)) = &record.rules else {
            return Err(NetworkError::Spec { why: "its record has no rules".to_owned() });
        };
        self.admit_port(&mut held, &record.link, port).await?;
        steps.reached("port rules set")?;

        // The tap is only kept once it says whose it is: until then the kernel removes it with our descriptor.
        let tap = make_tap(&record.link)?;
        steps.reached("tap made")?;
        let index = links.index(&record.link).await?;
        links.change(&record.link, index, |link| link.alias(alias)).await?;
        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", record.link), "1", true)?;
        links.change(&record.link, index, |link| link.controller(bridge)).await?;
        if !spec.peers {
            links.isolate_port(&record.link, index).await?;
        }
        steps.reached("tap on bridge")?;
        keep_tap(&tap, &record.link, owner)?;
        drop((tap, held));
        steps.reached("tap kept")?;
        links.change(&record.link, index, |link| link.up()).await?;
        steps.reached("tap up")
    }

    /// Index of the bridge.
    async fn bridge(
        &self,
        links: &Links,
        spec: &BridgedNetwork,
        steps: &mut Steps<'_>,
    ) -> Result<u32, NetworkError> {
        let name = &spec.bridge;
        let found = links.find(name).await?;
        let Some((address, prefix)) = spec.managed else {
            return match found {
                None => Err(NetworkError::NoBridge { bridge: name.clone() }),
                Some(link) if link.kind != Kind::Bridge => {
                    Err(NetworkError::NotABridge { bridge: name.clone() })
                }
                Some(link) => Ok(link.index),
            };
        };
        match found {
            Some(link) if !self.names().owns_bridge(&link) => {
                return Err(NetworkError::ForeignBridge { bridge: name.clone(), alias: link.alias });
            }
            Some(_) => {}
            None => {
                let mac = self.names().bridge_mac(name).to_vec();
                let message = LinkMessageBuilder::<LinkBridge>::new(name).address(mac).build();
                links.add(name, message).await?;
                steps.reached("bridge made")?;
            }
        }
        let index = links.index(name).await?;
        let alias = self.names().bridge_alias()?;
        links.change(name, index, |link| link.alias(alias)).await?;
        set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1", true)?;
        links.address(index, address, prefix).await?;
        links.change(name, index, |link| link.up()).await?;
        Ok(index)
    }

    /// Removes a managed bridge that has no port left.
    pub(super) async fn remove_unused_bridge(&self, links: &Links, name: &str) -> Result<(), NetworkError> {
        let all = links.list().await?;
        let ours = |link: &&Listed| link.name == name && self.names().owns_bridge(link);
        match all.iter().find(ours) {
            Some(bridge) if !all.iter().any(|port| port.master == Some(bridge.index)) => {
                links.remove(name, bridge.index).await
            }
            _ => Ok(()),
        }
    }
}
