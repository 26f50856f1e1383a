//! The analysis as Markdown: what was chosen among what, with intervals, for a pull request or a wiki.

use std::fmt::Write as _;
use std::io::Write as _;

use super::analysis::requests_under;
use super::cells::reason;
use super::{Analysis, ExportError, Exporter, Format, Sink};
use crate::analyse::{Choice, Counts, Facts, Row, bases, mean_over_starts};
use crate::model::{Metric, VllmMetric};
use crate::report::answer::{Line, Told};
use crate::report::display::{configuration, counted, in_unit};
use crate::report::text::{banner, baseline_rule, status};

/// Markdown.
pub struct Markdown;

impl Exporter<Analysis<'_>> for Markdown {
    fn format(&self) -> Format {
        Format::one("markdown", "Markdown", "md")
    }

    fn write(&self, analysis: &Analysis<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(analysis).as_bytes())?)
    }
}

/// A cell of a table.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

fn render(analysis: &Analysis<'_>) -> String {
    let table = analysis.table;
    let counts = Counts::of(&table.rows);
    let runs: Vec<String> = std::iter::once(&table.facts)
        .chain(&table.more)
        .map(|facts: &Facts| format!("`{}`", cell(&facts.title())))
        .collect();
    let mut text = format!("# vllm-bench: {}\n\n", runs.join(", "));
    if let Some(banner) = banner(table) {
        let _ = writeln!(text, "**{banner}**\n");
    }
    let _ = writeln!(
        text,
        "{} of {} passed, {} failed, {} skipped by a rule.",
        counts.passed, counts.planned, counts.failed, counts.skipped
    );
    let (wanted, per_device) = (&analysis.wanted, analysis.wanted.per_device);
    let _ = writeln!(text, "\nBy {}, for each model and workload by itself.", cell(&wanted.objective(per_device)));
    if let Some(said) = wanted.about() {
        let _ = writeln!(text, "\n{}", cell(&said));
    }
    for told in Told::all(analysis) {
        let _ = writeln!(text, "\n## {}\n", cell(&told.title()));
        let mark = match told.found() {
            Some(found) => {
                let _ = writeln!(text, "**Use {}**\n", cell(&found.configuration()));
                for line in found.sentences().into_iter().chain(found.warnings()) {
                    let _ = writeln!(text, "{}\n", cell(&line));
                }
                head(&mut text, analysis, found.recommendation.per_device);
                found.options().for_each(|option| line(&mut text, analysis, option));
                "\n- excluded: "
            }
            None => {
                let _ = writeln!(text, "{}.\n", told.nothing());
                "- "
            }
        };
        for (name, why) in told.left_out() {
            let _ = writeln!(text, "{mark}{}: {}", cell(name), cell(why));
        }
    }
    speedups(&mut text, analysis);
    problems(&mut text, &table.rows);
    for bad in &table.unreadable {
        let _ = writeln!(text, "- does not count: `{}`: {}", cell(&bad.file), cell(&bad.reason));
    }
    text
}

/// The metrics beside the ranked one.
const BESIDE: [&str; 5] = ["output_tps_per_gpu", "output_tps_per_user", "mean_ttft_ms", "mean_tpot_ms", "speedup"];

fn head(text: &mut String, analysis: &Analysis<'_>, per_device: bool) {
    let wanted = &analysis.wanted;
    let mut columns = vec!["".to_owned(), "configuration".into(), "devices".into(), "starts".into()];
    columns.push(wanted.objective(per_device));
    columns.push("95 % interval".into());
    let beside = BESIDE.iter().filter(|key| **key != wanted.rank_by);
    columns.extend(beside.filter_map(|key| Metric::of(key)).map(|of| format!("{} ({})", of.label, of.unit.symbol())));
    columns.extend(["P99 TTFT (ms)".into(), "requests beyond".into(), "warnings".into()]);
    let rule =
        columns.iter().enumerate().map(|(i, _)| if (2..columns.len() - 1).contains(&i) { "---:" } else { "---" });
    let _ = writeln!(text, "| {} |\n| {} |", columns.join(" | "), rule.collect::<Vec<_>>().join(" | "));
}

fn line(text: &mut String, analysis: &Analysis<'_>, line: Line<'_, '_>) {
    let (option, wanted) = (line.option, &analysis.wanted);
    let shown = |value: Option<f64>, key: &str| {
        let unit = Metric::of(key).map(|of| of.unit);
        value.zip(unit).map_or_else(String::new, |(value, unit)| in_unit(value, unit))
    };
    let simulated = if option.row.simulated { "(simulated) " } else { "" };
    let mut cells = vec![
        line.mark.sign().to_owned(),
        cell(&format!("{simulated}{}", line.configuration)),
        line.devices().unwrap_or_default(),
        option.n.to_string(),
        line.value,
        line.interval,
    ];
    let beside = BESIDE.iter().filter(|key| **key != wanted.rank_by && Metric::of(key).is_some());
    cells.extend(beside.map(|key| shown(mean_of(analysis, option, key), key)));
    let p99 = VllmMetric::P99Ttft.key();
    let tail = mean_of(analysis, option, p99);
    cells.push(shown(tail, p99));
    let under = tail
        .filter(|_| option.measurements == 1)
        .and_then(|_| requests_under(option.row, p99))
        .and_then(|n| usize::try_from(n).ok());
    cells.push(under.map(|n| counted(n, "request")).unwrap_or_default());
    cells.push(cell(&option.warnings.iter().map(|warning| warning.text.clone()).collect::<Vec<_>>().join("; ")));
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// The mean over the starts of an option, as everywhere.
fn mean_of(analysis: &Analysis<'_>, option: &Choice<'_>, key: &str) -> Option<f64> {
    let rows: Vec<&Row> = analysis.table.rows.iter().filter(|row| row.stands() && row.is_of(option.row)).collect();
    mean_over_starts(&rows, key)
}

/// What speed-ups are over, for each model and workload.
fn speedups(text: &mut String, analysis: &Analysis<'_>) {
    let bases = bases(analysis.table, &analysis.wanted);
    let there = analysis.table.comparable().iter().any(|row| row.metric("speedup").is_some());
    if analysis.answers().is_empty() || !(there || bases.iter().any(|base| base.excluded.is_some())) {
        return;
    }
    text.push_str("\n## Speed-ups\n\nPer device, over the baseline of the same model and workload:\n\n");
    for base in &bases {
        let load = if base.workload.is_empty() { String::new() } else { format!(", at {}", base.workload) };
        let of = format!("{}{}", cell(base.model), cell(&load));
        if let Some(used) = &base.used {
            let _ = writeln!(text, "- {of}: {} ({})", cell(&configuration(used.row)), baseline_rule(used.rule));
        }
        if let Some(warning) = base.warning() {
            let _ = writeln!(text, "- **warning** {of}: {}", cell(&warning));
        }
    }
}

fn problems(text: &mut String, rows: &[Row]) {
    let without: Vec<&Row> = rows.iter().filter(|row| !row.is_valid() && !row.is_skipped()).collect();
    if without.is_empty() {
        return;
    }
    text.push_str("\n## Without a valid result\n\n");
    for row in without {
        let why = reason(&row.status);
        let why = if why.is_empty() { why } else { format!(": {}", cell(&why)) };
        let _ = writeln!(text, "- {} ({}){why}", cell(&row.name), cell(&status(row)));
    }
}
