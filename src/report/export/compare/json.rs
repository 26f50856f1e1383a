//! A comparison for programs.

use std::io::Write;

use serde_json::{Value, json};

use super::super::{ExportError, Exporter, Format, Sink};
use super::{Compared, verdict, warnings};
use crate::analyse::Row;

/// For programs.
pub struct Json;

impl Exporter<Compared<'_>> for Json {
    fn format(&self) -> Format {
        Format::one("json", "For programs", "json")
    }

    fn write(&self, compared: &Compared<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(writeln!(out, "{:#}", json(compared))?)
    }
}

/// As JSON.
fn json(compared: &Compared<'_>) -> Value {
    let Compared { comparison, tables, environment, threshold, .. } = compared;
    let (before, after) = tables;
    let names = |rows: &[&Row]| -> Vec<String> { rows.iter().map(|row| row.name.clone()).collect() };
    json!({
        "verdict": verdict(comparison, *threshold),
        "outcome": comparison.outcome(),
        "note": compared.note(),
        "before": before.facts.run,
        "after": after.facts.run,
        "simulated": before.is_all_simulated(),
        "threshold": threshold,
        "environment": environment,
        "not_comparable": comparison.warnings,
        "configurations": comparison.matched.iter().map(|matched| json!({
            "name": matched.row.name, "model": matched.row.axes.model, "effects": matched.effects, "not_comparable": matched.not_comparable,
            "unmeasured": matched.unmeasured.iter().map(|(key, before, after)| json!({
                "metric": key, "before": before, "after": after,
            })).collect::<Vec<Value>>(),
        })).collect::<Vec<Value>>(),
        "failing": comparison.failing.iter().map(|failing| json!({
            "name": failing.row.name, "before": failing.before, "after": failing.after, "why": failing.why, "worse": failing.is_worse,
        })).collect::<Vec<Value>>(),
        "failing_requests": comparison.lost.iter().map(|lost| json!({
            "name": lost.row.name, "before": lost.before, "after": lost.after,
        })).collect::<Vec<Value>>(),
        "only_before": names(&comparison.missing),
        "only_after": names(&comparison.added),
        "warnings": warnings(*tables).into_iter().map(|(which, row, text)| json!({
            "run": which, "name": row.name, "warning": text,
        })).collect::<Vec<Value>>(),
        "worse": comparison.has_worse(),
    })
}
