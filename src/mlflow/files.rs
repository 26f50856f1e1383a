//! The files that go with a run: result and log of each measurement; manifest, tables, report, plots and server logs of the sweep.

use std::path::{Path, PathBuf};

use super::outline::Measurement;
use crate::analyse::RunTable;
use crate::bounded;
use crate::record::layout::{self, Layout};
use crate::report::Style;
use crate::report::export::{Analysis, Drawing, Html, RECOMMEND, Svg, in_memory};
use crate::report::plot::{self, Kind, Query, Size};

/// A larger file is left out.
const MOST: u64 = 64 << 20;
/// Server logs that go with a sweep at most.
const LOGS: usize = 1000;

/// A file to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Artefact {
    /// Where it is to be among those of its run.
    pub path: String,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// This.
    Bytes(Vec<u8>),
    /// What is in this file.
    File(PathBuf),
}

/// The files of a measurement.
pub fn of_measurement(root: &Path, one: &Measurement) -> Vec<Artefact> {
    let layout = Layout::new(root);
    let failure = one.failed.then(|| layout.failure(&one.name));
    let client = layout::newest(|n| layout.benchmark_log(&one.name, n));
    let of_run =
        [one.result.as_ref(), one.samples.as_ref(), one.log.as_ref()].into_iter().flatten().map(|file| root.join(file));
    let mut found: Vec<Artefact> = Vec::new();
    for file in of_run.chain(failure).chain([client]).filter(|file| file.is_file()) {
        let Some(path) = name_of(&file) else { continue };
        if !found.iter().any(|known| known.path == path) {
            found.push(Artefact { path, content: Content::File(file) });
        }
    }
    found
}

/// The files of a sweep that is over: what was recorded of it as a whole, and its reports, made from its results now.
pub fn of_sweep(table: &RunTable, root: &Path) -> Vec<Artefact> {
    let analysis = Analysis::of(table);
    let mut all = Vec::new();
    let mut add = |path: String, bytes: Option<Vec<u8>>| {
        all.extend(bytes.map(|bytes| Artefact { path, content: Content::Bytes(bytes) }));
    };
    add(layout::REPORT.to_owned(), in_memory(&Html, &analysis, Style::PLAIN).ok());
    let recommend = RECOMMEND.iter().find(|exporter| exporter.format().name == "json");
    add("recommend.json".to_owned(), recommend.and_then(|json| in_memory(*json, &analysis, Style::PLAIN).ok()));
    for kind in Kind::ALL {
        // What the results do not hold is not drawn.
        let plots = plot::plots(table, kind, &Query::default()).unwrap_or_default();
        for (plot, number) in plots.iter().take(PLOTS_OF_A_KIND).zip(1..) {
            let size = Size { width: None, height: None };
            let svg = in_memory(&Svg, &Drawing { plot, size, scale: 1.0 }, Style::PLAIN).ok();
            let name = if number == 1 { kind.name().to_owned() } else { format!("{}-{number}", kind.name()) };
            add(format!("{}/{}", layout::PLOTS, layout::plot::file(&name, "svg")), svg);
        }
    }
    let recorded =
        [layout::MANIFEST, layout::JOURNAL, layout::SUMMARY, layout::ANALYSIS, layout::SUMMARY_CSV, layout::RUN_LOG];
    let beside = recorded.into_iter().map(|name| (name.to_owned(), root.join(name)));
    let mut logs: Vec<PathBuf> = table.rows.iter().filter_map(|row| row.about.server_log.clone()).collect();
    logs.sort();
    logs.dedup();
    let logs = logs.into_iter().take(LOGS).filter_map(|log| {
        let path = format!("{}/{}", layout::LOGS, name_of(&log)?);
        Some((path, root.join(log)))
    });
    for (path, file) in beside.chain(logs).filter(|(_, file)| file.is_file()) {
        all.push(Artefact { path, content: Content::File(file) });
    }
    all
}

/// Of kinds that draw one plot for each measurement, no more than these.
const PLOTS_OF_A_KIND: usize = 10;

fn name_of(file: &Path) -> Option<String> {
    Some(file.file_name()?.to_string_lossy().into_owned())
}

/// What tells these files from others: contents of what was made, lengths of what was recorded.
pub fn digest_of(all: &[Artefact]) -> String {
    let mut text = String::new();
    for artefact in all {
        let what = match &artefact.content {
            Content::Bytes(bytes) => super::digest(bytes),
            Content::File(file) => std::fs::metadata(file).map_or(0, |meta| meta.len()).to_string(),
        };
        text.push_str(&format!("{} {what}\n", artefact.path));
    }
    super::digest(text.as_bytes())
}

/// Reads a file.
///
/// # Errors
/// Why it is left out.
pub fn read(file: &Path) -> Result<Vec<u8>, String> {
    bounded::read(file, MOST).map_err(|error| format!("left out: {error}"))
}

/// The path of `mlflow-artifacts:/1/…`, after the colon; `None` where it names another server.
pub fn path_of(rest: &str) -> Option<&str> {
    let path = rest.strip_prefix("///").or_else(|| rest.strip_prefix('/').filter(|path| !path.starts_with('/')))?;
    Some(path.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artefacts_go_through_the_server_that_is_asked_and_no_other() {
        assert_eq!(path_of("/1/ab/artifacts"), Some("1/ab/artifacts"));
        assert_eq!(path_of("///1/ab/artifacts/"), Some("1/ab/artifacts"));
        assert_eq!(path_of("//other:5000/1/ab"), None);
        assert_eq!(path_of(""), None);
    }

    #[test]
    fn reports_differ_by_what_is_in_them() {
        let of = |text: &str| digest_of(&[Artefact { path: "a".into(), content: Content::Bytes(text.into()) }]);
        assert_eq!(of("x"), of("x"));
        assert_ne!(of("x"), of("y"));
    }
}
