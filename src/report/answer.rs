//! The answer in words, the same on every screen and in every format: what to use, by what objective, how sure that is, what else may
//! be chosen in which order, and what to run next. The numbers are those of [`crate::analyse`]; nothing is decided here, and a format
//! has no words of its own: it takes [`Told`].

use super::display::{configuration, counted, cut, in_unit};
use super::export::Analysis;
use crate::analyse::{Answer, Basis, Beside, Choice, FEWEST_STARTS, RankingSpec, Recommendation, Standing, Why};
use crate::model::Metric;

/// The answer for one group, as it is told.
pub(super) struct Told<'r, 't> {
    answer: &'r Answer<'t>,
    wanted: &'r RankingSpec,
}

impl<'r, 't> Told<'r, 't> {
    /// All answers of an analysis, in their order.
    pub fn all(analysis: &'r Analysis<'t>) -> impl ExactSizeIterator<Item = Self> {
        analysis.answers().iter().map(|answer| Self { answer, wanted: &analysis.wanted })
    }

    /// Of what.
    pub fn title(&self) -> String {
        self.answer.title()
    }

    /// Whether its rows share a model, which its title names.
    pub fn has_model(&self) -> bool {
        self.answer.value(crate::analyse::BY_MODEL).is_some()
    }

    /// What is recommended; `None` where nothing can be.
    pub fn found(&self) -> Option<Found<'r, 't>> {
        let recommendation = self.answer.choice.as_ref().ok()?;
        Some(Found {
            recommendation,
            choice: recommendation.chosen()?,
            beside: self.answer.beside.as_ref(),
            wanted: self.wanted,
        })
    }

    /// That nothing can be recommended.
    pub fn nothing(&self) -> &'static str {
        match self.wanted.limits.is_empty() {
            true => "No configuration can be recommended",
            false => "No configuration keeps the limits",
        }
    }

    /// What is excluded, and why.
    pub fn left_out(&self) -> impl ExactSizeIterator<Item = (&'r str, &'r str)> {
        let left_out = match &self.answer.choice {
            Ok(found) => &found.left_out,
            Err(left_out) => left_out,
        };
        left_out.iter().map(|left| (left.row.name.as_str(), left.why.as_str()))
    }
}

/// What is recommended for one group.
pub(super) struct Found<'r, 't> {
    /// With its numbers.
    pub recommendation: &'r Recommendation<'t>,
    /// What is recommended.
    pub choice: &'r Choice<'t>,
    beside: Option<&'r Beside>,
    wanted: &'r RankingSpec,
}

impl<'r, 't> Found<'r, 't> {
    /// What to use.
    pub fn configuration(&self) -> String {
        configuration(self.choice.row)
    }

    /// The command that starts it as it was measured; empty where it is not known.
    pub fn command(&self) -> String {
        super::html::shell_line(&self.choice.row.start_command())
    }

    /// All that is said of it.
    pub fn sentences(&self) -> Vec<String> {
        sentences(self.recommendation, self.beside, self.wanted)
    }

    /// The same, what matters most first: its numbers, by how much it is better, how sure that is.
    pub fn sentences_by_weight(&self) -> Vec<String> {
        let mut said = self.sentences();
        // It is the last of them.
        if let Some(against) = against_runner_up(self.recommendation, self.choice, self.wanted) {
            said.retain(|sentence| *sentence != against);
            said.insert(1.min(said.len()), against);
        }
        said
    }

    /// The mean of what is ranked by, with its unit.
    pub fn value(&self) -> String {
        let unit = Metric::of(&self.wanted.rank_by).map(|of| of.unit.symbol()).unwrap_or_default();
        format!("{} {unit}", number(&self.wanted.rank_by, self.choice.value)).trim_end().to_owned()
    }

    /// Its warnings that do not exclude it.
    pub fn warnings(&self) -> Vec<String> {
        warnings(self.recommendation)
    }

    /// How sure that is, in a few words.
    pub fn how_sure(&self) -> String {
        how_sure(self.recommendation)
    }

