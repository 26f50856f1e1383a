//! The Pareto front that plots and the page draw.

use crate::model::Better;

/// The points that no other beats in both coordinates, from the best of the first coordinate to the worst; of equal points the first.
pub(super) fn front(points: &[(f64, f64)], (first, second): (Better, Better)) -> Vec<usize> {
    let gain = |value: f64, better: Better| match better {
        Better::Higher => value,
        Better::Lower => -value,
    };
    let gains: Vec<(f64, f64)> = points.iter().map(|(x, y)| (gain(*x, first), gain(*y, second))).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| gains[*b].0.total_cmp(&gains[*a].0).then(gains[*b].1.total_cmp(&gains[*a].1)));
    let mut best = f64::NEG_INFINITY;
    order.retain(|index| {
        let is_better = gains[*index].1 > best;
        best = best.max(gains[*index].1);
        is_better
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_beats_in_both_is_not_on_the_front() {
        // Latency and throughput.
        let points = [(10.0, 100.0), (20.0, 180.0), (20.0, 150.0), (30.0, 170.0), (40.0, 200.0), (10.0, 100.0)];
        assert_eq!(front(&points, (Better::Lower, Better::Higher)), [0, 1, 4]);
        // Two throughputs.
        assert_eq!(front(&points, (Better::Higher, Better::Higher)), [4]);
        assert_eq!(front(&[], (Better::Lower, Better::Lower)), Vec::<usize>::new());
    }
}
