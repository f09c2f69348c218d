//! A port of a bridge: a veth whose other end is in a namespace of the VMM's own, where a small bridge joins it to the tap.
//!
//! So the VMM is no more in the host's network than one with an isolated network, opens its tap in the same way, and takes all of it along
//! when it ends. Its namespace has no address: nothing in it can be reached, or reach anything, but by the guest's frames.

use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::isolated::make_veth;
use super::links::{Links, keep_tap, make_tap, set_sysctl};
use super::plan::{INNER_TAP, Kind, LinkRules, Listed, Record, UPLINK};
use super::space::Namespace;
use super::{HostNetwork, NetworkError, Steps};
use crate::instance::BridgedNetwork;

/// What joins tap and veth in the VMM's namespace.
const JOINT: &str = "rg-joint";

impl HostNetwork {
    /// Makes the port, and the bridge if it is managed and not there. Returns the namespace, which is gone with the last process in it. Runs
    /// in a thread of its own.
    pub(super) async fn make_bridged(
        &self,
        spec: &BridgedNetwork,
        record: &Record,
        alias: &str,
        owner: Option<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<Namespace, NetworkError> {
        let host = self.outer()?;
        let links = Links::connect()?;
        self.free_name(&links, &record.link, alias).await?;
        if links.route_of(spec.address).await?.is_some_and(|route| route.local) {
            let by = "is the host's own".to_owned();
            return Err(NetworkError::AddressTaken { address: spec.address, by });
        }
        let Some(LinkRules::Port(port)) = &record.rules else {
            return Err(NetworkError::Spec { why: "its record has no rules".to_owned() });
        };

        let entered = |source| NetworkError::from_io("make a network namespace", source);
        let namespace = Namespace::enter_new().map_err(entered)?;
        steps.reached("namespace made")?;
        let inner = Links::connect()?;
        let joint = make_inner_tap(&inner, owner).await?;
        steps.reached("tap made")?;

        // Held until the bridge has its port, lest another's last port takes the bridge with it.
        let mut held = self.table().await;
        host.enter().map_err(entered)?;
        let bridge = self.bridge(&links, spec, steps).await?;
        steps.reached("bridge there")?;
        // Nobody can send by an interface of this name before the rules say as whom.
        self.admit_port(&mut held, &record.link, port).await?;
        steps.reached("port rules set")?;
        let index = make_veth(&links, &record.link, alias, &namespace, steps).await?;
        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", record.link), "1", true)?;
        links.change(&record.link, index, |link| link.controller(bridge)).await?;
        if !spec.peers {
            links.isolate_port(&record.link, index).await?;
        }
        drop(held);
        steps.reached("port on bridge")?;
        links.change(&record.link, index, |link| link.up()).await?;
        let uplink = inner.index(UPLINK).await?;
        inner.change(UPLINK, uplink, |link| link.controller(joint).up()).await?;
        steps.reached("port up")?;
        Ok(namespace)
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

/// Makes the tap and what joins it to the veth, in the calling thread's namespace; index of the latter.
async fn make_inner_tap(inner: &Links, owner: Option<u32>) -> Result<u32, NetworkError> {
    for scope in ["all", "default"] {
        set_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1", true)?;
    }
    inner.add(JOINT, LinkBridge::new(JOINT).build()).await?;
    let joint = inner.index(JOINT).await?;
    inner.change(JOINT, joint, |link| link.up()).await?;
    let tap = make_tap(INNER_TAP)?;
    keep_tap(&tap, INNER_TAP, owner)?;
    drop(tap);
    let index = inner.index(INNER_TAP).await?;
    inner.change(INNER_TAP, index, |link| link.controller(joint).up()).await?;
    Ok(joint)
}
