//! Whether two samples differ: the Mann-Whitney test, which asks nothing of how times are
//! distributed, and the medians.

/// The middle value; of an even number of values the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        at(middle)
    } else {
        (at(middle.wrapping_sub(1)) + at(middle)) / 2.0
    }
}

/// How likely samples that differ as much as these, or more, are from one distribution
/// (two-sided; by the normal approximation, corrected for ties and continuity, which is good
/// from about eight values each on).
pub(crate) fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a
        .iter()
        .map(|value| (*value, true))
        .chain(b.iter().map(|value| (*value, false)))
        .collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties, mut below) = (0.0, 0.0, 0usize);
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        let size = group.len() as f64;
        // Equal values share the mean of their ranks.
        let rank = below as f64 + (size + 1.0) / 2.0;
        rank_sum += rank * group.iter().filter(|(_, of_a)| *of_a).count() as f64;
        ties += size * size * size - size;
        below += group.len();
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let total = n + m;
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance.is_nan() || variance <= 0.0 {
        return 1.0;
    }
    let distance = ((u - n * m / 2.0).abs() - 0.5).max(0.0);
    two_sided(distance / variance.sqrt())
}

/// How much of the normal distribution lies at least `z` deviations off, on both sides.
/// Abramowitz and Stegun, 7.1.26: right to 1.5e-7.
fn two_sided(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ];
    let sum = series.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    sum * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 2e-6, "{value} {expected}");
    }

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn the_normal_distributions_tails() {
        for (z, share) in [
            (0.0, 1.0),
            (1.0, 0.317_310_5),
            (1.959_964, 0.05),
            (2.575_829, 0.01),
            (4.0, 6.334e-5),
        ] {
            close(two_sided(z), share);
        }
    }

    #[test]
    fn published_examples() {
        // scipy.stats.mannwhitneyu's documentation, method="asymptotic".
        let males = [19.0, 22.0, 16.0, 29.0, 24.0];
        let females = [20.0, 11.0, 17.0, 12.0];
        close(mann_whitney(&males, &females), 0.111_346_9);
        close(mann_whitney(&females, &males), 0.111_346_9);
    }

    #[test]
    fn equal_samples_do_not_differ_and_separate_ones_do() {
        let low: Vec<f64> = (0..12).map(f64::from).collect();
        let high: Vec<f64> = (100..112).map(f64::from).collect();
        assert!(mann_whitney(&low, &low) > 0.9);
        assert!(mann_whitney(&[5.0; 12], &[5.0; 12]) > 0.9);
        assert!(mann_whitney(&low, &high) < 1e-4);
        assert!(mann_whitney(&[], &[]) > 0.9);
    }
}
