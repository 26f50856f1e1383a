//! The table of one experiment: what all configurations share stands in the heading, what varies in the columns.

use super::rows::Line;
use crate::analyse::{Status, all_settings};
use crate::report::columns::{self, Column};
use crate::report::display::cut;
use crate::report::page::{Page, Style, Tone};

/// The metrics: heading, column, decimals.
const METRICS: [(&str, &str, usize); 6] = [
    ("gpus/1b/h", "gpus_for_1b_tokens_per_hour", 1),
    ("out tps/gpu", "output_tps_per_gpu", 0),
    ("mean_in", "mean_input_tokens", 0),
    ("mean_out", "mean_output_tokens", 0),
    ("kvc%", "avg_gpu_kvc_usage", 1),
    ("prefix%", "avg_prefix_cache_hit_rate", 1),
];

/// Renders it.
pub fn render(experiment: &str, lines: &[Line<'_>]) -> String {
    let mut page = Page::new(Style::PLAIN);
    // Beside the cluster sweep's ten words all that varies: lines that look alike would be no table.
    let own: Vec<Vec<(String, String)>> = lines.iter().map(|line| all_settings(line.row)).collect();
    let mut words: Vec<&String> = Vec::new();
    for (word, _) in own.iter().flatten() {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let value = |own: &[(String, String)], word: &String| {
        own.iter().find(|(known, _)| known == word).map_or_else(|| "default".to_owned(), |(_, value)| value.clone())
    };
    let settings: Vec<Vec<(String, String)>> = lines
        .iter()
        .zip(&own)
        .map(|(line, own)| {
            let first = [("model".to_owned(), line.row.axes.model.clone()), ("prompt".to_owned(), line.prompt.clone())];
            first.into_iter().chain(words.iter().map(|word| ((*word).clone(), value(own, word)))).collect()
        })
        .collect();
    let Some(first) = settings.first() else { return page.finish() };
    let constant: Vec<bool> = (0..first.len()).map(|i| settings.iter().all(|own| own[i].1 == first[i].1)).collect();
    page.heading(&cut(experiment, 90));
    let shared: Vec<String> = first
        .iter()
        .zip(&constant)
        .filter(|(_, same)| **same)
        .map(|((word, value), _)| format!("{word}={value}"))
        .collect();
    page.paragraph(2, "", Tone::Plain, &shared.join(", "));
    page.gap();
    let varying = |own: &[(String, String)]| -> Vec<String> {
        own.iter().zip(&constant).filter(|(_, same)| !**same).map(|((_, value), _)| cut(value, 40)).collect()
    };
    let mut shape: Vec<Column> = first
        .iter()
        .zip(&constant)
        .filter(|(_, same)| !**same)
        .map(|((word, _), _)| Column::text(word.clone()))
        .collect();
    shape.extend(METRICS.map(|(title, ..)| Column::metrics(title)));
    shape.extend([Column::metrics("inf/1k/gpu"), Column::text("comment")]);
    let cells =
        lines.iter().zip(&settings).map(|(line, own)| {
            let mut cells = varying(own);
            cells.extend(METRICS.map(|(_, key, decimals)| {
                line.metric(key).map(|value| format!("{value:.decimals$}")).unwrap_or_default()
            }));
            cells.push(line.metric("inference_per_1k_per_gpu").map(clock).unwrap_or_default());
            cells.push(cut(&line.comment(), 60));
            let tone = match line.row.status {
                Status::Valid => Tone::Plain,
                Status::Invalid(_) | Status::Failed(_) => Tone::Bad,
                Status::Skipped { .. } | Status::Interrupted | Status::Running | Status::NotRun => Tone::Faint,
            };
            (tone, cells)
        });
    columns::put(&mut page, &shape, cells.collect());
    page.finish()
}

/// `H:MM:SS`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped seconds")]
fn clock(seconds: f64) -> String {
    let whole = seconds.clamp(0.0, 1e12).round() as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}
