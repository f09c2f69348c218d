//! The copies of its state that a daemon makes by itself: how they are named, and which of them may go.

/// A copy, by its name: when it was made, and what the state was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyName {
    /// When it was made, Unix milliseconds.
    pub at_ms: u64,
    /// Number of the last commit that it holds.
    pub commit: u64,
}

impl CopyName {
    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("state-{}-{}.redb", self.at_ms, self.commit)
    }

    /// Reads the name of a file; none when it is not that of a copy.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let (at_ms, commit) = file_name.strip_prefix("state-")?.strip_suffix(".redb")?.split_once('-')?;
        Some(Self { at_ms: at_ms.parse().ok()?, commit: commit.parse().ok()? })
    }
}

/// Whether another copy says more than those that there are. A state without sets is not worth one: it may be what is left
/// of a loss, and must not push out what came before.
#[must_use]
pub fn is_due(copies: &[CopyName], commit: u64, has_sets: bool) -> bool {
    has_sets && copies.iter().max().is_none_or(|newest| newest.commit != commit)
}

/// The copies that may go when this many are kept: the oldest.
#[must_use]
pub fn surplus(copies: &[CopyName], kept: usize) -> Vec<CopyName> {
    let mut copies = copies.to_vec();
    copies.sort_unstable();
    copies.truncate(copies.len().saturating_sub(kept));
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(at_ms: u64, commit: u64) -> CopyName {
        CopyName { at_ms, commit }
    }

    #[test]
    fn names_are_read_back_and_others_are_not_copies() {
        let name = copy(1_795_444_267_250, 812);
        assert_eq!(name.file_name(), "state-1795444267250-812.redb");
        assert_eq!(CopyName::parse(&name.file_name()), Some(name));
        for other in ["state.redb", "state-1.redb", "state-1-2.redb.new", "state-1-x.redb", "mine-1-2.redb"] {
            assert_eq!(CopyName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_nothing_is_copied_twice() {
        let copies = [copy(30, 3), copy(10, 1), copy(20, 2)];
        assert_eq!(surplus(&copies, 2), [copy(10, 1)]);
        assert_eq!(surplus(&copies, 3), []);
        assert!(!is_due(&copies, 3, true), "the newest says it already");
        assert!(is_due(&copies, 2, true), "a state that was put back is another one");
        assert!(!is_due(&copies, 4, false));
        assert!(is_due(&[], 0, true));
    }
}