    /// All that may be chosen, best mean first.
    pub fn options(&self) -> impl ExactSizeIterator<Item = Line<'r, 't>> {
        let (found, wanted) = (self.recommendation, self.wanted);
        found.options.iter().enumerate().map(move |(index, option)| Line {
            option,
            mark: Mark::of(found, index),
            configuration: configuration(option.row),
            value: number(&wanted.rank_by, option.value),
            interval: interval(option, &wanted.rank_by),
            latency: option.latency.map(|value| number(&wanted.latency, value)),
        })
    }
}

/// An option in a table.
pub(super) struct Line<'r, 't> {
    /// With its numbers.
    pub option: &'r Choice<'t>,
    /// Where it stands.
    pub mark: Mark,
    /// Its settings.
    pub configuration: String,
    /// Its mean.
    pub value: String,
    /// The interval of its mean.
    pub interval: String,
    /// The latency beside it.
    pub latency: Option<String>,
}

impl Line<'_, '_> {
    /// How many devices it takes.
    pub fn devices(&self) -> Option<String> {
        self.option.row.about.devices.map(|devices| devices.to_string())
    }
}

/// Where an option of an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is recommended.
    Choice,
    /// It may be the best as well.
    MayBeBest,
    /// Too few starts say whether it may.
    Undecided,
    /// Neither.
    None,
}

impl Mark {
    fn of(found: &Recommendation<'_>, index: usize) -> Self {
        match found.options.get(index).map(|option| option.standing) {
            _ if index == found.choice => Mark::Choice,
            Some(Standing::MayBeBest) => Mark::MayBeBest,
            Some(Standing::Undecided) if found.basis.is_established() => Mark::Undecided,
            Some(Standing::Undecided | Standing::NotBest) | None => Mark::None,
        }
    }

    /// A sign in a table of text, which the sentences name.
    pub fn sign(self) -> &'static str {
        match self {
            Mark::Choice => ">",
            Mark::MayBeBest => "=",
            Mark::Undecided => "?",
            Mark::None => "",
        }
    }

    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Mark::Choice => "choice",
            Mark::MayBeBest => "may be the best",
            Mark::Undecided => "undecided",
            Mark::None => "",
        }
    }
}

/// A number with as many digits as its unit has in tables.
fn number(key: &str, value: f64) -> String {
    Metric::of(key).map_or_else(|| format!("{value:.2}"), |of| in_unit(value, of.unit))
}

/// The interval of an option; a word where there is none.
fn interval(option: &Choice<'_>, key: &str) -> String {
    match option.estimate.and_then(|estimate| estimate.interval) {
        Some(interval) => format!("{} to {}", number(key, interval.low), number(key, interval.high)),
        None if option.n > 1 => "no variance".into(),
        None => "one start".into(),
    }
}

/// With fewer starts an interval is much too narrow where they are skewed or fall into two kinds (docs/analysis.md).
const FEW: usize = 5;

/// How sure the choice is, in a few words.
fn how_sure(found: &Recommendation<'_>) -> String {
    match (found.basis, found.others_in_set()) {
        _ if found.options.len() == 1 => "the only one".into(),
        _ if found.significantly_best && found.why == Why::BestMean => "significantly better than every other".into(),
        (Basis::Starts, 0) => "no other may be better".into(),
        (Basis::Starts, n) => format!("{} may be the best as well", counted(n, "other")),
        (Basis::OneStart, _) => "not established: one start each".into(),
        (Basis::TooFewStarts, _) => format!("not established: fewer than {FEWEST_STARTS} starts"),
        (Basis::GroupedOrder, _) => "not established: grouped order".into(),
        (Basis::NoVariance, _) => "not established: repeats do not differ".into(),
        (Basis::BesideOthers, _) => "not established: measured beside others".into(),
    }
}

