//! Who calls: the user at the other end of the Unix socket.

use std::fs;

/// Largest `/etc/passwd` that is read.
const PASSWD_LIMIT_BYTES: u64 = 4 << 20;

/// What a caller may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything.
    Viewer,
    /// Change sets and their policies.
    Operator,
    /// Change what all sets share.
    Admin,
}

impl Role {
    /// Its name: `viewer`, `operator` or `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The user at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As the audit trail names the caller: login name; `uid:1000` when the system
    /// knows none; `unknown` without credentials.
    pub name: String,
    /// User id; none without credentials.
    pub uid: Option<u32>,
    /// What the caller may do.
    pub role: Role,
}

impl Caller {
    /// The user with this id, looked up in `/etc/passwd`.
    #[must_use]
    pub fn of_uid(uid: u32, role: Role) -> Self {
        let passwd = match fs::metadata("/etc/passwd") {
            Ok(metadata) if metadata.len() <= PASSWD_LIMIT_BYTES => {
                fs::read("/etc/passwd").unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let name = name_in(&String::from_utf8_lossy(&passwd), uid);
        Self { name: name.unwrap_or_else(|| format!("uid:{uid}")), uid: Some(uid), role }
    }

    /// Nothing is known of the caller, who may only look.
    #[must_use]
    pub fn unknown() -> Self {
        Self { name: "unknown".to_owned(), uid: None, role: Role::Viewer }
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
