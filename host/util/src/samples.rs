//! Measurements.

/// For each of these shares (0 to 1) the value that it of the samples does not exceed, by nearest rank; none of none.
pub fn percentiles<T: Copy + PartialOrd, const N: usize>(samples: &[T], shares: [f64; N]) -> Option<[T; N]> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let last = sorted.len().checked_sub(1)?;
    let rank = |share: f64| (share * sorted.len() as f64).ceil() as usize;
    Some(shares.map(|share| sorted[rank(share).saturating_sub(1).min(last)]))
}

/// One of [`percentiles`].
pub fn percentile<T: Copy + PartialOrd>(samples: &[T], share: f64) -> Option<T> {
    percentiles(samples, [share]).map(|[value]| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentiles(&samples, [0.0, 0.5, 0.99, 1.0]), Some([1, 50, 99, 100]));
        assert_eq!(percentile(&[7.0], 0.5), Some(7.0));
        assert_eq!(percentile::<u32>(&[], 0.5), None);
    }
}
