//! `plot`: plots of one or several runs.

use std::path::{Path, PathBuf};

use super::analyze::{self, print};
use super::choice;
use crate::analyse::{Assumptions, RunTable, derive};
use crate::cli::{PlotArgs, PlotFormat, PlotKind, PlotOver};
use crate::commands::query_args;
use crate::config::Environment;
use crate::error::Error;
use crate::exit;
use crate::record::layout::Layout;
use crate::record::{self, atomic, layout};
use crate::report::export::{Drawing, PLOT, PlotExporter, Png, Svg, in_memory};
use crate::report::plot::{self, Kind, Over, Plot, Query, Size};
use crate::report::{self, Refusal};
use crate::results::read_runs;
use crate::ui::Ui;

/// A side of a plot, in CSS pixels.
const SIDES: std::ops::RangeInclusive<f64> = 200.0..=10_000.0;
/// Dots per inch.
const DOTS: std::ops::RangeInclusive<f64> = 24.0..=1200.0;
const DEFAULT_DPI: f64 = 192.0;
/// CSS pixels per inch.
const PER_INCH: f64 = 96.0;

/// Endings of files that are certainly meant as one, and that are not written.
const FILES: [&str; 9] = ["pdf", "jpg", "jpeg", "gif", "webp", "eps", "ps", "html", "bmp"];

/// Where it is written.
enum Target {
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
}

/// How it is written.
struct Style {
    format: &'static PlotExporter,
    size: Size,
    scale: f64,
}

impl Style {
    fn drawing<'a>(&self, plot: &'a Plot) -> Drawing<'a> {
        Drawing { plot, size: self.size, scale: self.scale }
    }
}

/// Draws one kind, or all that the data allow. Exit code 3 when the data do not hold what the kind needs.
///
/// # Errors
/// When a run cannot be found or read, a flag is wrong, or the data do not hold what the kind needs.
pub fn run(args: &PlotArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let kind = match args.kind {
        PlotKind::One(kind) => Some(kind),
        PlotKind::All => None,
        PlotKind::List => {
            for kind in Kind::ALL {
                ui.out(&format!("{:<22}{}", kind.name(), kind.about()));
            }
            ui.out(&format!("{:<22}every kind that the data allow, into a folder", "all"));
            return Ok(exit::OK);
        }
    };
    refuse_idle(args, kind)?;
    let wanted = choice::of_flags(&args.choice)?;
    let query = query(args)?;
    let format = format(args, environment)?;
    let style = Style { format, size: size(args)?, scale: scale(args)? };
    let paths = match args.runs.as_slice() {
        [] => vec![analyze::target(None, args.results_dir.as_deref(), environment)?],
        runs => runs
            .iter()
            .map(|run| analyze::target(Some(run), args.results_dir.as_deref(), environment))
            .collect::<Result<Vec<_>, _>>()?,
    };
    let mut table = read_runs(&paths)?;
    if query_args::baseline(&args.against.baseline, &mut table, ui)? {
        derive(&mut table, &Assumptions::default());
    }
    let wanted = choice::of_runs(wanted, &args.choice, &table, ui)?;
    if [&args.x, &args.y, &args.metric].into_iter().flatten().any(|key| key == "speedup") || wanted.rank_by == "speedup"
    {
        query_args::tell_excluded_baselines(&table, &wanted, ui);
    }
    let query = Query { wanted: Some(wanted), ..query };
    let target = target(args, &table, environment, kind.is_none())?;
    match kind {
        Some(kind) => {
            let plots = plot::plots(&table, kind, &query)?;
            write(&target, &plots, &style, ui)?;
        }
        None => all(&table, &query, &target, &style, ui)?,
    }
    Ok(analyze::tell_damage(&table, ui))
}

/// Refuses flags of the choice where no choice is shown.
fn refuse_idle(args: &PlotArgs, kind: Option<Kind>) -> Result<(), Error> {
    let named = args.metric.is_some() || args.y.is_some();
    let what = match kind {
        None | Some(Kind::Pareto) => return Ok(()),
        Some(Kind::Ranking) if !named => return Ok(()),
        Some(Kind::Ranking) => "`--metric` or `--y`, which name the metric".to_owned(),
        Some(kind) => format!("`plot {}`, which shows no choice", kind.name()),
    };
    match args.choice.given().into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Error::Usage {
            message: format!("`{flag}` has no effect with {what}"),
            hint: "leave it out; `plot pareto` and `plot ranking` show the choice".into(),
        }),
    }
}

