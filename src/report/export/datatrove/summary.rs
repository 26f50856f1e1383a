//! What a sweep gained: `optimization_summary.csv`, and the table of it.

use std::io::{self, Write};

use crate::analyse::{BaselineRule, Basis, OVERALL, Optimized, RankingSpec, Tier};
use crate::report::columns::{self, Column};
use crate::report::display::{configuration, counted, cut};
use crate::report::page::{Page, Style, Tone};

/// The parameters of a choice, as the cluster sweep writes them.
fn parameters(tier: &Tier<'_>) -> String {
    if tier.parameters.is_empty() {
        return "(baseline is optimal)".into();
    }
    let all: Vec<String> = tier.parameters.iter().map(|(word, value)| format!("{word}={value}")).collect();
    all.join(", ")
}

/// Writes one line per model; where there are several loads, one per model and load, with the load behind the others. Where a baseline is excluded, the last column says so.
///
/// # Errors
/// When the writer refuses.
pub fn write(parts: &[String], optimized: &[Optimized<'_>], out: &mut dyn Write) -> io::Result<()> {
    let mut csv = ::csv::Writer::from_writer(out);
    let loads = optimized.iter().any(|found| !found.workload.is_empty());
    let mut names: Vec<String> = ["model", "baseline_tp", "baseline_tps"].map(str::to_owned).into();
    for part in parts {
        names.extend(["tps", "speedup", "params"].map(|what| format!("{part}_{what}")));
    }
    names.extend(loads.then(|| "workload".to_owned()));
    // That a smaller size does not work is no word against the baseline, whose size stands in the line.
    let warning = |found: &Optimized<'_>| found.warning.clone().filter(|_| !found.falls_back);
    let warned = optimized.iter().any(|found| warning(found).is_some());
    names.extend(warned.then(|| "baseline_warning".to_owned()));
    csv.write_record(&names)?;
    let number = |value: Option<f64>| value.map(|value| format!("{value:.6}")).unwrap_or_default();
    for found in optimized {
        let base = found.baseline.as_ref();
        let tp = base.and_then(|base| base.row.axes.tensor_parallel_size).map(|tp| tp.to_string());
        let mut fields = vec![found.model.to_owned(), tp.unwrap_or_default(), number(base.map(|base| base.tps))];
        for part in parts {
            let tier = found.tiers.iter().find(|tier| tier.name == *part);
            fields.push(number(tier.map(|tier| tier.tps)));
            fields.push(number(tier.and_then(|tier| tier.speedup)));
            fields.push(tier.filter(|_| base.is_some()).map(parameters).unwrap_or_default());
        }
        fields.extend(loads.then(|| found.workload.clone()));
        fields.extend(warned.then(|| warning(found).unwrap_or_default()));
        csv.write_record(&fields)?;
    }
    csv.flush()
}

/// The table: the best of all parts against the baseline.
pub fn render(optimized: &[Optimized<'_>], wanted: &RankingSpec) -> String {
    let mut page = Page::new(Style::PLAIN);
    if optimized.is_empty() {
        return page.finish();
    }
    page.heading("Optimization results");
    let about = wanted.about().map(|said| format!(" {said}")).unwrap_or_default();
    page.paragraph(2, "", Tone::Plain, &format!("Best by {}.{about}", wanted.objective(wanted.per_device)));
    page.gap();
    let loads = optimized.iter().any(|found| !found.workload.is_empty());
    let mut shape = vec![Column::text("Model")];
    shape.extend(loads.then(|| Column::text("Load")));
    shape.extend(["Base TP", "Base tps/gpu", "Best tps/gpu", "Speedup"].map(Column::metrics));
    shape.push(Column::text("Best parameters"));
    let absent = || "n/a".to_owned();
    let lines = optimized.iter().map(|found| {
        let base = found.baseline.as_ref();
        let best = found.tiers.iter().find(|tier| tier.name == OVERALL);
        let mut cells = vec![cut(found.model, 44)];
        cells.extend(loads.then(|| cut(&found.workload, 40)));
        let tp = base.and_then(|base| base.row.axes.tensor_parallel_size);
        cells.push(tp.map_or_else(absent, |tp| tp.to_string()));
        cells.push(base.map_or_else(absent, |base| format!("{:.0}", base.tps)));
        cells.push(best.map_or_else(absent, |best| format!("{:.0}", best.tps)));
        cells.push(best.and_then(|best| best.speedup).map_or_else(absent, |speedup| format!("{speedup:.2}x")));
        cells.push(
            best.filter(|_| base.is_some())
                .map_or_else(|| "(no baseline)".to_owned(), |best| cut(&parameters(best), 100)),
        );
        (Tone::Plain, cells)
    });
    columns::put(&mut page, &shape, lines.collect());
    page.gap();
    for found in optimized {
        note(&mut page, found);
        if let Some(warning) = &found.warning {
            page.paragraph(4, "! ", Tone::Warning, warning);
        }
    }
    page.finish()
}

/// What the baseline is, and how far the speed-up can be trusted.
fn note(page: &mut Page, found: &Optimized<'_>) {
    let load = if found.workload.is_empty() { String::new() } else { format!(", at {}", found.workload) };
    let Some(base) = &found.baseline else {
        let text = "no baseline: none is named or marked in the sweep, and no plain configuration has a valid result";
        page.paragraph(2, "- ", Tone::Warning, &format!("{}{load}: {text}", cut(found.model, 60)));
        return;
    };
    let rule = match base.rule {
        BaselineRule::Asked => "baseline (of `--baseline`)",
        BaselineRule::Sweep => "baseline of the sweep",
        BaselineRule::Plainest => "baseline (the first plain configuration of tp 1, 2, 4, 8)",
    };
    let mut text = format!("{}{load}: {rule}: {}", cut(found.model, 60), configuration(base.row));
    if let Some(best) = found.tiers.iter().find(|tier| tier.name == OVERALL) {
        text.push_str(&match (best.interval, best.basis) {
            (Some((low, high)), _) => format!("; speed-up {low:.2}x to {high:.2}x (95 %)"),
            (None, Basis::OneStart) => "; one start of each".to_owned(),
            (None, _) => String::new(),
        });
        if best.in_set > 0 {
            text.push_str(&format!("; {} may be the best as well", counted(best.in_set, "other")));
        }
        for warning in best.row.warnings() {
            text.push_str(&format!("; warning of the best: {}", cut(&warning.text, 200)));
        }
    }
    page.paragraph(2, "- ", Tone::Faint, &text);
}
