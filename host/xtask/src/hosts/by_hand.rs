//! The bare ways to the same network, to compare with: by hand with `ip` and `nft`, and a namespace with nothing in it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regatta_util::percentile;
use serde_json::{Value, json};

use crate::figure::ms;

/// What makes everything that can be made before the link is there, then that which needs it. Each line it prints is awaited.
const INSIDE: &str = r#"
set -e
ip -batch - <<EOF
link set lo up
tuntap add rg-tap mode tap vnet_hdr
addr add 10.88.0.1/24 dev rg-tap
link set rg-tap up
EOF
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<EOF
table ip hand {
  chain prerouting {
    type nat hook prerouting priority dstnat
    iifname "uplink" ip daddr $1 dnat to 10.88.0.2
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname "rg-tap" ip saddr 169.254.213.1 masquerade
    oifname "uplink" snat to $1
  }
  chain forward {
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "uplink" oifname "rg-tap" ct status dnat accept
  }
}
EOF
echo made
read linked
ip -batch - <<EOF
addr add $1/32 dev uplink
link set uplink up
route add 169.254.213.1/32 dev uplink src $1
route add default via 169.254.213.1
EOF
echo done
read forever
"#;

/// The rules of the host, once for all.
const OUTSIDE: &str = r#"
table ip hand {
  set links { type ifname; }
  chain forward {
    type filter hook forward priority filter
    oifname @links ct state established,related accept
    oifname @links drop
    iifname @links ct state established,related accept
    iifname @links drop
  }
}
"#;

/// Times of `count` of each, one by one; and again as many are taken away.
pub(crate) fn measure(count: u8) -> Result<Value> {
    run("nft", &["-f", "-"], OUTSIDE)?;
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    let mut hands = Vec::new();
    for number in 1..=count {
        let start = Instant::now();
        hands.push(Hand::make(number)?);
        made.push(start.elapsed());
    }
    for hand in hands {
        let start = Instant::now();
        hand.remove()?;
        removed.push(start.elapsed());
    }
    run("nft", &["delete", "table", "ip", "hand"], "")?;

    let mut empty = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        run("unshare", &["--net", "true"], "")?;
        empty.push(start.elapsed());
    }
    let times = |took: &[Duration]| json!({ "p50": percentile(took, 0.5).map(ms), "p90": percentile(took, 0.9).map(ms) });
    Ok(json!({
        "network_by_hand_ms": {
            "what": "the same interfaces, addresses, routes and rules by a script: unshare, three ip -batch, two nft",
            "set_up": times(&made),
            "remove": times(&removed),
        },
        "empty_namespace_ms": { "what": "unshare --net true", "set_up": times(&empty) },
    }))
}

/// One network made by hand.
struct Hand {
    inside: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    link: String,
}

impl Hand {
    fn make(number: u8) -> Result<Self> {
        let (address, link) = (format!("10.214.0.{number}"), format!("hand{number}"));
        let mut inside = Command::new("unshare")
            .args(["--net", "sh", "-c", INSIDE, "sh", &address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let input = inside.stdin.take().context("stdin was piped")?;
        let output = BufReader::new(inside.stdout.take().context("stdout was piped")?);
        let mut hand = Self { inside, input, output, link };
        hand.wait_for("made")?;
        let (pid, link) = (hand.inside.id(), &hand.link);
        let links = format!(
            "link add {link} type veth peer name uplink netns {pid}\naddr add 169.254.213.1/32 dev {link}\n\
             link set {link} up\nroute add {address}/32 dev {link} src 169.254.213.1\n"
        );
        run("nft", &["-f", "-"], &format!("add element ip hand links {{ \"{link}\" }}\n"))?;
        run("ip", &["-batch", "-"], &links)?;
        hand.input.write_all(b"linked\n")?;
        hand.wait_for("done")?;
        Ok(hand)
    }

    fn wait_for(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line.trim() == word, "the script by hand did not come to \"{word}\"");
        Ok(())
    }

    fn remove(mut self) -> Result<()> {
        run("ip", &["link", "del", &self.link], "")?;
        run("nft", &["-f", "-"], &format!("delete element ip hand links {{ \"{}\" }}\n", self.link))?;
        drop(self.input);
        self.inside.wait()?;
        Ok(())
    }
}

fn run(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may be gone already; how it ended is looked at below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child.wait()?;
    ensure!(status.success(), "{program} {}: {status}", args.join(" "));
    Ok(())
}
