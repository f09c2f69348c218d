//! Which endpoint a new connection goes to. Pure.

use rand::RngExt;
use rand::rngs::SmallRng;

/// Chooses one of `count` endpoints by the power of two choices: two different
/// ones are drawn and the one with the lesser load wins.
///
/// Two random choices come close to the best balance without the herd that
/// "always the least loaded" makes of a new, empty endpoint.
///
/// `tried` holds the indices that are out of the question, ascending and each
/// once. None is returned when nothing else is left.
pub(crate) fn pick(
    count: usize,
    tried: &[usize],
    load: impl Fn(usize) -> u64,
    rng: &mut SmallRng,
) -> Option<usize> {
    debug_assert!(tried.is_sorted() && tried.iter().all(|&index| index < count));
    // A rank counts only what has not been tried.
    let index_of =
        |rank: usize| tried.iter().fold(rank, |index, &t| if t <= index { index + 1 } else { index });
    match count - tried.len() {
        0 => None,
        1 => Some(index_of(0)),
        left => {
            let first = rng.random_range(0..left);
            let second = (first + rng.random_range(1..left)) % left;
            let (first, second) = (index_of(first), index_of(second));
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn none_left_is_none() {
        let mut rng = SmallRng::seed_from_u64(1);
        assert_eq!(pick(0, &[], |_| 0, &mut rng), None);
        assert_eq!(pick(2, &[0, 1], |_| 0, &mut rng), None);
        assert_eq!(pick(3, &[0, 2], |_| 0, &mut rng), Some(1));
    }

    #[test]
    fn of_two_the_lesser_load_wins() {
        let mut rng = SmallRng::seed_from_u64(2);
        for _ in 0..100 {
            assert_eq!(pick(2, &[], |index| [5, 4][index], &mut rng), Some(1));
            assert_eq!(pick(4, &[1, 3], |index| [0, 9, 7, 9][index], &mut rng), Some(0));
        }
    }

    #[test]
    fn the_most_loaded_of_many_is_never_picked() {
        let mut rng = SmallRng::seed_from_u64(3);
        for _ in 0..10_000 {
            let picked = pick(10, &[], |index| u64::from(index == 7), &mut rng);
            assert_ne!(picked, Some(7));
        }
    }

    #[test]
    fn long_lived_connections_are_spread_evenly() {
        let mut rng = SmallRng::seed_from_u64(4);
        let mut open = [0_u64; 20];
        for _ in 0..20_000 {
            let index = pick(open.len(), &[], |index| open[index], &mut rng).unwrap();
            open[index] += 1;
        }
        let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
        assert!(most - least <= 10, "power of two choices leaves a gap of a few, got {open:?}");
    }

    proptest! {
        #[test]
        fn picks_what_exists_and_was_not_tried(
            count in 1_usize..40,
            tried in proptest::collection::btree_set(0_usize..40, 0..40),
            seed: u64,
        ) {
            let tried: Vec<usize> = tried.into_iter().filter(|&index| index < count).collect();
            let picked = pick(count, &tried, |_| 0, &mut SmallRng::seed_from_u64(seed));
            match picked {
                Some(index) => prop_assert!(index < count && !tried.contains(&index)),
                None => prop_assert_eq!(tried.len(), count),
            }
        }
    }
}
