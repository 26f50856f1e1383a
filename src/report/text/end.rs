//! What the end of a run shows: the one answer with its command, what failed and why, warnings, and where the rest is. It fits on a
//! screen; `detailed_analysis.txt` and `analyze` have all of it.

use indexmap::IndexMap;

use super::super::answer::{Found, Told};
use super::super::display::{configuration, counted, cut};
use super::super::export::Analysis;
use super::super::page::{Page, Style, Tone};
use super::metrics::noise;
use super::run_header::{banner, outcome};
use crate::analyse::{Counts, FailedAttempt, Row, RunTable, Status};
use crate::model::Cause;
use crate::record::layout;
use crate::words::shell;

/// Lines of the whole, what the run says after it (how to resume) included.
pub const MOST: usize = 30;
/// Lines that are left for what the run says after it.
const RESERVED: usize = 3;
/// Lines of failures that the answer leaves room for.
const FAILURES: usize = 6;
/// The same of warnings.
const WARNINGS: usize = 3;
/// A command of more lines is read in its script.
const COMMAND: usize = 9;
/// Configurations that are named for one cause.
const NAMED: usize = 3;

/// What the run itself knows.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The run as the user would name it in a command.
    pub run: &'a str,
    /// Its directory as the user would write it.
    pub directory: &'a str,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Whether all combinations that rules left out are named in [`layout::SKIPPED`].
    pub skips_kept: bool,
}