/// Every kind that the data allow; what they do not is said.
fn all(table: &RunTable, query: &Query, target: &Target, style: &Style, ui: &Ui) -> Result<(), Error> {
    let mut drawn = 0;
    let mut first = None;
    for (kind, y) in everything() {
        let query = Query { y: y.map(str::to_owned), x: None, ..query.clone() };
        match plot::plots(table, kind, &query) {
            Ok(plots) => {
                drawn += plots.len();
                write(target, &plots, style, ui)?;
            }
            Err(refusal) => {
                let (Refusal::Missing { message, .. } | Refusal::Wrong { message, .. }) = &refusal;
                let of = y.map(|y| format!(" --y {y}")).unwrap_or_default();
                ui.say(&format!("not drawn: {}{of}: {message}", kind.name()));
                first.get_or_insert(refusal);
            }
        }
    }
    match first {
        Some(refusal) if drawn == 0 => Err(refusal.into()),
        _ => Ok(()),
    }
}

/// Kinds with the metrics that are drawn where nobody chose one.
fn everything() -> Vec<(Kind, Option<&'static str>)> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let metrics: &[&'static str] = match kind {
            Kind::Histogram => &["prompt-tokens", "completion-tokens", "ttft", "latency"],
            Kind::OverTime => &["ttft", "throughput"],
            Kind::Throughput
            | Kind::Scaling
            | Kind::TtftCdf
            | Kind::LatencyCdf
            | Kind::ThroughputCdf
            | Kind::Dashboard
            | Kind::DashboardThroughput
            | Kind::DashboardLatency
            | Kind::DashboardTtft
            | Kind::DashboardTokens
            | Kind::Pareto
            | Kind::Heatmap
            | Kind::Interaction
            | Kind::Startup
            | Kind::Lanes
            | Kind::Telemetry
            | Kind::Ranking => &[],
        };
        match metrics {
            [] => all.push((kind, None)),
            metrics => all.extend(metrics.iter().map(|metric| (kind, Some(*metric)))),
        }
    }
    all
}

fn invalid(flag: &str, text: &str, expected: &str, hint: &str) -> Error {
    Error::Usage {
        message: format!("invalid value `{}` for `{flag}`: expected {expected}", text.escape_debug()),
        hint: hint.to_owned(),
    }
}

fn query(args: &PlotArgs) -> Result<Query, Error> {
    let mut only = Vec::new();
    for text in &args.only {
        let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(invalid("--where", text, "`KEY=VALUE`", "such as `--where tensor-parallel-size=2`"));
        };
        only.push((plot::full_key(key), value.to_owned()));
    }
    let over = match args.over {
        None | Some(PlotOver::Best) => Over::Best,
        Some(PlotOver::Mean) => Over::Mean,
    };
    Ok(Query {
        x: args.x.clone(),
        y: args.y.clone(),
        metric: args.metric.clone(),
        by: plot::list(&args.by),
        only,
        each: args.each,
        over,
        wanted: None,
    })
}

/// The format whose files end so.
fn of_ending(ending: &str) -> Option<&'static PlotExporter> {
    PLOT.into_iter().find(|exporter| exporter.format().ending() == ending)
}

fn format(args: &PlotArgs, environment: &Environment) -> Result<&'static PlotExporter, Error> {
    let of_file = args.output.as_deref().and_then(Path::extension).and_then(std::ffi::OsStr::to_str);
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    let of_ending = of_file.and_then(of_ending);
    if let (Some(ending), None, Some(output)) = (of_file, of_ending, &args.output)
        && FILES.contains(&ending.to_ascii_lowercase().as_str())
        && !environment.absolute(output).is_dir()
    {
        let text = output.display().to_string();
        return Err(invalid(
            "--output",
            &text,
            "a file that ends in `.svg` or `.png`, or a folder",
            "an SVG can be turned into other formats",
        ));
    }
    let svg: &'static PlotExporter = &Svg;
    match args.format.map(PlotFormat::exporter).or(of_ending) {
        Some(exporter) if to_stdout && exporter.format().ending() != svg.format().ending() => Err(invalid(
            "--format",
            exporter.format().name,
            "`svg`, as `--output -` writes it",
            &format!("name a file with `--output FILE.{}`", exporter.format().ending()),
        )),
        Some(exporter) => Ok(exporter),
        None if to_stdout => Ok(svg),
        None => Ok(&Png),
    }
}

