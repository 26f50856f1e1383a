//! The settings of a row, and which of them tell it from others. Pure.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

use crate::model::Axes;

/// The grid values as tables show them. What a file does not say is absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShownAxes {
    /// Hugging Face id or path of the model.
    pub model: String,
    /// Devices over which each layer is split.
    pub tensor_parallel_size: Option<u32>,
    /// Quantization, `none` where vLLM's flag was left out.
    pub quantization: Option<String>,
    /// Whether vLLM ran without compiled graphs.
    pub enforce_eager: Option<bool>,
    /// The server's other keys that vary in the sweep, with their values.
    pub server: Vec<(String, String)>,
    /// The workload's keys that vary in the sweep, with their values.
    pub workload: Vec<(String, String)>,
}

impl From<&Axes> for ShownAxes {
    fn from(axes: &Axes) -> Self {
        Self {
            model: axes.model.clone(),
            tensor_parallel_size: Some(axes.tensor_parallel_size),
            quantization: Some(axes.quantization_label().to_owned()),
            enforce_eager: Some(axes.enforce_eager),
            server: axes.server.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            workload: axes.workload.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

impl ShownAxes {
    /// Of a model whose settings nobody recorded.
    pub fn of_model(model: String) -> Self {
        Self {
            model,
            tensor_parallel_size: None,
            quantization: None,
            enforce_eager: None,
            server: Vec::new(),
            workload: Vec::new(),
        }
    }

    /// What it is sorted by within one model: devices as numbers (16 after 2), no quantization first, eager first; unknown last.
    pub(super) fn order(&self) -> impl Ord + use<'_> {
        let quantization = self.quantization.as_deref();
        let others: Vec<Natural<'_>> =
            self.server.iter().chain(&self.workload).map(|(_, value)| Natural::of(value)).collect();
        (
            (self.tensor_parallel_size.is_none(), self.tensor_parallel_size),
            (quantization.is_none(), quantization != Some("none"), quantization),
            Reverse(self.enforce_eager),
            others,
        )
    }

    /// The workload's keys that vary, as one text: rows of different loads are never ranked against each other.
    pub fn workload_label(&self) -> String {
        let keys: Vec<String> = self.workload.iter().map(|(key, value)| format!("{key} {value}")).collect();
        keys.join(", ")
    }
}

/// A value in the order in which people count: numbers by size, then texts.
#[derive(Debug, PartialEq)]
enum Natural<'t> {
    Number(f64),
    Text(&'t str),
}

impl<'t> Natural<'t> {
    fn of(text: &'t str) -> Self {
        text.parse().map_or(Natural::Text(text), Natural::Number)
    }
}

impl Eq for Natural<'_> {}

impl Ord for Natural<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Natural::Number(a), Natural::Number(b)) => a.total_cmp(b),
            (Natural::Text(a), Natural::Text(b)) => a.cmp(b),
            (Natural::Number(_), Natural::Text(_)) => Ordering::Less,
            (Natural::Text(_), Natural::Number(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Natural<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// vLLM's flag.
pub const TP: &str = "tensor-parallel-size";
/// vLLM's flag.
pub const QUANTIZATION: &str = "quantization";
/// vLLM's flag.
pub const EAGER: &str = "enforce-eager";

/// The settings that have one value in all configurations, by vLLM's flags. The default is that nobody has looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed(Option<BTreeSet<String>>);

impl Fixed {
    /// What these have in common.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a ShownAxes>) -> Self {
        let mut first: Option<(&ShownAxes, BTreeSet<&str>)> = None;
        for axes in all {
            match &mut first {
                None => {
                    let keys = axes.server.iter().map(|(key, _)| key.as_str());
                    first = Some((axes, keys.chain([TP, QUANTIZATION, EAGER]).collect()));
                }
                // Most tables hold the same settings again and again.
                Some((known, _)) if *known == axes => {}
                Some((known, fixed)) => fixed.retain(|key| is_same(known, axes, key)),
            }
        }
        Self(Some(first.map(|(_, fixed)| fixed.into_iter().map(str::to_owned).collect()).unwrap_or_default()))
    }

    /// Whether a setting is the same everywhere; `false` where nobody has looked.
    pub fn has(&self, key: &str) -> bool {
        self.0.as_ref().is_some_and(|keys| keys.contains(key))
    }

    /// Whether somebody has looked.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }
}

fn is_same(a: &ShownAxes, b: &ShownAxes, key: &str) -> bool {
    fn value<'a>(axes: &'a ShownAxes, key: &str) -> Option<&'a str> {
        axes.server.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
    match key {
        TP => a.tensor_parallel_size == b.tensor_parallel_size,
        QUANTIZATION => a.quantization == b.quantization,
        EAGER => a.enforce_eager == b.enforce_eager,
        _ => value(a, key) == value(b, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(tp: u32, quantization: &str, seqs: Option<&str>) -> ShownAxes {
        ShownAxes {
            tensor_parallel_size: Some(tp),
            quantization: Some(quantization.to_owned()),
            enforce_eager: Some(false),
            server: seqs.map(|seqs| ("max-num-seqs".to_owned(), seqs.to_owned())).into_iter().collect(),
            ..ShownAxes::of_model("m".to_owned())
        }
    }

    #[test]
    fn what_varies_is_not_fixed_and_what_one_of_them_lacks_varies() {
        let fixed = Fixed::of(&[axes(1, "none", Some("8")), axes(2, "none", Some("8"))]);
        assert_eq!([TP, QUANTIZATION, EAGER, "max-num-seqs"].map(|key| fixed.has(key)), [false, true, true, true]);
        let fixed = Fixed::of(&[axes(1, "none", Some("8")), axes(1, "fp8", None)]);
        assert_eq!([TP, QUANTIZATION, EAGER, "max-num-seqs"].map(|key| fixed.has(key)), [true, false, true, false]);
        assert!(!Fixed::default().has(TP) && !Fixed::of([]).has(TP));
    }
}
