//! Rates and shares out of counters. Pure.

/// A counter that becomes a rate per second.
///
/// A counter that went down began again at zero (its process was restarted);
/// what it shows is then what was counted since. That is what Prometheus assumes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CounterRate {
    last: Option<(u64, f64)>,
}

impl CounterRate {
    /// Takes the counter as it stood at `at_ms` and returns the rate per second
    /// since the one before. None for the first, for one that is not newer than
    /// the last, and for what is not a count (NaN, infinite, negative).
    pub fn push(&mut self, at_ms: u64, count: f64) -> Option<f64> {
        if !count.is_finite() || count < 0.0 {
            return None;
        }
        let Some((last_ms, last)) = self.last else {
            self.last = Some((at_ms, count));
            return None;
        };
        if at_ms == last_ms {
            return None;
        }
        self.last = Some((at_ms, count));
        // None if the clock was set back; this reading is then a first one.
        let elapsed_ms = at_ms.checked_sub(last_ms)?;
        let counted = if count < last { count } else { count - last };
        Some(counted * 1_000.0 / elapsed_ms as f64)
    }
}

/// A 64-bit counter that wraps around, as the VMM's do, and becomes a rate per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrappingRate {
    last: Option<(u64, u64)>,
}

impl WrappingRate {
    /// As [`CounterRate::push`]. A step back of more than half the range is a
    /// wrap, of less a restart.
    pub fn push(&mut self, at_ms: u64, count: u64) -> Option<f64> {
        let Some((last_ms, last)) = self.last else {
            self.last = Some((at_ms, count));
            return None;
        };
        if at_ms == last_ms {
            return None;
        }
        self.last = Some((at_ms, count));
        let elapsed_ms = at_ms.checked_sub(last_ms)?;
        let counted = count.wrapping_sub(last);
        let counted = if counted > u64::MAX / 2 { count } else { counted };
        Some(counted as f64 * 1_000.0 / elapsed_ms as f64)
    }
}

/// CPU time of a VMM process that becomes the share of its virtual CPUs in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuShare {
    last: Option<(u64, u64)>,
}

/// The kernel counts the CPU time of a process in ticks of 10 ms in places; a
/// shorter stretch would measure those ticks.
const SHORTEST_STRETCH_MS: u64 = 50;

impl CpuShare {
    /// Takes the CPU time that the process had used by `at_ms` and returns the
    /// share of `vcpus` CPUs that it used since the reading before, 0 to 1 (the
    /// VMM's own threads may use more than the guest can: that is still 1). None
    /// for the first reading, one that follows too closely, and one that shows
    /// less than before (another process).
    pub fn push(&mut self, at_ms: u64, cpu_time_ns: u64, vcpus: u32) -> Option<f64> {
        let Some((last_ms, last_ns)) = self.last else {
            self.last = Some((at_ms, cpu_time_ns));
            return None;
        };
        if at_ms < last_ms || cpu_time_ns < last_ns {
            self.last = Some((at_ms, cpu_time_ns));
            return None;
        }
        let elapsed_ms = at_ms - last_ms;
        if elapsed_ms < SHORTEST_STRETCH_MS {
            return None;
        }
        self.last = Some((at_ms, cpu_time_ns));
        let available_ns = elapsed_ms as f64 * 1e6 * f64::from(vcpus.max(1));
        Some(((cpu_time_ns - last_ns) as f64 / available_ns).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_needs_two_readings_and_survives_a_restart() {
        let mut rate = CounterRate::default();
        assert_eq!(rate.push(1_000, 50.0), None);
        assert_eq!(rate.push(3_000, 150.0), Some(50.0));
        assert_eq!(rate.push(3_000, 160.0), None, "no time has passed");
        assert_eq!(rate.push(4_000, 30.0), Some(30.0), "began again at zero");
        assert_eq!(rate.push(5_000, f64::NAN), None);
        assert_eq!(rate.push(6_000, 30.0), Some(0.0));
        assert_eq!(rate.push(2_000, 40.0), None, "the clock was set back");
        assert_eq!(rate.push(3_000, 45.0), Some(5.0));
    }

    #[test]
    fn a_wrap_is_told_from_a_restart() {
        let mut rate = WrappingRate::default();
        assert_eq!(rate.push(0, u64::MAX - 4), None);
        assert_eq!(rate.push(1_000, 5), Some(10.0), "wrapped");
        assert_eq!(rate.push(2_000, 1_005), Some(1_000.0));
        assert_eq!(rate.push(3_000, 7), Some(7.0), "began again at zero");
        assert_eq!(rate.push(3_000, 8), None);
        assert_eq!(rate.push(1_000, 8), None, "the clock was set back");
        assert_eq!(rate.push(2_000, 9), Some(1.0));
    }

    #[test]
    fn a_share_is_of_the_virtual_cpus() {
        let mut cpu = CpuShare::default();
        assert_eq!(cpu.push(1_000, 5_000_000_000, 2), None);
        assert_eq!(cpu.push(1_020, 5_010_000_000, 2), None, "too close to tell");
        assert_eq!(cpu.push(2_000, 6_000_000_000, 2), Some(0.5));
        assert_eq!(cpu.push(3_000, 9_000_000_000, 2), Some(1.0), "VMM threads on top");
        assert_eq!(cpu.push(4_000, 1_000_000, 2), None, "another process");
        assert_eq!(cpu.push(5_000, 1_000_000, 2), Some(0.0));
    }

    proptest! {
        /// The rates times their spans add up to what was counted, restarts included.
        #[test]
        fn rates_lose_nothing(steps in proptest::collection::vec((1_u64..10_000, 0_u32..1_000, any::<bool>()), 1..50)) {
            let mut rate = CounterRate::default();
            let (mut at_ms, mut count, mut total, mut seen) = (0, 0.0, 0.0, 0.0);
            rate.push(at_ms, count);
            for (span_ms, more, restart) in steps {
                at_ms += span_ms;
                // A restart shows only if it ends up lower than before.
                if restart && f64::from(more) < count {
                    count = 0.0;
                }
                count += f64::from(more);
                total += f64::from(more);
                let per_second = rate.push(at_ms, count).unwrap();
                prop_assert!(per_second >= 0.0);
                seen += per_second * span_ms as f64 / 1_000.0;
            }
            prop_assert!((total - seen).abs() <= 1e-6 * total.max(1.0), "{total} counted, {seen} seen");
        }

        /// A share is a share, whatever the readings.
        #[test]
        fn shares_are_within_0_and_1(readings in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..50)) {
            let mut cpu = CpuShare::default();
            for (at_ms, ns, vcpus) in readings {
                if let Some(share) = cpu.push(at_ms, ns, vcpus) {
                    prop_assert!((0.0..=1.0).contains(&share));
                }
            }
        }
    }
}
