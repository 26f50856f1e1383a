//! What the live lines of a run say, for a terminal of any size: a pure function.

use anstyle::{AnsiColor, Style};

use crate::fold::width;
use crate::safe::{self, Sgr};
use crate::words::{cut_end, duration};

/// A run at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    /// Experiments of the plan.
    pub planned: usize,
    /// Whether the plan has more than may be measured.
    pub at_most: bool,
    /// With a valid result.
    pub passed: usize,
    /// Without one, though tried.
    pub failed: usize,
    /// Since this session began, seconds.
    pub elapsed: f64,
    /// Until its end, as far as it can be told.
    pub left: Option<f64>,
    /// What is under way.
    pub rows: Vec<Row>,
    /// The best so far.
    pub best: Option<String>,
    /// The newest failure.
    pub last_failure: Option<String>,
    /// What the run does because it was told to end.
    pub stopping: Option<String>,
    /// Which picture of the spinner.
    pub turn: usize,
}

/// Something that is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Its lane, in a run that has lanes.
    pub lane: Option<u32>,
    /// `[3/27]`; empty for what is no experiment.
    pub place: String,
    /// What it is.
    pub title: String,
    /// What is waited for.
    pub phase: String,
    /// Since when, seconds.
    pub seconds: u64,
    /// What its server or client says.
    pub said: String,
}

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Blanks before each line.
const INDENT: &str = "  ";
/// Between parts of a line.
const GAP: &str = "   ";
/// Where a line holds all of a lane.
const WIDE: usize = 100;
/// Behind the last line the terminal echoes `^C`.
const ECHO: usize = 3;

/// A part of a line.
struct Part {
    style: Style,
    text: String,
}

impl Part {
    fn new(style: Style, text: impl Into<String>) -> Self {
        Self { style, text: text.into() }
    }
}

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// The lines for a terminal of so many columns and rows, in the order of what matters when there are too few rows; with colour or without.
pub(super) fn lines(view: &View, columns: usize, rows: usize, color: bool) -> Vec<String> {
    let most = rows.saturating_sub(1).max(1);
    let head = head(view, columns);
    let tail: Vec<Vec<Part>> = [
        view.best.as_ref().map(|best| vec![Part::new(DIM, "best so far  "), Part::new(GREEN, best)]),
        view.last_failure.as_ref().map(|last| vec![Part::new(DIM, "last failure  "), Part::new(RED, last)]),
        view.stopping.as_ref().map(|why| vec![Part::new(YELLOW, why)]),
    ]
    .into_iter()
    .flatten()
    .collect();
    let room = most.saturating_sub(head.len() + tail.len());
    let under_way = under_way(view, columns, room);
    let mut all: Vec<Vec<Part>> = head.into_iter().chain(under_way).chain(tail).collect();
    all.truncate(most);
    let last = all.len().saturating_sub(1);
    let fitted = |(i, parts): (usize, Vec<Part>)| {
        let room = columns.saturating_sub(if i == last { 1 + ECHO } else { 1 });
        fitted(parts, room, color)
    };
    all.into_iter().enumerate().map(fitted).collect()
}

/// The bar, the counts and the time, on as many lines as they need.
fn head(view: &View, columns: usize) -> Vec<Vec<Part>> {
    let done = view.passed + view.failed;
    let cells = if columns < 80 { 12 } else { 24 };
    let full = (done * cells).checked_div(view.planned).unwrap_or_default().min(cells);
    let most = if view.at_most { "≤" } else { "" };
    let failed = if view.failed > 0 { format!(", {} failed", view.failed) } else { String::new() };
    let left = match view.left {
        _ if view.stopping.is_some() => String::new(),
        None => String::new(),
        Some(left) if left < 1.0 => ", about to end".to_owned(),
        Some(left) => format!(", {} {} to go", if view.at_most { "at most" } else { "about" }, duration(left)),
    };
    let groups = [
        vec![
            Part::new(GREEN, "━".repeat(full)),
            Part::new(DIM, "─".repeat(cells - full)),
            Part::new(BOLD, format!(" {done}/{most}{}", view.planned)),
        ],
        vec![Part::new(PLAIN, format!("{} passed", view.passed)), Part::new(RED, failed)],
        vec![Part::new(PLAIN, format!("{}{left}", duration(view.elapsed)))],
    ];
    packed(groups.into(), columns.saturating_sub(1 + INDENT.len()))
}

/// Groups of parts side by side, where there is room.
fn packed(groups: Vec<Vec<Part>>, columns: usize) -> Vec<Vec<Part>> {
    let wide = |parts: &[Part]| parts.iter().map(|part| width(&part.text)).sum::<usize>();
    let mut lines: Vec<Vec<Part>> = Vec::new();
    for group in groups {
        match lines.last_mut() {
            Some(line) if wide(line) + GAP.len() + wide(&group) <= columns => {
                line.push(Part::new(PLAIN, GAP));
                line.extend(group);
            }
            _ => lines.push(group),
        }
    }
    lines
}

