//! `report.html`: a run as one page that needs nothing else. Recommendation first, then what was asked, what came out, plots, what
//! failed and why, the machine, and how to do it again.
//!
//! The page asks no network: styles and script are in it, and its content security policy lets nothing else run. Whatever comes
//! from outside (names, log lines, flags) is text: escaped by the template, escaped in the data block, and put into the page by the
//! script as text only. Without the script the answers, the table and the failures can still be read.
//!
//! Decisions are made here, by [`crate::analyse`]; the script only shows.

mod answers;
mod data;
mod history;
mod machine;
mod problems;
mod shell;
mod table;
mod view;

use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::export::Analysis;

pub(super) use history::render as over_runs;
pub(super) use shell::{line as shell_line, word as shell_word};

const PAGE: &str = include_str!("page.html");
/// The styles of the page: the dashboard has them too.
pub const STYLE: &str = include_str!("style.css");
/// In the order in which one needs the other.
const SCRIPTS: [&str; 6] = [
    include_str!("js/core.js"),
    include_str!("js/table.js"),
    include_str!("js/chart.js"),
    include_str!("js/plots.js"),
    include_str!("js/panels.js"),
    include_str!("js/main.js"),
];

/// Renders the page. The same table and options give the same bytes.
pub fn render(analysis: &Analysis<'_>) -> String {
    let script = SCRIPTS.concat();
    let csp = policy(Some(&script), STYLE);
    filled(PAGE, view::View::of(analysis, view::Parts { csp, style: STYLE, script: &script }))
}

/// A template with what it shows.
fn filled(template: &'static str, view: impl serde::Serialize) -> String {
    let mut templates = minijinja::Environment::new();
    // The template is part of this program: that it is sound is what the tests show.
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let rendered = syntax.and_then(|syntax| {
        templates.set_syntax(syntax);
        templates.add_template("page.html", template)?;
        templates.get_template("page.html")?.render(minijinja::value::Serde(view))
    });
    rendered.unwrap_or_else(|error| {
        tracing::error!("the template of the report: {error:#}");
        "<!DOCTYPE html><title>vllm-bench</title><p>This page could not be made, which is a bug of vllm-bench."
            .to_owned()
    })
}

/// Nothing is loaded from anywhere, and no script or style runs but those of this page, by their hashes.
fn policy(script: Option<&str>, style: &str) -> String {
    let hash = |text: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
    let script = script.map(|script| format!(" script-src 'sha256-{}';", hash(script))).unwrap_or_default();
    format!("default-src 'none';{script} style-src 'sha256-{}'; base-uri 'none'; form-action 'none'", hash(style))
}