fn number(flag: &str, text: Option<&str>, range: &std::ops::RangeInclusive<f64>) -> Result<Option<f64>, Error> {
    let Some(text) = text else { return Ok(None) };
    let value = text.trim().parse::<f64>().ok().filter(|value| range.contains(value));
    let expected = format!("a number from {} to {}", range.start(), range.end());
    value.map(Some).ok_or_else(|| invalid(flag, text, &expected, "leave it out for a size that fits the content"))
}

fn size(args: &PlotArgs) -> Result<Size, Error> {
    Ok(Size {
        width: number("--width", args.width.as_deref(), &SIDES)?,
        height: number("--height", args.height.as_deref(), &SIDES)?,
    })
}

fn scale(args: &PlotArgs) -> Result<f64, Error> {
    Ok(number("--dpi", args.dpi.as_deref(), &DOTS)?.unwrap_or(DEFAULT_DPI) / PER_INCH)
}

/// A name with the ending of a plot is a file; everything else is a folder.
fn target(args: &PlotArgs, table: &RunTable, environment: &Environment, all: bool) -> Result<Target, Error> {
    let Some(output) = &args.output else {
        // Plots of several runs belong to none of them.
        let one = table.more.is_empty();
        let run = if one { table.facts.directory.clone() } else { environment.working_directory().to_owned() };
        return Ok(Target::Folder(Layout::new(run).plots()));
    };
    let several = || Error::Usage {
        message: format!("`--output {}` is one file, and there are several plots", output.display()),
        hint: "name a folder".into(),
    };
    if output == Path::new("-") {
        return if all { Err(several()) } else { Ok(Target::Stdout) };
    }
    let path = environment.absolute(output);
    let ending = path.extension().and_then(std::ffi::OsStr::to_str);
    if ending.and_then(of_ending).is_some() && !path.is_dir() {
        return if all { Err(several()) } else { Ok(Target::File(path)) };
    }
    Ok(Target::Folder(path))
}

fn write(target: &Target, plots: &[Plot], style: &Style, ui: &Ui) -> Result<(), Error> {
    let folder = match (target, plots) {
        (Target::Folder(folder), _) => folder,
        (Target::Stdout, [plot]) => {
            return print(style.format, &style.drawing(plot), ui);
        }
        (Target::File(path), [plot]) => {
            let parent = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(parent).map_err(record::Error::write(parent))?;
            return put(path, plot, style, ui);
        }
        (Target::Stdout | Target::File(_), _) => {
            return Err(Error::Usage {
                message: format!("there are {} plots and `--output` is one file", plots.len()),
                hint: "name a folder, or choose one with `--where experiment=NAME`".into(),
            });
        }
    };
    std::fs::create_dir_all(folder).map_err(record::Error::write(folder))?;
    let mut used = std::collections::BTreeSet::new();
    for plot in plots {
        // Two names that are cut to the same one must not overwrite each other.
        let free = |n: u32| if n == 1 { plot.stem.clone() } else { format!("{}_{n}", plot.stem) };
        let stem = (1..=u32::MAX).map(free).find(|stem| !used.contains(stem)).unwrap_or_default();
        put(&folder.join(layout::plot::file(&stem, style.format.format().ending())), plot, style, ui)?;
        used.insert(stem);
    }
    Ok(())
}

fn put(path: &Path, plot: &Plot, style: &Style, ui: &Ui) -> Result<(), Error> {
    // In one piece: only what is a text as a whole is searched for secrets and harmful characters.
    atomic::write(path, &in_memory(style.format, &style.drawing(plot), report::Style::PLAIN)?)?;
    ui.say(&path.display().to_string());
    Ok(())
}
