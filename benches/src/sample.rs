//! Rounds and what is told of them: in each round every variant is measured once, in a new
//! order, so that whatever disturbs the machine meets all of them; medians are told, and ratios
//! of what was measured in the same round.

use crate::Error;
use dynencap_kernel::Interrupt;

/// The middle of some samples, the middle half of them, and all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// A quarter is below.
    pub lower: f64,
    /// A quarter is above.
    pub upper: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub rounds: usize,
}

impl Summary {
    /// Of some samples; all zero without any.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else {
            return Self::default();
        };
        let quantile = |part: f64| {
            let at = part * last as f64;
            let (low, high) = (at.floor() as usize, at.ceil() as usize);
            let (low, high) = (sorted[low], sorted[high]);
            low + (high - low) * at.fract()
        };
        Self {
            median: quantile(0.5),
            lower: quantile(0.25),
            upper: quantile(0.75),
            min: sorted[0],
            max: sorted[last],
            rounds: sorted.len(),
        }
    }

    /// In another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            lower: self.lower * factor,
            upper: self.upper * factor,
            min: self.min * factor,
            max: self.max * factor,
            rounds: self.rounds,
        }
    }
}

/// Samples of each variant, round by round.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Vec<f64>>);

impl Samples {
    /// Measures each of `variants` once a round, in another order each time. The first round
    /// warms up and is not kept.
    pub fn take(
        variants: usize,
        rounds: usize,
        interrupt: &Interrupt,
        mut measure: impl FnMut(usize) -> Result<f64, Error>,
    ) -> Result<Self, Error> {
        let mut samples = vec![Vec::with_capacity(rounds); variants];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut order: Vec<usize> = (0..variants).collect();
        for round in 0..=rounds {
            shuffle(&mut order, &mut random);
            for &variant in &order {
                interrupt.check()?;
                let sample = measure(variant)?;
                if round > 0 {
                    samples[variant].push(sample);
                }
            }
        }
        Ok(Self(samples))
    }

    /// One variant's.
    #[must_use]
    pub fn summary(&self, variant: usize) -> Summary {
        Summary::of(&self.0[variant])
    }

    /// Of one variant's less another's, round by round.
    #[must_use]
    pub fn less(&self, variant: usize, other: usize) -> Summary {
        self.compared(variant, other, |one, other| one - other)
    }

    /// Of one variant's divided by another's, round by round.
    #[must_use]
    pub fn ratio(&self, variant: usize, other: usize) -> Summary {
        self.compared(variant, other, |one, other| one / other)
    }

    fn compared(&self, variant: usize, other: usize, with: fn(f64, f64) -> f64) -> Summary {
        let pairs = self.0[variant].iter().zip(&self.0[other]);
        let samples: Vec<f64> = pairs.map(|(&one, &other)| with(one, other)).collect();
        Summary::of(&samples)
    }
}

/// Fisher and Yates, with xorshift: the same order in every run.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        order.swap(last, (*random % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_the_sorted_samples() {
        let summary = Summary::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((summary.median, summary.min, summary.max), (3.0, 1.0, 5.0));
        assert_eq!((summary.lower, summary.upper), (2.0, 4.0));
        assert_eq!(Summary::of(&[1.0, 2.0]).median, 1.5);
        assert_eq!(Summary::of(&[]), Summary::default());
    }

    #[test]
    fn every_variant_is_measured_once_a_round_and_compared_in_its_round() {
        let mut calls = Vec::new();
        let mut number = 0.0;
        let samples = Samples::take(3, 4, &Interrupt::default(), |variant| {
            calls.push(variant);
            number += 1.0;
            Ok(number + 100.0 * variant as f64)
        })
        .unwrap();
        let mut orders = std::collections::BTreeSet::new();
        for round in calls.chunks(3) {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            orders.insert(round.to_vec());
        }
        assert!(orders.len() > 1, "{orders:?}");
        assert_eq!(samples.summary(0).rounds, 4);
        let less = samples.less(2, 0);
        assert!(less.min > 197.0 && less.max < 203.0, "{less:?}");
    }
}