/// The numbers of the choice, in a sentence.
fn numbers(found: &Recommendation<'_>, choice: &Choice<'_>, wanted: &RankingSpec) -> String {
    let interval = match choice.estimate.and_then(|of| of.interval) {
        Some(_) => {
            let assumed = if choice.n < FEW { ", if starts are about normal" } else { "" };
            format!(" (95 % interval {}{assumed})", interval(choice, &wanted.rank_by))
        }
        None => String::new(),
    };
    let runs = if choice.measurements > choice.n {
        format!(", {}", counted(choice.measurements, "run"))
    } else {
        String::new()
    };
    let mean = if choice.n > 1 { "mean of " } else { "" };
    let latency = choice.latency.map(|value| {
        let unit = Metric::of(&wanted.latency).map(|of| of.unit.symbol()).unwrap_or_default();
        format!("; {} {} {unit}", wanted.latency, number(&wanted.latency, value))
    });
    let devices = choice.row.about.devices.map(|n| format!("; {}", counted(n as usize, "device")));
    format!(
        "{}: {}{interval}, {mean}{}{runs}{}{}.",
        wanted.objective(found.per_device),
        number(&wanted.rank_by, choice.value),
        counted(choice.n, "start"),
        latency.unwrap_or_default(),
        devices.unwrap_or_default()
    )
}

/// Why it is the choice, and how sure that is.
fn reason(found: &Recommendation<'_>, wanted: &RankingSpec) -> String {
    let margin = format!("{} %", number_of(wanted.margin * 100.0));
    if found.options.len() == 1 {
        return match (found.left_out.is_empty(), wanted.limits.is_empty()) {
            (true, true) => "It is the only configuration with a valid result.".into(),
            (false, true) => "It is the only one that is not excluded.".into(),
            (_, false) => "It is the only one that keeps the limits.".into(),
        };
    }
    if found.why == Why::Equivalent {
        let best = found.options.first().map(|best| configuration(best.row)).unwrap_or_default();
        return format!(
            "The best mean is that of {best}. This one is shown to be equivalent within {margin} (two one-sided tests, 95 %), and \
             takes fewer devices or flags."
        );
    }
    if found.significantly_best {
        return "It is significantly better than every other configuration (95 %, all comparisons together).".into();
    }
    match (found.basis, found.others_in_set()) {
        (Basis::Starts, 0) if found.options.iter().any(|option| option.standing == Standing::Undecided) => {
            "It has the best mean of those with enough starts.".into()
        }
        (Basis::Starts, 0) => format!("It has the best mean; the next one is within the margin of {margin}."),
        (Basis::Starts, n) if found.within_margin => format!(
            "It has the best mean. {} may be the best as well (95 %, marked =), but none by more than the margin of {margin} (95 %).",
            counted(n, "other")
        ),
        (Basis::Starts, n) => format!(
            "It has the best mean. {} may be the best as well (95 %, marked =); the best is among these with a probability of \
             95 %.",
            counted(n, "other")
        ),
        (Basis::OneStart, _) => {
            "It has the best mean. That it is the best is not established: one start each, and nothing \
             says how far starts differ."
                .into()
        }
        (Basis::TooFewStarts, _) => {
            format!(
                "It has the best mean. That it is the best is not established: it has fewer than {FEWEST_STARTS} starts."
            )
        }
        (Basis::GroupedOrder, _) => {
            "It has the best mean. That it is the best is not established: configurations were measured \
             one after the other, so that a drift of the machine would look like a difference."
                .into()
        }
        (Basis::NoVariance, _) => {
            "It has the best mean. That it is the best is not established: the repeats do not differ at \
             all, so that nothing says how far starts differ."
                .into()
        }
        (Basis::BesideOthers, _) => {
            "It has the best mean. That it is the best is not established: others ran beside what was measured, and may have slowed \
             some of it down."
                .into()
        }
    }
}

/// A percentage without needless digits.
fn number_of(percent: f64) -> String {
    format!("{}", (percent * 100.0).round() / 100.0)
}

