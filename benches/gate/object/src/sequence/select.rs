//! Selects sequences, one after the other: of those that look best by where the dispatches now
//! begin and end, the one that in fact saves the most. Then those are given up that save less
//! than another would.

use super::code::{Code, Node};
use dynencap_vm::LONGEST_SEQUENCE;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Places executed one after the other, as they stand.
pub(super) type Run = Vec<usize>;

/// How many are tried of those that look best: the estimate does not see that a new border
/// between two dispatches moves those behind it.
const TRIED: usize = 48;
/// When to stop exchanging: by then little is gained.
const EXCHANGES: usize = 200;

/// See the module.
pub(super) struct Selection<'a> {
    code: &'a Code,
    runs: &'a BTreeMap<Run, u64>,
    /// By node.
    chosen: Vec<bool>,
    /// How many instructions a dispatch takes, by place.
    lens: Vec<u8>,
    /// How many dispatches are left to the program's end, by place.
    left: Vec<u32>,
}

impl<'a> Selection<'a> {
    /// Selects up to `count` for these runs and their weights.
    pub(super) fn make(code: &'a Code, runs: &'a BTreeMap<Run, u64>, count: usize) -> Self {
        let mut selection = Self {
            code,
            runs,
            chosen: vec![false; code.nodes().len()],
            lens: vec![1; code.places.len()],
            left: vec![0; code.places.len() + 1],
        };
        selection.join();
        for _ in 0..count {
            if !selection.add() {
                break;
            }
        }
        selection.exchange();
        selection
    }

    /// What was selected.
    pub(super) fn chosen(&self) -> impl Iterator<Item = Node> {
        self.code.nodes().filter(|node| self.has(*node))
    }

    /// How many dispatches a run takes.
    pub(super) fn dispatches(&self, run: &[usize]) -> usize {
        self.borders(run).count()
    }

    fn has(&self, node: Node) -> bool {
        self.chosen.get(node.index()).copied().unwrap_or_default()
    }

    fn set(&mut self, node: Node, chosen: bool) {
        if let Some(place) = self.chosen.get_mut(node.index()) {
            *place = chosen;
        }
    }

    /// Where sequences begin and end now: as the vm joins instructions when it loads a program.
    fn join(&mut self) {
        for (at, place) in self.code.places.iter().enumerate().rev() {
            let mut best = (u32::MAX, 1);
            for (len, (node, behind)) in (1..).zip(&place.sequences) {
                let after = self.left.get(*behind).copied().unwrap_or_default();
                // Where both are as good, the longer.
                if (len == 1 || self.has(*node)) && after <= best.0 {
                    best = (after, len);
                }
            }
            if let (Some(left), Some(len)) = (self.left.get_mut(at), self.lens.get_mut(at)) {
                (*left, *len) = (best.0.saturating_add(1), best.1);
            }
        }
    }

    /// Where in a run dispatches begin.
    fn borders(&self, run: &[usize]) -> impl Iterator<Item = usize> {
        let len = |at: usize| Some(usize::from(*self.lens.get(*run.get(at)?)?));
        std::iter::successors(Some(0), move |at| Some(at + len(*at)?))
            .take_while(|at| *at < run.len())
    }

    /// All dispatches, weighed.
    fn cost(&self) -> u64 {
        let cost = |(run, weight): (&Run, &u64)| self.dispatches(run) as u64 * weight;
        self.runs.iter().map(cost).sum()
    }

    /// What it would cost with this one more, or without.
    fn cost_with(&mut self, node: Node, chosen: bool) -> u64 {
        let before = self.has(node);
        self.set(node, chosen);
        self.join();
        let cost = self.cost();
        self.set(node, before);
        cost
    }

    /// Those that look best: what each would save if all other borders stayed.
    fn candidates(&self) -> Vec<Node> {
        let mut saved: BTreeMap<Node, (u64, usize)> = BTreeMap::new();
        for (run, weight) in self.runs {
            let mut borders: Vec<usize> = self.borders(run).collect();
            borders.push(run.len());
            for (nth, begin) in borders.iter().enumerate() {
                for (fewer, end) in (1..).zip(borders.iter().skip(nth + 2)) {
                    let len = end - begin;
                    if len > LONGEST_SEQUENCE {
                        break;
                    }
                    let at = run.get(*begin).copied();
                    let node = at.and_then(|at| self.code.sequence(at, len));
                    if let Some(node) = node.filter(|node| !self.has(*node)) {
                        saved.entry(node).or_insert((0, len)).0 += weight * fewer;
                    }
                }
            }
        }
        let mut nodes: Vec<(Node, (u64, usize))> = saved.into_iter().collect();
        // Where both save as much, the shorter: it stands in more places.
        nodes.sort_by_key(|(node, (saved, len))| (Reverse(*saved), *len, *node));
        nodes.truncate(TRIED);
        nodes.into_iter().map(|(node, _)| node).collect()
    }

