//! The kinds of plots, what is asked of them, and why one may be refused.

use indexmap::IndexSet;

use super::chart::Chart;
use super::data::Data;
use super::kinds::{concurrency, heatmap, interaction, lanes, pareto, ranking, requests, startup, telemetry};
use crate::analyse::{RankingSpec, RunTable};
use crate::nearest;
use crate::report::Refusal;

/// A kind of plot: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "`about` says what each shows")]
pub enum Kind {
    Throughput,
    Scaling,
    TtftCdf,
    LatencyCdf,
    ThroughputCdf,
    Histogram,
    OverTime,
    Dashboard,
    DashboardThroughput,
    DashboardLatency,
    DashboardTtft,
    DashboardTokens,
    Pareto,
    Heatmap,
    Interaction,
    Startup,
    Lanes,
    Telemetry,
    Ranking,
}

impl Kind {
    /// Every kind, in the order of the list.
    pub const ALL: [Kind; 19] = [
        Kind::Throughput,
        Kind::Scaling,
        Kind::TtftCdf,
        Kind::LatencyCdf,
        Kind::ThroughputCdf,
        Kind::Histogram,
        Kind::OverTime,
        Kind::Dashboard,
        Kind::DashboardThroughput,
        Kind::DashboardLatency,
        Kind::DashboardTtft,
        Kind::DashboardTokens,
        Kind::Pareto,
        Kind::Heatmap,
        Kind::Interaction,
        Kind::Startup,
        Kind::Lanes,
        Kind::Telemetry,
        Kind::Ranking,
    ];

    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Throughput => "throughput",
            Kind::Scaling => "scaling",
            Kind::TtftCdf => "ttft-cdf",
            Kind::LatencyCdf => "latency-cdf",
            Kind::ThroughputCdf => "throughput-cdf",
            Kind::Histogram => "histogram",
            Kind::OverTime => "over-time",
            Kind::Dashboard => "dashboard",
            Kind::DashboardThroughput => "dashboard-throughput",
            Kind::DashboardLatency => "dashboard-latency",
            Kind::DashboardTtft => "dashboard-ttft",
            Kind::DashboardTokens => "dashboard-tokens",
            Kind::Pareto => "pareto",
            Kind::Heatmap => "heatmap",
            Kind::Interaction => "interaction",
            Kind::Startup => "startup",
            Kind::Lanes => "lanes",
            Kind::Telemetry => "telemetry",
            Kind::Ranking => "ranking",
        }
    }

    /// What it shows, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Throughput => "total tok/s and tok/s of a request against concurrency",
            Kind::Scaling => "tok/s against concurrency, one line per number of devices",
            Kind::TtftCdf => "share of requests below each TTFT (needs save-detailed)",
            Kind::LatencyCdf => "share of requests below each latency (needs save-detailed)",
            Kind::ThroughputCdf => "share of requests below each tok/s (needs save-detailed)",
            Kind::Histogram => "how a metric of requests is distributed (--y ttft, latency, prompt-tokens …)",
            Kind::OverTime => "a metric of requests in the course of the measurement (--y ttft, throughput …)",
            Kind::Dashboard => "throughput, latency, TTFT and tok/s against concurrency on one sheet",
            Kind::DashboardThroughput => "request throughput against concurrency",
            Kind::DashboardLatency => "p50, p95 and p99 of the latency against concurrency",
            Kind::DashboardTtft => "boxes of the TTFT for each concurrency",
            Kind::DashboardTokens => "mean and median tok/s of a request against concurrency",
            Kind::Pareto => "tok/s per device against latency, the front and the recommended configuration",
            Kind::Heatmap => "a metric over two settings",
            Kind::Interaction => "which setting matters most, alone and together with another",
            Kind::Startup => "where the seconds of a server's start go",
            Kind::Lanes => "what ran when and on which devices",
            Kind::Telemetry => "throughput, power, use, clock and temperature in the course of the measurements",
            Kind::Ranking => "configurations by a metric, best first",
        }
    }
}

/// What is asked of a plot.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// The key on the axis from left to right.
    pub x: Option<String>,
    /// The metric (of a heat map: the key from top to bottom).
    pub y: Option<String>,
    /// The metric that a heat map, an interaction or a ranking shows.
    pub metric: Option<String>,
    /// The keys that make series.
    pub by: Vec<String>,
    /// Keys with the one value that is drawn.
    pub only: Vec<(String, String)>,
    /// One plot per measurement.
    pub each: bool,
    /// What a heat map shows of several configurations that share a cell.
    pub over: Over,
    /// By what the recommended one is chosen; `None` = what the runs ask for.
    pub wanted: Option<RankingSpec>,
}

impl Query {
    /// By what the recommended one is chosen.
    pub fn wanted(&self, table: &RunTable) -> RankingSpec {
        self.wanted.clone().unwrap_or_else(|| RankingSpec::of(table))
    }
}

/// What stands for several configurations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Over {
    /// The best of them.
    #[default]
    Best,
    /// Their mean.
    Mean,
}

/// A plot with the name of its file, without the ending.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Name of the file.
    pub stem: String,
    /// What is drawn.
    pub chart: Chart,
}

impl Refusal {
    /// No measurement has the key.
    pub fn unknown(flag: &str, key: &str, known: &IndexSet<String>) -> Self {
        let near = nearest::nearest(key, known.iter().map(String::as_str));
        let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        let names: Vec<&str> = known.iter().map(String::as_str).take(24).collect();
        Refusal::Wrong {
            message: format!("invalid value `{}` for `{flag}`: no measurement has this setting", key.escape_debug()),
            hint: format!("{near}there is: {}, devices, run, experiment", names.join(", ")),
        }
    }
}

/// Makes the plots of a kind: one, or one per measurement.
///
/// # Errors
/// When the data do not hold what the kind needs, or the query is wrong.
pub fn plots(table: &RunTable, kind: Kind, query: &Query) -> Result<Vec<Plot>, Refusal> {
    let data = Data::new(table, query)?;
    match kind {
        Kind::Throughput => concurrency::throughput(&data.with_requests()),
        Kind::Scaling => concurrency::scaling(&data),
        Kind::TtftCdf => requests::cdf(data, requests::Of::Ttft),
        Kind::LatencyCdf => requests::cdf(data, requests::Of::Latency),
        Kind::ThroughputCdf => requests::cdf(data, requests::Of::Throughput),
        Kind::Histogram => requests::histogram(data),
        Kind::OverTime => requests::over_time(data),
        Kind::Dashboard => concurrency::dashboard(&data.with_requests()),
        Kind::DashboardThroughput => {
            concurrency::one_of_dashboard(&data.with_requests(), concurrency::Part::Throughput)
        }
        Kind::DashboardLatency => concurrency::one_of_dashboard(&data.with_requests(), concurrency::Part::Latency),
        Kind::DashboardTtft => concurrency::one_of_dashboard(&data.with_requests(), concurrency::Part::Ttft),
        Kind::DashboardTokens => concurrency::one_of_dashboard(&data.with_requests(), concurrency::Part::Tokens),
        Kind::Pareto => pareto::draw(&data),
        Kind::Heatmap => heatmap::draw(&data),
        Kind::Interaction => interaction::draw(&data),
        Kind::Startup => startup::draw(&data),
        Kind::Lanes => lanes::draw(&data),
        Kind::Telemetry => telemetry::draw(&data),
        Kind::Ranking => ranking::draw(&data),
    }
}
