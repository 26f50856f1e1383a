//! Runs over time for the terminal.

use std::io::Write;

use super::super::{ExportError, Exporter, Format, Sink};
use super::History;
use crate::analyse::{Outcome, Past, Trend};
use crate::report::columns::{self, Column};
use crate::report::display::{counted, cut, in_unit, width};
use crate::report::page::{Page, Style, Tone};
use crate::report::text::SIMULATED;
use crate::report::trend;

/// For the terminal.
pub struct Text;

impl Exporter<History<'_>> for Text {
    fn format(&self) -> Format {
        Format::one("text", "For the terminal", "txt")
    }

    fn write(&self, history: &History<'_>, out: &mut Sink<'_>) -> Result<(), ExportError> {
        Ok(out.write_all(render(history, out.style()).as_bytes())?)
    }
}

fn render(history: &History<'_>, style: Style) -> String {
    let mut page = Page::new(style);
    page.title("vllm-bench · history", &cut(&history.place, 60));
    if history.runs.iter().all(|run| run.simulated || run.skipped.is_some())
        && history.runs.iter().any(|run| run.simulated)
    {
        page.paragraph(1, "!! ", Tone::Warning, SIMULATED);
    }
    if !history.asked {
        for run in history.runs.iter().rev() {
            page.gap();
            put_run(&mut page, run);
        }
    }
    for one in &history.trends {
        if history.asked {
            put_trend(&mut page, one, style);
        } else {
            put_short(&mut page, one);
        }
    }
    if history.others > 0 {
        page.gap();
        let text = format!("{} more: `--config` says which to show.", counted(history.others, "configuration"));
        page.paragraph(1, "", Tone::Faint, &text);
    }
    if history.asked {
        let skipped: Vec<_> = history.skipped().collect();
        if !skipped.is_empty() {
            page.heading("On no trend");
            for (run, why) in skipped {
                page.paragraph(2, "! ", Tone::Warning, &format!("{}: {}", cut(&run.facts.title(), 80), cut(why, 300)));
            }
        }
    }
    page.finish()
}

/// A run in a few lines.
fn put_run(page: &mut Page, run: &Past) {
    page.line(Tone::Heading, &cut(&run.facts.title(), 90));
    let counts = &run.counts;
    let tone = if counts.failed > 0 || counts.passed == 0 { Tone::Warning } else { Tone::Plain };
    let mut words = vec![trend::when(run, true), trend::version(run), trend::outcome(counts)];
    if run.simulated {
        words.push("SIMULATED".into());
    }
    if run.facts.live {
        words.push("going on now".into());
    }
    page.paragraph(3, "", tone, &words.join(" · "));
    if counts.planned > 0 {
        page.paragraph(3, "", Tone::Plain, &trend::plan(run));
    }
    match run.best.as_slice() {
        [] => {}
        [one] => page.paragraph(3, "best: ", Tone::Good, &trend::best(one)),
        several => several.iter().for_each(|one| {
            page.paragraph(3, "best: ", Tone::Good, &format!("{}: {}", cut(&one.group, 100), trend::best(one)));
        }),
    }
    if let Some(why) = &run.skipped {
        page.paragraph(3, "! ", Tone::Bad, &cut(why, 300));
    }
}

fn tone(trend: &Trend<'_>, difference: f64) -> Tone {
    match trend.outcome(difference) {
        Outcome::Better => Tone::Good,
        Outcome::Worse => Tone::Bad,
        Outcome::Same | Outcome::NotDecided => Tone::Plain,
    }
}

/// What a trend is of.
fn put_head(page: &mut Page, of: &Trend<'_>) {
    let runs = counted(of.points.len(), "run");
    page.heading(&cut(&format!("{} ({}) over {runs}", of.metric.label, of.metric.unit.symbol()), 90));
    page.paragraph(2, "", Tone::Plain, &trend::of(of));
    if of.row().is_some_and(|row| row.simulated) {
        page.paragraph(2, "!! ", Tone::Warning, "SIMULATED");
    }
    if let Some(why) = &of.apart {
        page.paragraph(2, "! ", Tone::Warning, &format!("a trend of its own: {}", cut(why, 300)));
    }
}

/// Changes and the newest run.
fn put_steps(page: &mut Page, of: &Trend<'_>) {
    for (index, step) in of.levels.steps.iter().enumerate() {
        let verdict = trend::verdict(of, step).to_uppercase();
        page.paragraph(2, "", tone(of, step.change), &format!("{verdict} {}", trend::step(of, index, step)));
    }
    if of.levels.steps.is_empty() {
        page.paragraph(2, "", Tone::Plain, &trend::no_change(of));
    }
    if let Some((outside, text)) = trend::newest(of) {
        page.paragraph(2, if outside { "! " } else { "" }, if outside { Tone::Warning } else { Tone::Plain }, &text);
    }
}

