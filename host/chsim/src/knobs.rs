//! The guest's settings, all on the kernel command line: the daemon that writes them cannot tell that nobody boots a
//! kernel. `ip=` and `hostname` are the real kernel's, `regatta.port` is the golden image's, `sim.*` are the model's.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use regatta_util::units;

use crate::random::SplitMix;

/// A time that is modelled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Distribution {
    Constant(Duration),
    Uniform(Duration, Duration),
    /// Mean.
    Exponential(Duration),
    /// Median and sigma of the logarithm.
    LogNormal(Duration, f64),
}

/// No modelled time is longer.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

impl Distribution {
    /// One value, never more than a day.
    pub(crate) fn sample(&self, random: &mut SplitMix) -> Duration {
        let seconds = match *self {
            Self::Constant(value) => return value.min(MAX_DURATION),
            Self::Uniform(low, high) => {
                low.as_secs_f64() + (high.as_secs_f64() - low.as_secs_f64()) * random.next_unit()
            }
            Self::Exponential(mean) => -mean.as_secs_f64() * (1.0 - random.next_unit()).ln(),
            Self::LogNormal(median, sigma) => median.as_secs_f64() * (sigma * random.next_normal()).exp(),
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_DURATION).min(MAX_DURATION)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let Some((name, arguments)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
            return parse_duration(text).map(Self::Constant);
        };
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        match (name, arguments.as_slice()) {
            ("uniform", [low, high]) => {
                let (low, high) = (parse_duration(low)?, parse_duration(high)?);
                if low <= high { Ok(Self::Uniform(low, high)) } else { Err("the lower end is above the upper".to_owned()) }
            }
            ("exp", [mean]) => parse_duration(mean).map(Self::Exponential),
            ("lognormal", [median, sigma]) => match sigma.parse::<f64>() {
                Ok(sigma) if (0.0..=5.0).contains(&sigma) => Ok(Self::LogNormal(parse_duration(median)?, sigma)),
                _ => Err(format!("sigma {sigma:?} is not a number from 0 to 5")),
            },
            _ => Err("expected a duration, `lognormal(<median>,<sigma>)`, `exp(<mean>)` or `uniform(<low>,<high>)`".to_owned()),
        }
    }
}

/// Reads `400ms`, `1.5s` or `2m`; at most a day.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = units::parse_duration(text).ok().filter(|duration| *duration <= MAX_DURATION);
    duration.ok_or_else(|| {
        format!("{text:?} is not a valid duration; write one such as `400ms`, `1.5s` or `2m`, at most a day")
    })
}

/// Something that goes wrong inside the guest. Times count from the moment the guest is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestFault {
    /// The service is up, and `/healthz` says 503 for ever.
    NeverHealthy,
    IgnorePowerButton,
    /// Booting takes this much longer.
    SlowBoot(Duration),
    /// The VMM process dies as if killed.
    CrashAfter(Duration),
    /// The guest stops doing anything; the VMM goes on.
    HangAfter(Duration),
    /// The guest's kernel panics.
    PanicAfter(Duration),
    /// The guest resets itself.
    ResetAfter(Duration),
    /// The guest powers itself off.
    PowerOffAfter(Duration),
}

impl GuestFault {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let after = |make: fn(Duration) -> Self, time: &str| parse_duration(time).map(make);
        match text.split_once('=') {
            None if text == "never-healthy" => Ok(Self::NeverHealthy),
            None if text == "ignore-power-button" => Ok(Self::IgnorePowerButton),
            None if text == "slow-boot" => Ok(Self::SlowBoot(Duration::from_secs(30))),
            Some(("slow-boot", time)) => after(Self::SlowBoot, time),
            Some(("crash-after", time)) => after(Self::CrashAfter, time),
            Some(("hang-after", time)) => after(Self::HangAfter, time),
            Some(("panic-after", time)) => after(Self::PanicAfter, time),
            Some(("reset-after", time)) => after(Self::ResetAfter, time),
            Some(("power-off-after", time)) => after(Self::PowerOffAfter, time),
            _ => Err("expected `never-healthy`, `ignore-power-button`, `slow-boot[=<time>]`, `crash-after=<time>`, \
                      `hang-after=<time>`, `panic-after=<time>`, `reset-after=<time>` or `power-off-after=<time>`"
                .to_owned()),
        }
    }
}