/// What to run to know more; `None` where nothing is left to know.
pub(super) fn next(found: &Recommendation<'_>) -> Option<String> {
    let undecided = found.options.iter().filter(|option| option.standing == Standing::Undecided).count();
    match found.basis {
        _ if found.options.len() < 2 => None,
        Basis::OneStart | Basis::TooFewStarts => Some(format!(
            "To decide: {FEWEST_STARTS} starts of each at least (`repeats: {{starts: {FEWEST_STARTS}}}` in a sweep file, or \
             `run --starts {FEWEST_STARTS}`)."
        )),
        Basis::GroupedOrder => Some("To decide: several starts in turn (`order: interleaved`).".into()),
        Basis::NoVariance => None,
        Basis::BesideOthers => {
            let run = found.options.first().map_or("RUN", |option| &*option.row.about.run);
            Some(format!(
                "To decide: measure what may be the best again alone (`vllm-bench run --resume {run} --finalists alone`)."
            ))
        }
        Basis::Starts if undecided > 0 => Some(format!(
            "{} undecided (marked ?): fewer than {FEWEST_STARTS} starts. To decide: {FEWEST_STARTS} starts of each at least.",
            if undecided == 1 { "1 configuration is".to_owned() } else { format!("{undecided} configurations are") }
        )),
        // More starts would tell apart what differs by less than matters.
        Basis::Starts if found.others_in_set() == 0 || found.within_margin => None,
        Basis::Starts => Some(match found.starts_needed {
            Some(starts) => format!(
                "To decide: about {} of each would separate the first two (power 80 %, noise {:.1} %).",
                counted(starts, "start"),
                100.0 * found.noise.unwrap_or(0.0)
            ),
            None => "More starts would hardly separate the first two.".into(),
        }),
    }
}

/// What the choice gives and takes against the next one.
fn against_runner_up(found: &Recommendation<'_>, choice: &Choice<'_>, wanted: &RankingSpec) -> Option<String> {
    let theirs = found.runner_up()?;
    let change = |ours: f64, theirs: f64| (theirs > 0.0).then(|| format!("{:+.1} %", (ours / theirs - 1.0) * 100.0));
    let value = change(choice.value, theirs.value)?;
    let latency = choice.latency.zip(theirs.latency).and_then(|(ours, theirs)| change(ours, theirs));
    let latency = latency.map(|change| format!(", {change} {}", wanted.latency)).unwrap_or_default();
    let devices = match (choice.row.about.devices, theirs.row.about.devices) {
        (Some(ours), Some(theirs)) if ours != theirs => format!(", on {ours} instead of {theirs} devices"),
        _ => String::new(),
    };
    let per = if found.per_device { " per device" } else { "" };
    Some(format!(
        "Against the runner-up, {}: {value} {}{per}{latency}{devices}.",
        configuration(theirs.row),
        wanted.rank_by
    ))
}

/// What was measured beside others, and what that says of the choice.
fn neighbours(beside: &Beside, choice: &Choice<'_>) -> String {
    let most = if beside.most == 1 { "another one".to_owned() } else { format!("up to {} others", beside.most) };
    let was = if beside.settings == 1 { "was" } else { "were" };
    let who = format!("{} {was} measured beside {most}, and not alone", counted(beside.settings, "configuration"));
    let Some(cost) = beside.cost else { return format!("{who}; what that costs is not known.") };
    let raised = format!("raised by what that costs at most ({} %)", number_of(100.0 * cost));
    match beside.open.iter().filter(|open| Some(*open) != choice.row.identity.as_ref()).count() {
        0 => format!("{who}; {raised}, none of the others is better."),
        others => format!("{who}; {raised}, {} may be better.", counted(others, "other")),
    }
}

/// All that is said of an answer, sentence by sentence.
pub(super) fn sentences(found: &Recommendation<'_>, beside: Option<&Beside>, wanted: &RankingSpec) -> Vec<String> {
    let Some(choice) = found.chosen() else { return Vec::new() };
    let mut said = vec![numbers(found, choice, wanted), reason(found, wanted)];
    if choice.failures.failed > 0 {
        let failures = choice.failures;
        said.push(format!("{} of {} of its starts failed.", failures.failed, counted(failures.of, "start")));
    }
    if found.limits_unconfirmed {
        said.push(format!(
            "That it keeps the limits is not confirmed: {} kept them, and {FEWEST_STARTS} starts confirm it.",
            counted(choice.n, "start")
        ));
    }
    said.extend(beside.map(|beside| neighbours(beside, choice)));
    said.extend(next(found));
    said.extend(against_runner_up(found, choice, wanted));
    said
}

/// The warnings of the choice that do not exclude it.
pub(super) fn warnings(found: &Recommendation<'_>) -> Vec<String> {
    let Some(choice) = found.chosen() else { return Vec::new() };
    choice.warnings.iter().map(|warning| format!("{}: {}", cut(&choice.row.name, 80), warning.text)).collect()
}
