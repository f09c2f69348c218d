//! Texts about the host's networks and the guest's set-up.

use std::net::Ipv4Addr;

use super::super::outbound::Ipv4Net;
use super::super::problem::quote;
use super::{Complaint, complain, complain_with, list, lower_case_word, not_longer_than};
use crate::template::{self, VARIABLES};

const MAX_USER_DATA_BYTES: usize = 256 << 10;
const MAX_SSH_KEY_BYTES: usize = 16 << 10;

/// Reads an IPv4 address.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Complaint> {
    text.parse()
        .map_err(|_| Complaint { message: format!("{} is not an IPv4 address", quote(text)), hint: None })
}

/// Reads an address and a prefix length, 8 to 30.
pub(crate) fn host_address(text: &str) -> Result<(Ipv4Addr, u8), Complaint> {
    let hint = "for example `10.9.0.1/24`";
    let Some((address, prefix)) = text.split_once('/') else {
        return complain_with("has no prefix length", hint);
    };
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return complain_with(format!("{} is not an IPv4 address", quote(address)), hint);
    };
    let digits = !prefix.is_empty() && prefix.chars().all(|c| c.is_ascii_digit());
    let Some(prefix) = prefix.parse::<u8>().ok().filter(|_| digits) else {
        return complain_with(format!("{} is not a prefix length", quote(prefix)), hint);
    };
    if !(8..=30).contains(&prefix) {
        return complain(format!("the prefix length must be from 8 to 30, is {prefix}"));
    }
    Ok((address, prefix))
}

/// Reads a network: its first address and its prefix length, 8 to 30.
pub(crate) fn ipv4_network(text: &str) -> Result<(Ipv4Addr, u8), Complaint> {
    let (address, prefix) = host_address(text).map_err(|complaint| Complaint {
        hint: complaint.hint.map(|_| "for example `10.213.0.0/16`".to_owned()),
        ..complaint
    })?;
    let network = Ipv4Addr::from(u32::from(address) & (u32::MAX << (32 - u32::from(prefix))));
    if network != address {
        return complain_with(
            format!("{address} is not the first address of a /{prefix}"),
            format!("did you mean `{network}/{prefix}`?"),
        );
    }
    if address.is_multicast() || address.is_unspecified() || address.octets()[0] >= 240 {
        return complain("is not a network that hosts have addresses in");
    }
    Ok((address, prefix))
}

/// Reads a network that packets may go to: its first address and its prefix length, 0 to 32.
pub(crate) fn destination(text: &str) -> Result<Ipv4Net, Complaint> {
    let Some((address, prefix)) = text.split_once('/') else {
        return match text.parse::<Ipv4Addr>() {
            Ok(address) => complain_with("has no prefix length", format!("did you mean `{address}/32`?")),
            Err(_) => complain_with(format!("{} is not a network", quote(text)), "for example `10.0.0.0/8`"),
        };
    };
    let base = self::address(address)?;
    let digits = !prefix.is_empty() && prefix.chars().all(|c| c.is_ascii_digit());
    let Some(prefix) = prefix.parse::<u8>().ok().filter(|prefix| digits && *prefix <= 32) else {
        return complain_with(format!("{} is not a prefix length", quote(prefix)), "0 to 32");
    };
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let network = Ipv4Addr::from(u32::from(base) & mask);
    if network != base {
        return complain_with(
            format!("{base} is not the first address of a /{prefix}"),
            format!("did you mean `{network}/{prefix}`?"),
        );
    }
    Ok(Ipv4Net { base, prefix })
}

/// What the kernel takes as the name of an interface (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Result<(), Complaint> {
    if text.is_empty() || text.len() > 15 {
        return complain(format!("must have 1 to 15 bytes, has {}", text.len()));
    }
    if matches!(text, "." | "..") {
        return complain("is not the name of an interface");
    }
    if let Some(c) = text.chars().find(|&c| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        return complain(format!("must not contain {}", quote(&c.to_string())));
    }
    Ok(())
}

pub(super) fn disk_name(text: &str) -> Result<(), Complaint> {
    lower_case_word(text, '-', "data")?;
    // The length of a virtio disk's serial number.
    not_longer_than(text, 20)?;
    if matches!(text, "root" | "seed") || text.starts_with("net") {
        return complain(format!("`{text}` is a name that Regatta uses itself"));
    }
    Ok(())
}

pub(super) fn user_data(text: &str) -> Result<(), Complaint> {
    if text.len() > MAX_USER_DATA_BYTES {
        return complain(format!("must not be longer than {MAX_USER_DATA_BYTES} bytes, has {}", text.len()));
    }
    if text.contains('\0') {
        return complain("must not contain the character U+0000");
    }
    variables(text)
}

/// Names the first mark that cannot be replaced.
fn variables(text: &str) -> Result<(), Complaint> {
    let problems = template::check(text);
    let Some(first) = problems.first() else { return Ok(()) };
    let line = if text.contains('\n') { format!("in its line {}: ", first.line) } else { String::new() };
    let more = match problems.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    match &first.variable {
        Some(name) => complain_with(
            format!("{line}there is no variable {}{more}", quote(&format!("regatta.{name}"))),
            format!("there are {}; `$${{regatta.…}}` stands for itself", list(&VARIABLES)),
        ),
        None => complain_with(
            format!("{line}`${{regatta.` is not closed{more}"),
            "for example `${regatta.name}`; `$${regatta.…}` stands for itself",
        ),
    }
}

pub(super) fn ssh_key(text: &str) -> Result<(), Complaint> {
    let hint = "the line of a `.pub` file, for example `ssh-ed25519 AAAA… me@host`";
    if text.contains("PRIVATE KEY") {
        return complain_with("is a private key", hint);
    }
    if text.chars().any(char::is_control) {
        return complain_with("must be one line", hint);
    }
    if text.len() > MAX_SSH_KEY_BYTES {
        return complain(format!("must not be longer than {MAX_SSH_KEY_BYTES} bytes, has {}", text.len()));
    }
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let key = words.next().unwrap_or_default();
    let kind_legal = kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '.'));
    let key_legal =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    if !kind_legal || !key_legal {
        return complain_with("is not a public SSH key", hint);
    }
    Ok(())
}

pub(super) fn url(text: &str) -> Result<(), Complaint> {
    let hint = "for example `http://10.88.0.1/${regatta.name}/`";
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        return complain_with(format!("{} is not an http or https URL", quote(text)), hint);
    }
    if let Some(c) = text.chars().find(|&c| !c.is_ascii_graphic() || c == ';') {
        return complain_with(format!("must not contain {}", quote(&c.to_string())), hint);
    }
    // cloud-init appends the names of the files.
    if !text.ends_with('/') {
        return complain_with("must end with `/`", hint);
    }
    if text.len() > 200 {
        return complain(format!("must not be longer than 200 bytes, has {}", text.len()));
    }
    variables(text)
}