/// A trend below the list of runs.
fn put_short(page: &mut Page, of: &Trend<'_>) {
    put_head(page, of);
    put_steps(page, of);
}

/// A trend, run by run.
fn put_trend(page: &mut Page, of: &Trend<'_>, style: Style) {
    put_head(page, of);
    let workload = trend::workload(of);
    if !workload.is_empty() {
        page.paragraph(2, "", Tone::Faint, &workload);
    }
    page.gap();
    put_table(page, of, style.widest);
    page.gap();
    put_steps(page, of);
    if let Some(text) = trend::noise(of) {
        page.paragraph(2, "", Tone::Faint, &text);
    }
    const MOST: usize = 12;
    let others: Vec<_> = trend::other_changes(of).collect();
    for point in others.iter().rev().take(MOST).rev() {
        let text = format!("changed at {}: {}", cut(trend::called(point.run), 60), trend::changed(&point.changed));
        page.paragraph(2, "", Tone::Faint, &text);
    }
    if others.len() > MOST {
        page.paragraph(2, "", Tone::Faint, &format!("and changes at {} before", counted(others.len() - MOST, "run")));
    }
}

/// A column of the table of a trend.
struct Cells {
    title: &'static str,
    is_metric: bool,
    cells: Vec<String>,
}

/// Blanks between two columns, and before the first, as [`columns`] has them.
const GAP: usize = 3;
const INDENT: usize = 2;
/// Columns that a narrow terminal does without, the first to go first.
const DISPENSABLE: [&str; 4] = [COURSE, "Starts", "vLLM", "95 % interval"];
/// The values as places from left to right.
const COURSE: &str = "Course";
/// Places of it.
const PLACES: usize = 15;

fn put_table(page: &mut Page, of: &Trend<'_>, widest: usize) {
    let unit = of.metric.unit;
    let each = |cell: &dyn Fn(usize) -> String| (0..of.points.len()).map(cell).collect::<Vec<String>>();
    let point = |at: usize| &of.points[at];
    let step_at = |at: usize| of.levels.steps.iter().find(|step| step.at == at);
    let interval = |at: usize| {
        let of = point(at).estimate.interval;
        of.map_or_else(|| "-".to_owned(), |of| format!("{} to {}", in_unit(of.low, unit), in_unit(of.high, unit)))
    };
    let remark = |at: usize| match step_at(at) {
        Some(step) => format!("{} {}", trend::verdict(of, step), trend::percent(of.part(step.change))),
        None if !point(at).changed.is_empty() => "changed".to_owned(),
        None => String::new(),
    };
    let version = |at: usize| point(at).measured.row.about.vllm_version.as_deref().map_or("-".into(), |v| cut(v, 14));
    let column = |title, is_metric, cells| Cells { title, is_metric, cells };
    let mut all = vec![
        column("Run", false, each(&|at| cut(trend::called(point(at).run), 20))),
        column("Date", false, each(&|at| trend::when(point(at).run, false))),
        column("vLLM", false, each(&version)),
        column("Mean", true, each(&|at| in_unit(point(at).estimate.mean, unit))),
        column("95 % interval", true, each(&interval)),
        column("Starts", true, each(&|at| point(at).estimate.n.to_string())),
        column(COURSE, false, course(of)),
        column("", false, each(&remark)),
    ];
    // What is known of none.
    all.retain(|column| column.cells.iter().any(|cell| !cell.is_empty() && cell != "-"));
    let wide = |of: &Cells| of.cells.iter().map(|cell| width(cell)).max().unwrap_or(0).max(of.title.len());
    let total = |all: &[Cells]| INDENT + all.iter().map(|of| GAP + wide(of)).sum::<usize>() - GAP;
    for title in DISPENSABLE {
        if total(&all) > widest {
            all.retain(|column| column.title != title);
        }
    }
    let shape: Vec<Column> = all
        .iter()
        .map(|column| if column.is_metric { Column::metrics(column.title) } else { Column::text(column.title) })
        .collect();
    let line = |at: usize| {
        let tone = step_at(at).map_or(Tone::Plain, |step| tone(of, step.change));
        (tone, all.iter().map(|column| column.cells[at].clone()).collect())
    };
    columns::put(page, &shape, (0..of.points.len()).map(line).collect());
}

/// Each value as a place between the least and the largest, beside that of its level.
fn course(of: &Trend<'_>) -> Vec<String> {
    let means = || of.points.iter().map(|point| point.estimate.mean);
    let (low, high) = means().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place of fifteen"
    )]
    let place = |value: f64| match high > low {
        true => (((value - low) / (high - low)).clamp(0.0, 1.0) * (PLACES - 1) as f64).round() as usize,
        false => PLACES / 2,
    };
    let one = |(at, mean): (usize, f64)| {
        let mut cells = ['·'; PLACES];
        cells[place(of.level(of.levels.of(at)))] = '│';
        cells[place(mean)] = '●';
        cells.iter().collect()
    };
    means().enumerate().map(one).collect()
}