/// Renders it, in at most [`MOST`] lines less those that are left for the run.
pub fn end(analysis: &Analysis<'_>, ended: Ended<'_>, style: Style) -> String {
    let table = analysis.table;
    let counts = Counts::of(&table.rows);
    if ended.interrupted && counts.passed + counts.failed == 0 {
        return nothing_measured(&counts, ended, style);
    }
    let section = |put: &dyn Fn(&mut Page)| -> Vec<String> {
        let mut page = Page::new(style);
        put(&mut page);
        page.finish().lines().map(str::to_owned).collect()
    };
    let head = section(&|page| head(page, table, &counts, ended));
    let foot = section(&|page| foot(page, ended));
    let failures = section(&|page| failures(page, table));
    let warnings = section(&|page| warnings(page, table));
    let mut room = (MOST - RESERVED).saturating_sub(head.len() + foot.len());
    // The answer comes first, and leaves room for the beginning of the others.
    let repeats = section(&|page| repeats(page, table));
    let others = failures.len().min(FAILURES) + warnings.len().min(WARNINGS) + repeats.len();
    let answers = match repeats.as_slice() {
        [] => answers(analysis, ended, style, room.saturating_sub(others)),
        _ => Vec::new(),
    };
    room = room.saturating_sub(answers.len());
    let repeats = at_most(repeats, room, "of the repeats");
    room = room.saturating_sub(repeats.len());
    let warned = warnings.len().min(WARNINGS);
    let failures = at_most(failures, room.saturating_sub(warned), "failures");
    let warnings = at_most(warnings, room.saturating_sub(failures.len()), "warnings");
    let mut lines = [head, answers, repeats, failures, warnings, foot].concat();
    // One empty line tells sections apart.
    lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Where one configuration was measured again and again, there is nothing to choose: how its repeats differ is what was asked for.
fn repeats(page: &mut Page, table: &RunTable) {
    let rows = table.comparable();
    let mut planned = table.rows.iter().filter(|row| !row.is_skipped());
    let first = planned.next().map(|row| &row.identity);
    if rows.len() > 1 && planned.all(|row| Some(&row.identity) == first) {
        noise(page, table, &rows);
    }
}

/// The first lines, and that there are more.
fn at_most(mut lines: Vec<String>, most: usize, what: &str) -> Vec<String> {
    // An empty line and a heading say nothing alone.
    const LEAST: usize = 4;
    match lines.len() {
        all if all <= most => lines,
        _ if most < 2 => Vec::new(),
        _ if most < LEAST => vec![String::new(), format!("… {what} in {}", layout::ANALYSIS)],
        _ => {
            lines.truncate(most - 1);
            lines.push(format!("  … more {what} in {}", layout::ANALYSIS));
            lines
        }
    }
}

fn nothing_measured(counts: &Counts, ended: Ended<'_>, style: Style) -> String {
    let mut page = Page::new(style);
    let begun = counts.interrupted + counts.running;
    let begun = if begun > 0 { format!("; {begun} was under way") } else { String::new() };
    let text = format!("Interrupted: nothing was measured (0 of {}{begun}).", counted(counts.planned, "experiment"));
    page.paragraph(0, "", Tone::Warning, &text);
    page.paragraph(0, "", Tone::Plain, &format!("The run is kept: {}", ended.directory));
    page.finish()
}

fn head(page: &mut Page, table: &RunTable, counts: &Counts, ended: Ended<'_>) {
    let seconds = table.facts.duration.map(|seconds| format!(" in {}", crate::words::duration(seconds)));
    let sessions =
        if table.facts.sessions > 1 { format!(", {} sessions", table.facts.sessions) } else { String::new() };
    let word = if ended.interrupted { "Interrupted" } else { "Done" };
    page.heading(&format!("{word}: {}{}{sessions}", outcome(counts), seconds.unwrap_or_default()));
    if let Some(banner) = banner(table) {
        page.paragraph(0, "!! ", Tone::Warning, &banner);
    }
    if counts.skipped > 0 && ended.skips_kept {
        page.paragraph(0, "", Tone::Faint, &format!("What rules left out, one by one: {}", layout::SKIPPED));
    }
}

/// All answers: one with its command and all that is said of it; of several what to use.
fn answers(analysis: &Analysis<'_>, ended: Ended<'_>, style: Style, most: usize) -> Vec<String> {
    let told: Vec<Told<'_, '_>> = Told::all(analysis).collect();
    let lines = |page: Page| -> Vec<String> { page.finish().lines().map(str::to_owned).collect() };
    if let [only] = told.as_slice() {
        // Sentences are left out from the last until it fits; the command stays.
        let one = |sentences: usize| {
            let mut page = Page::new(style);
            one(&mut page, only, analysis, sentences);
            lines(page)
        };
        let all = only.found().map_or(0, |found| found.sentences().len());
        return (0..=all)
            .rev()
            .map(one)
            .find(|lines| lines.len() <= most)
            .unwrap_or_else(|| at_most(one(0), most, "of it"));
    }
    let mut page = Page::new(style);
    page.line(Tone::Plain, "");
    if told.is_empty() {
        page.paragraph(0, "", Tone::Plain, "There is no valid result.");
    } else {
        page.paragraph(0, "", Tone::Heading, &format!("Best by {}", by(analysis)));
    }
    let (mut shown, mut out) = (0, lines(page));
    for told in &told {
        let mut page = Page::new(style);
        several(&mut page, told);
        let next = lines(page);
        // One line says what is not shown, and where.
        if out.len() + next.len() + 1 > most {
            break;
        }
        out.extend(next);
        shown += 1;
    }
    let mut page = Page::new(style);
    let more = told.len() - shown;
    let also = if more > 0 { format!("and {} more; ", counted(more, "answer")) } else { String::new() };
    if !told.is_empty() {
        page.paragraph(2, "", Tone::Faint, &format!("{also}commands: `vllm-bench recommend {}`", ended.run));
    }
    out.extend(lines(page));
    out
}

fn by(analysis: &Analysis<'_>) -> String {
    analysis.wanted.objective(analysis.wanted.per_device)
}

fn one(page: &mut Page, told: &Told<'_, '_>, analysis: &Analysis<'_>, sentences: usize) {
    page.line(Tone::Plain, "");
    let title = cut(&told.title(), 90);
    page.paragraph(0, "", Tone::Heading, &format!("Best by {}, {title}", by(analysis)));
    let Some(found) = told.found() else {
        return none(page, told);
    };
    page.paragraph(2, "Use  ", Tone::Good, &found.configuration());
    for sentence in found.sentences_by_weight().into_iter().take(sentences) {
        page.paragraph(2, "", Tone::Plain, &cut(&sentence, 400));
    }
    command(page, &found);
}

/// The command that starts it, to be copied; where it is long, where it stands.
fn command(page: &mut Page, found: &Found<'_, '_>) {
    let words: Vec<String> =
        found.choice.row.start_command().iter().map(|word| super::super::html::shell_word(word)).collect();
    if words.is_empty() {
        return;
    }
    if !page.command(4, &words, COMMAND) {
        let script = layout::Layout::new(std::path::PathBuf::new()).server_script(&found.choice.row.server_name);
        page.paragraph(4, "", Tone::Plain, &format!("its command: {}", script.display()));
    }
}

fn none(page: &mut Page, told: &Told<'_, '_>) {
    page.paragraph(2, "", Tone::Bad, &format!("{}:", told.nothing()));
    let mut whys: IndexMap<&str, usize> = IndexMap::new();
    told.left_out().for_each(|(_, why)| *whys.entry(why).or_default() += 1);
    for (why, count) in whys.into_iter().take(NAMED) {
        page.paragraph(4, "- ", Tone::Warning, &format!("{count} x {}", cut(why, 200)));
    }
}

fn several(page: &mut Page, told: &Told<'_, '_>) {
    let title = cut(&told.title(), 90);
    match told.found() {
        None => page.paragraph(2, "", Tone::Bad, &format!("{title}: {}", told.nothing())),
        Some(found) => {
            let text = format!("{title}: {} ({}; {})", found.configuration(), found.value(), found.how_sure());
            page.paragraph(2, "", Tone::Good, &text);
        }
    }
}

/// A row without a valid result, why, and that in a sentence.
type Failed<'a> = (&'a Row, Option<&'a FailedAttempt>, &'a str);