/// A parameter that could not be read; its default is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadKnob {
    parameter: String,
    problem: String,
}

impl fmt::Display for BadKnob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad kernel parameter {:?}: {}", self.parameter, self.problem)
    }
}

/// All settings of a guest.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Knobs {
    /// Address from `ip=`; a guest without one has no network service.
    pub(crate) address: Option<Ipv4Addr>,
    /// Length of the network's prefix, from the mask in `ip=`; without one that of the address's class.
    pub(crate) prefix: u8,
    /// From `ip=`.
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) hostname: String,
    pub(crate) port: u16,
    /// The last `console=`, which gets the boot log.
    pub(crate) console: String,
    pub(crate) boot: Distribution,
    pub(crate) shutdown: Distribution,
    pub(crate) service: Distribution,
    /// `None`: one per vCPU.
    pub(crate) workers: Option<usize>,
    /// Requests that may wait for a worker.
    pub(crate) queue: usize,
    /// `None`: from host name and address, so that each guest has its own.
    pub(crate) seed: Option<u64>,
    pub(crate) faults: Vec<GuestFault>,
}

/// Limits of the model.
const MAX_WORKERS: usize = 4096;
const MAX_QUEUE: usize = 65_536;

impl Default for Knobs {
    fn default() -> Self {
        Self {
            address: None,
            prefix: 32,
            gateway: None,
            hostname: "localhost".to_owned(),
            port: 8080,
            console: "ttyS0".to_owned(),
            boot: Distribution::LogNormal(Duration::from_millis(400), 0.3),
            shutdown: Distribution::Constant(Duration::from_millis(100)),
            service: Distribution::Constant(Duration::from_millis(20)),
            workers: None,
            queue: 64,
            seed: None,
            faults: Vec::new(),
        }
    }
}

