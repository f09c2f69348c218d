//! Who calls: the user at the other end of the Unix socket.

use std::fs;

/// Largest `/etc/passwd` that is read.
const PASSWD_LIMIT_BYTES: u64 = 4 << 20;

/// The user at the other end of a connection, as the audit trail names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Login name; `uid:1000` when the system knows none; `unknown` without
    /// credentials.
    pub name: String,
}

impl Caller {
    /// The user with this id, looked up in `/etc/passwd`.
    #[must_use]
    pub fn of_uid(uid: u32) -> Self {
        let passwd = match fs::metadata("/etc/passwd") {
            Ok(metadata) if metadata.len() <= PASSWD_LIMIT_BYTES => {
                fs::read("/etc/passwd").unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let name = name_in(&String::from_utf8_lossy(&passwd), uid);
        Self { name: name.unwrap_or_else(|| format!("uid:{uid}")) }
    }

    /// Nothing is known of the caller.
    #[must_use]
    pub fn unknown() -> Self {
        Self { name: "unknown".to_owned() }
    }
}

/// The login name of a uid in the text of a passwd(5) file.
fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        (id == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_found_by_its_field_only() {
        let passwd =
            "# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\n:x:7:7::/:\nann:x:1000:7::/home/ann:\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(name_in(passwd, 7), None);
        assert_eq!(name_in(passwd, 1), None);
    }
}
