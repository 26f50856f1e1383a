//! Names of experiments: for humans and file names, never parsed back.

use std::collections::HashMap;

use super::{Axes, Identity};

/// The longest name: with the suffixes of result and log files it stays below the 255 bytes a file name may have.
const LONGEST: usize = 180;

/// `{model}_tp{N}_quant-{q}_eager-{bool}` with `/` written as `_`.
pub fn experiment_name(axes: &Axes) -> String {
    let tail = format!(
        "_tp{}_quant-{}_eager-{}",
        axes.tensor_parallel_size,
        sanitize(axes.quantization_label()),
        axes.enforce_eager
    );
    let mut model = sanitize(&axes.model);
    model.truncate(LONGEST.saturating_sub(tail.len()));
    format!("{model}{tail}")
}

/// Replaces every character that is not a letter, digit, `.`, `-` or `_` by `_`, and a leading dot or dash too (a
/// hidden file, or a file that reads as a flag). The result is ASCII.
pub fn sanitize(text: &str) -> String {
    text.chars()
        .enumerate()
        .map(|(i, c)| match c {
            '.' | '-' if i == 0 => '_',
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') => c,
            _ => '_',
        })
        .collect()
}

/// Makes names unique: where several experiments share one, each gets the first digits of its identity.
pub(super) fn make_unique(names: &mut [(String, Identity)]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (name, _) in names.iter() {
        *seen.entry(name.clone()).or_default() += 1;
    }
    for (name, identity) in names.iter_mut() {
        if seen[name.as_str()] > 1 {
            *name = format!("{name}_{}", identity.short());
        }
    }
}
