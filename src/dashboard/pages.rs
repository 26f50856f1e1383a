//! The page and its parts, compiled in; the colours and cards are those of the report's page.

use serde_json::{Value, json};

use super::source::Answer;
use crate::model::Metric;
use crate::report;

pub(super) const PAGE: &str = concat!(include_str!("page/head.html"), include_str!("page/page.html"));
pub(super) const SCRIPT: &str = concat!(include_str!("page/shared.js"), include_str!("page/page.js"));
pub(super) const LOAD_PAGE: &str = concat!(include_str!("page/head.html"), include_str!("page/load.html"));
pub(super) const LOAD_SCRIPT: &str = concat!(include_str!("page/shared.js"), include_str!("page/load.js"));
const STYLE: &str = include_str!("page/page.css");

/// The styles of the report, and what the dashboard has of its own.
pub(super) fn style() -> String {
    format!("{}\n{STYLE}", report::STYLE)
}

/// What a browser is shown that has the token in its link: it goes on to the page, as a page of this server (a link on another site is
/// followed without the cookie).
pub(super) const WELCOME: &str = "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url=/\">\
     <title>vllm-bench</title><p><a href=\"/\">The dashboard</a></html>\n";

/// What a browser without it is shown.
pub(super) const CLOSED: &str = "This dashboard needs its token: open the link that vllm-bench printed \
     (http://…/?token=…), or send `Authorization: Bearer TOKEN`. `vllm-bench dashboard` says in which file the token is.\n";

/// The readings of devices and host with their names and units.
pub(super) fn readings(answer: &Answer) -> Value {
    let one = |(key, value): &(&'static str, f64)| {
        let metric = Metric::of(key);
        let (label, unit) =
            metric.map_or((String::new(), String::new()), |m| (m.label.clone(), m.unit.symbol().to_owned()));
        json!({ "key": key, "label": label, "unit": unit, "value": value })
    };
    let all = answer.readings.iter();
    Value::Object(all.map(|(name, of)| (name.clone(), of.iter().map(one).collect())).collect())
}
