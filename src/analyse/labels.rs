//! What the configurations of a table have in common, which is said once and left out of their labels. Pure.

use std::sync::Arc;

use indexmap::IndexMap;

use super::axes::{EAGER, Fixed, QUANTIZATION, TP};
use super::row::Row;
use super::setting::IRRELEVANT;
use super::table::RunTable;

impl RunTable {
    /// Finds out what its planned rows have in common, so that their labels leave it out.
    pub fn label(&mut self) {
        let planned = self.rows.iter().filter(|row| !row.is_skipped()).map(|row| &row.axes);
        let fixed = Arc::new(Fixed::of(planned));
        self.rows.iter_mut().for_each(|row| row.about.fixed = Arc::clone(&fixed));
    }

    /// The flags that all planned servers are given with the same value, by vLLM's names; where nobody recorded flags, the settings that
    /// are known.
    pub fn shared_settings(&self) -> Vec<(String, String)> {
        let mut planned = self.rows.iter().filter(|row| !row.is_skipped());
        let Some(first) = planned.next() else { return Vec::new() };
        let flags = |row: &Row| Arc::clone(&row.about.flags);
        let (mut last, mut shared): (_, IndexMap<String, String>) = (flags(first), (*first.about.flags).clone());
        for row in planned {
            if !Arc::ptr_eq(&last, &row.about.flags) {
                last = flags(row);
                shared.retain(|key, value| last.get(key) == Some(value));
            }
        }
        let known = |key: &str, value: Option<String>| {
            let is_fixed = first.about.fixed.has(key) && !first.about.flags.contains_key(key);
            value.filter(|_| is_fixed).map(|value| (key.to_owned(), value))
        };
        let quantization = first.axes.quantization.clone().filter(|value| value != "none");
        let eager = first.axes.enforce_eager.filter(|eager| *eager).map(|eager| eager.to_string());
        let of_axes = [
            known(TP, first.axes.tensor_parallel_size.map(|tp| tp.to_string())),
            known(QUANTIZATION, quantization),
            known(EAGER, eager),
        ];
        shared.retain(|key, _| !IRRELEVANT.contains(&key.as_str()));
        of_axes.into_iter().flatten().chain(shared).collect()
    }
}