/// Failures by cause, with the configurations that have it.
fn failures(page: &mut Page, table: &RunTable) {
    let mut causes: IndexMap<Option<Cause>, Vec<Failed<'_>>> = IndexMap::new();
    let mut invalid: Vec<Failed<'_>> = Vec::new();
    for row in &table.rows {
        match &row.status {
            Status::Failed(failed) => {
                causes.entry(failed.cause).or_default().push((row, Some(failed.as_ref()), failed.summary.as_str()))
            }
            Status::Invalid(why) => invalid.push((row, None, why.as_str())),
            Status::Valid | Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => {}
        }
    }
    let groups = causes.into_iter().map(|(cause, rows)| (cause.map_or("failed", Cause::title).to_owned(), rows));
    let invalid = (!invalid.is_empty()).then(|| ("result does not count".to_owned(), invalid));
    let groups: Vec<_> = groups.chain(invalid).collect();
    if groups.is_empty() {
        return;
    }
    let several_models = table.by_model().len() > 1;
    page.line(Tone::Plain, "");
    page.paragraph(
        0,
        "",
        Tone::Bad,
        &format!("Failures ({})", groups.iter().map(|(_, rows)| rows.len()).sum::<usize>()),
    );
    for (title, rows) in groups {
        let mut of: IndexMap<String, usize> = IndexMap::new();
        for (row, ..) in &rows {
            *of.entry(of_failed(row, several_models)).or_default() += 1;
        }
        let more = of.len().saturating_sub(NAMED);
        let named = of.iter().take(NAMED).map(|(name, count)| match count {
            1 => name.clone(),
            count => format!("{name} ({count} times)"),
        });
        let named: Vec<String> = named.chain((more > 0).then(|| format!("and {more} more"))).collect();
        page.paragraph(2, "- ", Tone::Plain, &format!("{} x {title}: {}", rows.len(), named.join("; ")));
        let Some((_, failed, why)) = rows.first() else { continue };
        let advice = failed.and_then(|failed| failed.advice.first());
        page.paragraph(4, "", Tone::Plain, &cut(advice.map_or(why, String::as_str), 150));
        if let Some(log) = failed.and_then(|failed| failed.log.as_ref()) {
            page.paragraph(4, "", Tone::Faint, &log.display().to_string());
        }
    }
}

fn of_failed(row: &Row, with_model: bool) -> String {
    let model = if with_model { format!("{}, ", cut(&row.axes.model, 44)) } else { String::new() };
    let workload = row.workload_label();
    let workload = if workload.is_empty() { workload } else { format!(", {workload}") };
    format!("{model}{}{workload}", configuration(row))
}

/// Warnings by kind, the first of each in words, and what of the record is damaged.
fn warnings(page: &mut Page, table: &RunTable) {
    let mut kinds: IndexMap<&str, (usize, &str)> = IndexMap::new();
    for warning in table.rows.iter().flat_map(Row::warnings) {
        kinds.entry(warning.kind.name()).or_insert((0, warning.text.as_str())).0 += 1;
    }
    if kinds.is_empty() && table.unreadable.is_empty() {
        return;
    }
    page.line(Tone::Plain, "");
    page.paragraph(0, "", Tone::Warning, "Warnings");
    for (_, (count, text)) in kinds {
        let of = if count > 1 { format!("{count} x, such as: ") } else { String::new() };
        page.paragraph(2, "! ", Tone::Warning, &cut(&format!("{of}{text}"), 160));
    }
    if !table.unreadable.is_empty() {
        page.paragraph(
            2,
            "! ",
            Tone::Warning,
            &format!("{} in the run directory do not count", counted(table.unreadable.len(), "file")),
        );
    }
}

fn foot(page: &mut Page, ended: Ended<'_>) {
    page.line(Tone::Plain, "");
    page.paragraph(0, "", Tone::Plain, &format!("All of it: {}", path(ended.directory)));
    let run = shell(ended.run);
    page.paragraph(
        0,
        "",
        Tone::Faint,
        &format!("`vllm-bench analyze {run}` prints it, `vllm-bench report {run}` makes a page of it"),
    );
}

fn path(directory: &str) -> String {
    format!("{}/{}", directory.trim_end_matches('/'), layout::ANALYSIS)
}
