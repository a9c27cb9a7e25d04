//! Measuring by rounds: every variant once a round, each round in another order, and what is
//! said of a variant is the median.

/// What a variant came to in each round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a round's.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle one, or what lies between the two in the middle; 0 where there is none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let at = |index: usize| self.0.get(index).copied().unwrap_or_default();
        match self.0.len() % 2 {
            0 if middle > 0 => (at(middle - 1) + at(middle)) / 2.0,
            _ => at(middle),
        }
    }

    /// The least.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The greatest.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

/// The order of `variants` in a round: each begins once in so many rounds, and in the next so
/// many the order is reversed, so that none always follows the same one.
pub fn order(round: usize, variants: usize) -> impl Iterator<Item = usize> {
    let reversed = variants > 0 && round / variants % 2 == 1;
    (0..variants).map(move |at| {
        let at = if reversed { variants - 1 - at } else { at };
        (at + round) % variants
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let samples = |values: &[f64]| {
            let mut samples = Samples::default();
            values.iter().for_each(|value| samples.push(*value));
            samples
        };
        assert_eq!(samples(&[]).median(), 0.0);
        assert_eq!(samples(&[3.0]).median(), 3.0);
        assert_eq!(samples(&[4.0, 1.0]).median(), 2.5);
        let three = samples(&[9.0, 1.0, 2.0]);
        assert_eq!((three.min(), three.median(), three.max()), (1.0, 2.0, 9.0));
    }

    #[test]
    fn a_round_has_every_variant_once_and_all_come_first_in_turn() {
        for variants in 1..6 {
            let mut firsts = std::collections::HashSet::new();
            for round in 0..variants {
                let mut seen: Vec<_> = order(round, variants).collect();
                firsts.insert(seen[0]);
                seen.sort_unstable();
                assert_eq!(seen, (0..variants).collect::<Vec<_>>());
            }
            assert_eq!(firsts.len(), variants, "{firsts:?}");
        }
    }
}
