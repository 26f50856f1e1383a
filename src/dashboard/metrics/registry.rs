//! The registry of one answer: metrics with their units, and the two texts in which Prometheus and its kin read them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// What all names begin with.
const PREFIX: &str = "vllm_bench";

/// Labels of one series beside those that all have.
pub(super) type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// Metrics of one run or load; `fill` registers them. Without a run there is only what is said of the program.
pub(super) fn written(run: Option<&str>, fill: impl FnOnce(&mut Metrics<'_>)) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program that says this", version);
    if let Some(run) = run {
        let run = vec![("run".into(), escaped(run).into())];
        fill(&mut Metrics { registry: registry.sub_registry_with_labels(run.into_iter()) });
    }
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Registers one metric after the other.
pub(super) struct Metrics<'r> {
    registry: &'r mut Registry,
}

impl Metrics<'_> {
    /// A gauge with a value for each set of labels; not there at all where no value is known.
    pub fn gauges(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Gauges::default();
        let mut some = false;
        for (labels, value) in values.into_iter().filter(|(_, value)| value.is_finite()) {
            family.get_or_create(&labels).set(value);
            some = true;
        }
        match unit {
            _ if !some => {}
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }

    /// A gauge without further labels.
    pub fn gauge(&mut self, name: &str, unit: Option<Unit>, help: &str, value: Option<f64>) {
        self.gauges(name, unit, help, value.map(|value| (Vec::new(), value)));
    }

    /// A counter with a value for each set of labels.
    pub fn counters(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Counters::default();
        let mut some = false;
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value.max(0.0));
            some = true;
        }
        match unit {
            _ if !some => {}
            Some(unit) => self.registry.register_with_unit(name, help, unit, family),
            None => self.registry.register(name, help, family),
        }
    }

    /// What is said in words.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&'static str, &str)]) {
        let labels: Vec<_> = labels.iter().map(|(label, text)| (*label, escaped(text))).collect();
        self.registry.register(name, help, Info::new(labels));
    }
}

/// A text as the value of a label: the crate writes it as it is.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// One label.
pub(super) fn of(label: &'static str, value: impl ToString) -> Labels {
    vec![(label, value.to_string())]
}

/// A unit that the crate has no word for.
pub(super) fn unit(word: &str) -> Option<Unit> {
    Some(Unit::Other(word.to_owned()))
}

/// The older text format (version 0.0.4), which a Pushgateway takes and which who asks for no format gets: the families are called as
/// their samples are, and there are no units and no end.
pub fn classic(openmetrics: &str) -> String {
    let words = |line: &str| -> Option<[String; 3]> {
        let mut words = line.strip_prefix("# ")?.splitn(3, ' ').map(str::to_owned);
        Some([words.next()?, words.next()?, words.next()?])
    };
    let kinds: HashMap<String, String> = openmetrics
        .lines()
        .filter_map(words)
        .filter(|[word, ..]| word == "TYPE")
        .map(|[_, name, kind]| (name, kind))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let Some([word, name, rest]) = words(line) else {
            if !line.starts_with('#') {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let (end, kind) = match kinds.get(&name).map(String::as_str) {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            _ => ("", "gauge"),
        };
        // Writing to memory does not fail.
        let _ = match word.as_str() {
            "HELP" => writeln!(text, "# HELP {name}{end} {rest}"),
            "TYPE" => writeln!(text, "# TYPE {name}{end} {kind}"),
            _ => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_calls_families_as_their_samples_are() {
        let text = written(Some("r"), |to| {
            to.counters("tries", None, "Tries", [(of("outcome", "passed"), 2.0)]);
            to.gauge("rest", Some(Unit::Seconds), "Still to come", Some(1.5));
            to.info("about", "In words", &[("name", "a \"b\"\n# EOF")]);
        });
        assert!(text.contains("# UNIT vllm_bench_rest_seconds seconds") && text.ends_with("# EOF\n"), "{text}");
        let text = classic(&text);
        let expected = format!(
            "# HELP vllm_bench_build_info The program that says this.\n# TYPE vllm_bench_build_info gauge\n\
             vllm_bench_build_info{{version=\"{}\"}} 1\n\
             # HELP vllm_bench_tries_total Tries.\n# TYPE vllm_bench_tries_total counter\n\
             vllm_bench_tries_total{{run=\"r\",outcome=\"passed\"}} 2.0\n\
             # HELP vllm_bench_rest_seconds Still to come.\n# TYPE vllm_bench_rest_seconds gauge\n\
             vllm_bench_rest_seconds{{run=\"r\"}} 1.5\n\
             # HELP vllm_bench_about_info In words.\n# TYPE vllm_bench_about_info gauge\n\
             vllm_bench_about_info{{run=\"r\",name=\"a \\\"b\\\"\\n# EOF\"}} 1\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text, expected);
    }
}