    /// Adds the best one; whether there was any.
    fn add(&mut self) -> bool {
        self.join();
        let before = self.cost();
        let mut best = (before, None);
        for node in self.candidates() {
            let cost = self.cost_with(node, true);
            if cost < best.0 {
                best = (cost, Some(node));
            }
        }
        if let Some(node) = best.1 {
            self.set(node, true);
        }
        self.join();
        best.1.is_some()
    }

    /// Gives up the one that saves the least for the best there is, as long as that gains.
    fn exchange(&mut self) {
        for _ in 0..EXCHANGES {
            let before = self.cost();
            let chosen: Vec<Node> = self.chosen().collect();
            let costs: Vec<u64> = chosen
                .iter()
                .map(|node| self.cost_with(*node, false))
                .collect();
            let Some((_, worst)) = costs.iter().zip(&chosen).min() else {
                return;
            };
            self.set(*worst, false);
            if !self.add() || self.cost() >= before {
                // What came in its place is worth no more.
                self.restore(&chosen);
                return;
            }
        }
    }

    fn restore(&mut self, chosen: &[Node]) {
        self.chosen.fill(false);
        for node in chosen {
            self.set(*node, true);
        }
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dynencap_vm::Listed;

    /// A program of one-slot instructions, each a letter; `.` leads elsewhere.
    fn code(programs: &[&str]) -> Code {
        let listed = |step: char| Listed {
            step: step.to_string(),
            slots: 1,
            goes_on: step != '.',
        };
        let programs = programs.iter().zip('a'..).map(|(steps, name)| {
            let listing = steps.chars().map(listed).collect();
            (name.to_string(), listing)
        });
        Code::of(programs.collect())
    }

    fn chosen(code: &Code, runs: &BTreeMap<Run, u64>, count: usize) -> Vec<String> {
        let selection = Selection::make(code, runs, count);
        let mut chosen: Vec<String> = selection
            .chosen()
            .map(|node| code.steps(node).concat())
            .collect();
        chosen.sort_unstable();
        chosen
    }

    #[test]
    fn a_run_is_cut_where_control_goes_elsewhere() {
        let code = code(&["ab.cd", "e"]);
        let executed = code.places("a", &[0, 1, 2, 3, 1]).unwrap();
        let straight = code.straight(&executed);
        assert_eq!(straight, [vec![0, 1, 2], vec![3], vec![1]]);
        assert_eq!(code.places("b", &[0]).unwrap(), [5]);
        assert!(code.places("c", &[0]).is_err());
    }

    #[test]
    fn what_is_executed_most_is_selected_first() {
        let code = code(&["abcd", "efgh"]);
        let runs = |weights: [u64; 2]| {
            let runs = [(0..4).collect(), (4..8).collect()];
            runs.into_iter().zip(weights).collect()
        };
        assert_eq!(chosen(&code, &runs([1, 2]), 1), ["efgh"]);
        assert_eq!(chosen(&code, &runs([2, 1]), 1), ["abcd"]);
        assert_eq!(chosen(&code, &runs([2, 1]), 9), ["abcd", "efgh"]);
    }

    #[test]
    fn equal_sequences_in_two_places_are_one() {
        let code = code(&["abx.", "yab.", "cdef."]);
        let runs = [((0..2).collect(), 1), ((5..7).collect(), 1)];
        let runs = BTreeMap::from(runs);
        assert_eq!(chosen(&code, &runs, 9), ["ab"]);
    }

    #[test]
    fn no_sequence_is_longer_than_the_longest() {
        let code = code(&["abcdefghijkl"]);
        let runs = BTreeMap::from([((0..12).collect(), 1)]);
        let selection = Selection::make(&code, &runs, 9);
        let lens = selection.chosen().map(|node| code.steps(node).len());
        assert!(lens.max().is_some_and(|len| len <= LONGEST_SEQUENCE));
        assert_eq!(selection.dispatches(&(0..12).collect::<Vec<_>>()), 2);
    }
}