impl Knobs {
    /// Reads a kernel command line. Every parameter that cannot be read is reported and keeps its default, as a
    /// kernel, too, boots on.
    pub(crate) fn parse(cmdline: &str) -> (Self, Vec<BadKnob>) {
        let mut knobs = Self::default();
        let mut bad = Vec::new();
        for parameter in cmdline.split_ascii_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if let Err(problem) = knobs.set(name, value) {
                bad.push(BadKnob { parameter: parameter.to_owned(), problem });
            }
        }
        (knobs, bad)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "ip" => self.set_ip(value)?,
            "console" => value.split(',').next().unwrap_or(value).clone_into(&mut self.console),
            "regatta.port" => self.port = number(value, 1, usize::from(u16::MAX))? as u16,
            "sim.boot" => self.boot = Distribution::parse(value)?,
            "sim.shutdown" => self.shutdown = Distribution::parse(value)?,
            "sim.service" => self.service = Distribution::parse(value)?,
            "sim.workers" => self.workers = Some(number(value, 1, MAX_WORKERS)?),
            "sim.queue" => self.queue = number(value, 0, MAX_QUEUE)?,
            "sim.seed" => {
                self.seed = Some(value.parse().map_err(|_| format!("{value:?} is not a 64-bit number"))?)
            }
            "sim.fault" => {
                for fault in value.split(',') {
                    self.faults.push(GuestFault::parse(fault)?);
                }
            }
            _ if name.starts_with("sim.") => {
                return Err("unknown; there are sim.boot, sim.shutdown, sim.service, sim.workers, sim.queue, sim.seed \
                            and sim.fault"
                    .to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// `ip=<client>:<server>:<gateway>:<mask>:<hostname>:<device>:<autoconf>`, fields may be empty or missing.
    fn set_ip(&mut self, value: &str) -> Result<(), String> {
        let mut fields = value.split(':');
        let client = fields.next().unwrap_or_default();
        if matches!(client, "" | "dhcp" | "on" | "any" | "off" | "none" | "bootp" | "rarp" | "both") {
            return match client {
                "off" | "none" => Ok(()),
                _ => Err("automatic configuration has nobody to answer it here; give an address".to_owned()),
            };
        }
        let address: Ipv4Addr = client.parse().map_err(|_| format!("{client:?} is not an IPv4 address"))?;
        let gateway = match fields.nth(1).unwrap_or_default() {
            "" => None,
            text => Some(text.parse().map_err(|_| format!("the gateway {text:?} is not an IPv4 address"))?),
        };
        let prefix = match fields.next().unwrap_or_default() {
            "" => class_prefix(address),
            text => prefix(text).ok_or_else(|| format!("the mask {text:?} is not a network mask"))?,
        };
        if let Some(hostname) = fields.next().filter(|hostname| !hostname.is_empty()) {
            hostname.clone_into(&mut self.hostname);
        } else {
            self.hostname = address.to_string();
        }
        (self.prefix, self.gateway) = (prefix, gateway);
        self.address = Some(address);
        Ok(())
    }
}

/// The length of the prefix that a mask in dotted notation stands for.
fn prefix(mask: &str) -> Option<u8> {
    let mask = mask.parse::<Ipv4Addr>().ok()?.to_bits();
    let ones = mask.leading_ones();
    (ones == mask.count_ones()).then_some(ones as u8)
}

/// What a kernel takes for the length of the prefix when no mask is given.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

fn number(text: &str, low: usize, high: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a number from {low} to {high}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_command_line_is_read() {
        let (knobs, bad) = Knobs::parse(
            "console=ttyS0 console=hvc0,115200 quiet ip=127.1.2.3::127.1.0.1:255.0.0.0:web-1:eth0:off regatta.port=9000 \
             sim.boot=lognormal(400ms,0.3) sim.service=exp(20ms) sim.workers=4 sim.queue=8 sim.seed=7 \
             sim.fault=crash-after=1.5s,ignore-power-button",
        );
        assert_eq!(bad, []);
        assert_eq!(knobs.address, Some(Ipv4Addr::new(127, 1, 2, 3)));
        assert_eq!((knobs.hostname.as_str(), knobs.port, knobs.console.as_str()), ("web-1", 9000, "hvc0"));
        assert_eq!(knobs.boot, Distribution::LogNormal(Duration::from_millis(400), 0.3));
        assert_eq!(
            knobs.faults,
            [GuestFault::CrashAfter(Duration::from_millis(1500)), GuestFault::IgnorePowerButton]
        );
        assert_eq!((knobs.workers, knobs.queue, knobs.seed), (Some(4), 8, Some(7)));
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let (knobs, bad) = Knobs::parse(
            "ip=dhcp sim.boot=fast sim.workers=0 sim.queue=-1 sim.seed=x sim.fault=explode sim.colour=red regatta.port=0",
        );
        assert_eq!(bad.len(), 8, "{bad:?}");
        assert_eq!(knobs, Knobs::default());
        assert!(bad[1].to_string().contains("sim.boot=fast"), "{}", bad[1]);
    }

    #[test]
    fn a_guest_with_a_short_ip_is_called_by_its_address() {
        let (knobs, _) = Knobs::parse("ip=127.0.0.9");
        assert_eq!(knobs.hostname, "127.0.0.9");
    }

    #[test]
    fn network_and_gateway_come_from_the_address_parameter() {
        let network = |ip: &str| {
            let (knobs, bad) = Knobs::parse(&format!("ip={ip}"));
            (knobs.prefix, knobs.gateway, bad.len())
        };
        let gateway = Some(Ipv4Addr::new(10, 88, 0, 1));
        assert_eq!(network("10.88.0.2::10.88.0.1:255.255.255.252:web:eth0:off"), (30, gateway, 0));
        assert_eq!(network("172.20.0.2"), (16, None, 0));
        assert_eq!(network("10.88.0.2:::255.0.255.0"), (32, None, 1));
        assert_eq!(network("10.88.0.2::nowhere"), (32, None, 1));
    }

    proptest! {
        #[test]
        fn parsing_is_total(line in "[ -~]{0,200}") {
            Knobs::parse(&line);
        }

        #[test]
        fn samples_are_bounded_and_repeatable(seed in any::<u64>(), sigma in 0.0..5.0f64) {
            let slow = Distribution::LogNormal(MAX_DURATION, sigma);
            let first = slow.sample(&mut SplitMix::new(seed));
            prop_assert!(first <= MAX_DURATION);
            prop_assert_eq!(first, slow.sample(&mut SplitMix::new(seed)));
        }
    }
}
