//! Times between tokens: kept one by one, and in classes of 0.05 % where there are too many.

use super::summary::Summary;

/// Times between tokens that are kept one by one.
pub(super) const MOST_GAPS: usize = 8 << 20;

/// Times between tokens in units of 100 ns: exact up to a number, then in classes.
#[derive(Debug)]
pub(super) struct Gaps {
    exact: Vec<u32>,
    most: usize,
    classes: Option<Vec<u64>>,
    count: u64,
    sum: f64,
    squares: f64,
}

/// Classes per doubling: 2^11, so that a class is at most 0.05 % wide.
const CLASS_BITS: u32 = 11;

impl Gaps {
    pub fn new(most: usize) -> Self {
        Self { exact: Vec::new(), most, classes: None, count: 0, sum: 0.0, squares: 0.0 }
    }

    pub fn add(&mut self, gaps: &[u32]) {
        self.count += gaps.len() as u64;
        for gap in gaps {
            let value = f64::from(*gap);
            self.sum += value;
            self.squares += value * value;
        }
        if self.classes.is_none() && self.exact.len() + gaps.len() > self.most {
            let mut classes = vec![0; class(u32::MAX) + 1];
            self.exact.drain(..).for_each(|gap| classes[class(gap)] += 1);
            self.exact = Vec::new();
            self.classes = Some(classes);
        }
        match &mut self.classes {
            Some(classes) => gaps.iter().for_each(|gap| classes[class(*gap)] += 1),
            None => self.exact.extend_from_slice(gaps),
        }
    }

    /// Whether there were too many to keep one by one.
    pub fn in_classes(&self) -> bool {
        self.classes.is_some()
    }

    pub fn summary(&mut self, percentiles: &[f64]) -> Summary {
        const MS: f64 = 1e-4;
        if let Some(classes) = &self.classes {
            let mean = self.sum / self.count as f64;
            let variance = (self.squares / self.count as f64 - mean * mean).max(0.0);
            let at = |which: f64| class_percentile(classes, self.count, which) * MS;
            return Summary {
                mean: mean * MS,
                median: at(50.0),
                std: variance.sqrt() * MS,
                percentiles: percentiles.iter().map(|which| (*which, at(*which))).collect(),
            };
        }
        self.exact.sort_unstable();
        let mut values: Vec<f64> = self.exact.iter().map(|gap| f64::from(*gap) * MS).collect();
        Summary::of(&mut values, percentiles)
    }
}

/// The class of a value: the value itself below 2^12, then 2^11 classes per doubling.
fn class(value: u32) -> usize {
    let bits = 32 - value.leading_zeros();
    let shift = bits.saturating_sub(CLASS_BITS + 1);
    ((shift as usize) << CLASS_BITS) + (value >> shift) as usize
}

/// The middle of a class.
fn class_value(class: usize) -> f64 {
    let shift = (class >> CLASS_BITS).saturating_sub(1) as u32;
    if class < 2 << CLASS_BITS {
        return class as f64;
    }
    let low = ((class - ((shift as usize) << CLASS_BITS)) as f64) * f64::from(1u32 << shift);
    low + (f64::from(1u32 << shift) - 1.0) / 2.0
}

fn class_percentile(classes: &[u64], count: u64, which: f64) -> f64 {
    let wanted = which / 100.0 * count.saturating_sub(1) as f64;
    let mut seen = 0;
    for (number, held) in classes.iter().enumerate() {
        seen += held;
        if *held > 0 && seen as f64 > wanted {
            return class_value(number);
        }
    }
    0.0
}