/// What is under way, each on two lines where there is room.
fn under_way(view: &View, columns: usize, room: usize) -> Vec<Vec<Part>> {
    let one_line = view.rows.iter().all(|row| row.lane.is_some()) && columns >= WIDE || 2 * view.rows.len() > room;
    let spinner = SPINNER[view.turn % SPINNER.len()];
    let mut lines = Vec::new();
    for row in &view.rows {
        let lane = row.lane.map(|lane| format!("lane {lane}  ")).unwrap_or_default();
        let place = if row.place.is_empty() { String::new() } else { format!("{} ", row.place) };
        let first = Part::new(PLAIN, format!("{spinner} {lane}"));
        let phase = Part::new(PLAIN, format!("{} {}", row.phase, duration_of(row.seconds)));
        let said = (!row.said.is_empty()).then(|| Part::new(DIM, format!("{GAP}{}", row.said)));
        let title = (!row.title.is_empty()).then(|| Part::new(PLAIN, row.title.clone()));
        if one_line || title.is_none() {
            let title = title.map(|part| Part::new(part.style, format!("{GAP}{}", part.text)));
            lines.push(
                [Some(first), Some(Part::new(BOLD, place)), Some(phase), title, said].into_iter().flatten().collect(),
            );
        } else {
            lines.push([Some(first), Some(Part::new(BOLD, place)), title].into_iter().flatten().collect());
            lines.push([Some(Part::new(PLAIN, INDENT)), Some(phase), said].into_iter().flatten().collect());
        }
    }
    if lines.len() > room {
        lines.truncate(room.saturating_sub(1));
        lines.push(vec![Part::new(DIM, "… more under way than there are rows: `vllm-bench status` has all")]);
    }
    lines
}

fn duration_of(seconds: u64) -> String {
    duration(std::time::Duration::from_secs(seconds).as_secs_f64())
}

/// One line of at most so many columns, with the colours or without. What is said comes from logs: nothing in it may act on a terminal.
fn fitted(parts: Vec<Part>, columns: usize, color: bool) -> String {
    let mut line = INDENT.to_owned();
    let mut left = columns.saturating_sub(INDENT.len());
    for Part { style, text } in parts {
        let text = safe::shown(&text, Sgr::None).replace(['\n', '\t'], " ");
        let text = if width(&text) > left { cut_end(&text, left) } else { text };
        left = left.saturating_sub(width(&text));
        match color && style != PLAIN && !text.is_empty() {
            true => line.push_str(&format!("{style}{text}{style:#}")),
            false => line.push_str(&text),
        }
        if left == 0 {
            break;
        }
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            planned: 81,
            passed: 34,
            failed: 3,
            elapsed: 492.0,
            left: Some(540.0),
            rows: vec![Row {
                place: "[38/81]".to_owned(),
                title: "tp 2, max-num-seqs 512, max-concurrency 8".to_owned(),
                phase: "measuring".to_owned(),
                seconds: 12,
                said: "128/400 requests, 5312 tok/s, TTFT 43.1 ms".to_owned(),
                ..Row::default()
            }],
            best: Some("tp 2, max-num-seqs 256: 5123.4 tok/s".to_owned()),
            last_failure: Some("[12/81] out of device memory: tp 1, max-num-seqs 1024".to_owned()),
            ..View::default()
        }
    }

    #[test]
    fn a_run_on_a_narrow_and_on_a_wide_terminal() {
        let wide = "  ━━━━━━━━━━────────────── 37/81   34 passed, 3 failed   8 min 12 s, about 9 min 0 s to go
  ⠋ [38/81] tp 2, max-num-seqs 512, max-concurrency 8
    measuring 12 s   128/400 requests, 5312 tok/s, TTFT 43.1 ms
  best so far  tp 2, max-num-seqs 256: 5123.4 tok/s
  last failure  [12/81] out of device memory: tp 1, max-num-seqs 1024";
        assert_eq!(lines(&view(), 100, 30, false).join("\n"), wide);
        let narrow = "  ━━━━━─────── 37/81   34 passed, 3 failed
  8 min 12 s, about 9 min 0 s to go
  ⠋ [38/81] tp 2, max-num-seqs 512, max-concurrency 8
    measuring 12 s   128/400 requests, 5312 tok/s, TTFT 43…
  best so far  tp 2, max-num-seqs 256: 5123.4 tok/s
  last failure  [12/81] out of device memory: tp 1, max…";
        assert_eq!(lines(&view(), 60, 30, false).join("\n"), narrow);
    }

    #[test]
    fn lanes_have_a_line_each_and_no_line_is_wider_than_the_terminal() {
        let row = view().rows.remove(0);
        let rows: Vec<Row> = (1..=4).map(|lane| Row { lane: Some(lane), ..row.clone() }).collect();
        let view = View { rows, stopping: Some("stopping: it ends what is under way in order".to_owned()), ..view() };
        let wide = lines(&view, 160, 40, false);
        assert!(wide[1].starts_with("  ⠋ lane 1  [38/81] measuring 12 s   tp 2, max-num-seqs 512"), "{wide:#?}");
        assert!(wide[1].contains("128/400 requests, 5312 tok/s"), "{wide:#?}");
        for columns in [20, 40, 60, 100, 200] {
            for rows in [3, 6, 9, 24] {
                for color in [true, false] {
                    let lines = lines(&view, columns, rows, color);
                    assert!(lines.len() < rows, "{columns}x{rows}: {lines:#?}");
                    assert!(lines.iter().all(|line| width(line) < columns), "{columns}x{rows}: {lines:#?}");
                }
            }
        }
    }

    #[test]
    fn what_a_log_says_cannot_act_on_the_terminal() {
        let mut view = view();
        view.rows[0].said = "\u{1b}[2Jgone\nnext".to_owned();
        let lines = lines(&view, 100, 30, true);
        assert!(!lines.join("|").contains("\u{1b}[2J") && lines.iter().all(|line| !line.contains('\n')), "{lines:?}");
    }
}
