//! Versions of the API differ in status codes and limits; one table holds the differences.

use super::VmError;
use crate::config::ValidationError;

/// Which upstream version is stood in for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    V52,
    #[default]
    V53,
    /// Upstream's main branch after v53.
    Next,
}

/// One row per profile.
struct Row {
    build_version: &'static str,
    version: &'static str,
    body_limit_bytes: usize,
    not_created: u16,
    invalid: u16,
    duplicate: u16,
    unknown_device: u16,
}

const V52: Row = Row {
    build_version: "v52.0.0",
    version: "52.0.0",
    body_limit_bytes: 51_200,
    not_created: 500,
    invalid: 500,
    duplicate: 500,
    unknown_device: 500,
};
const V53: Row = Row { build_version: "v53.0.0", version: "53.0.0", not_created: 404, ..V52 };
const NEXT: Row = Row {
    build_version: "v54.0.0",
    version: "54.0.0",
    body_limit_bytes: 4 << 20,
    not_created: 404,
    invalid: 400,
    duplicate: 409,
    unknown_device: 404,
};

impl Profile {
    /// Every profile by the name that `REGATTA_CHSIM_PROFILE` takes.
    pub(crate) const NAMES: [(&'static str, Self); 3] =
        [("v52", Self::V52), ("v53", Self::V53), ("next", Self::Next)];

    fn row(self) -> &'static Row {
        match self {
            Self::V52 => &V52,
            Self::V53 => &V53,
            Self::Next => &NEXT,
        }
    }

    /// `(build_version, version)` as `vmm.ping` has them.
    pub(crate) fn versions(self) -> (&'static str, &'static str) {
        (self.row().build_version, self.row().version)
    }

    /// Largest body of a request, bytes.
    pub(crate) fn body_limit_bytes(self) -> usize {
        self.row().body_limit_bytes
    }

    /// The HTTP status of a failed call.
    pub(crate) fn status(self, error: &VmError) -> u16 {
        let row = self.row();
        match error {
            VmError::NotCreated | VmError::MissingConfig => row.not_created,
            VmError::VcpusLeaving => 429,
            VmError::Validation(ValidationError::IdentifierNotUnique(_)) => row.duplicate,
            VmError::Validation(_) => row.invalid,
            VmError::UnknownDevice(_) => row.unknown_device,
            _ => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_differ_by_profile() {
        let duplicate = VmError::Validation(ValidationError::IdentifierNotUnique("a".into()));
        let cases = [
            (VmError::NotCreated, [500, 404, 404]),
            (VmError::NotRunning, [500, 500, 500]),
            (VmError::Validation(ValidationError::ConsoleFileMissing), [500, 500, 400]),
            (duplicate, [500, 500, 409]),
            (VmError::VcpusLeaving, [429, 429, 429]),
        ];
        for (error, statuses) in cases {
            assert_eq!(
                [Profile::V52, Profile::V53, Profile::Next].map(|profile| profile.status(&error)),
                statuses,
                "{error}"
            );
        }
    }
}
