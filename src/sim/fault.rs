//! Faults on request: what goes wrong, for which runs, in which attempts.
//!
//! Grammar of `VLLM_BENCH_SIM_FAULT` (and `--sim-fault`), a list separated by `;`:
//!
//! ```text
//! NAME[:PARAM][@key=value[,key=value...]][#ATTEMPTS]
//! ```
//!
//! `@` restricts a fault to runs whose flags match (`node-rank` tells the ranks of one server apart): `model` (whole name or the part after the last `/`), `tp`,
//! `quantization` (`none` when the flag is absent), `eager` (`true`/`false`), or any flag of `vllm serve` by its long name.
//! `#1` means: only while `VLLM_BENCH_ATTEMPT` is at most 1, so that a retry passes.
//!
//! | fault | parameter | what happens |
//! | --- | --- | --- |
//! | `exit-at-start` | exit code (1) | the server prints its version line and exits |
//! | `out-of-memory` | | `torch.OutOfMemoryError` for XPU while loading weights, exit 1 |
//! | `kv-cache` | `small` | "No available memory for the cache blocks"; `small`: "To serve at least one request ..." |
//! | `never-healthy` | | starts, but `/health` answers 503 for ever |
//! | `late-healthy` | times (5) | `/health` answers 503 that many times, then 200 |
//! | `hang-loading` | `busy` | silent for ever while loading weights; `busy`: the engine core computes meanwhile |
//! | `hang-accept` | | says that it has started, accepts connections, never answers |
//! | `die-in-benchmark` | `kill` `segv` `exit` `engine`, a number of requests, seconds such as `5s`; joined by `+` | dies after that many measured requests (1) or simulated seconds after the first; `kill` is the default, `engine`: only the engine core dies, the API server logs EngineDeadError and shuts down |
//! | `hang-in-benchmark` | `deadlock` `busy` `deaf` `babble`, when as for `die-in-benchmark` | nothing moves any more: the engine core waits for ever (the default) or computes for ever, or the API server answers nobody; `babble`: and writes lines meanwhile |
//! | `silent-health` | | `/health` never answers once a benchmark has begun, while everything else works |
//! | `server-floods` | | the server prints megabytes a second for ever |
//! | `requests-fail` | how many (1), or `all` | measured requests get HTTP 500 |
//! | `streams-fail` | `error` (default) `break` `stall` `malformed` `short` `silent`; `+N` or `+all` | measured answers go wrong (1): an error object amid the tokens, a connection that is cut, no further token, a broken event, half of the tokens, no answer at all |
//! | `rank-dies` | seconds such as `5s` | a headless rank exits before it joins the head; with seconds: so long (simulated) after it joined |
//! | `rank-hangs` | | a headless rank never joins the head |
//! | `reset-refused` | | `/reset_prefix_cache` answers 200 with `{"success": false}`, as vLLM does while blocks are held |
//! | `ignores-sigterm` | | no process of the server ends on SIGTERM or SIGINT |
//! | `grandchild-in-group` | | a process of the group ignores SIGTERM and outlives the server |
//! | `grandchild-out-of-group` | | the same in a session of its own (both end by themselves after 15 minutes) |
//! | `port-taken` | | fails as when another process listens on the port |
//! | `wrong-model` | | serves another model id |
//! | `garbage-log` | | bytes 0 to 255, a line of a mebibyte and no newline, then starts as usual |
//! | `unknown-flag` | flag (`--simulated-flag`) | argparse refuses the flag, exit 2 |
//! | `model-not-found` `gated-model` `network` | | Hugging Face says no, exit 1 |
//! | `quantization-unsupported` `dtype-unsupported` | | the configuration is refused, exit 1 |
//! | `too-many-devices` | | fewer devices than tensor-parallel-size, exit 1 |
//! | `level-zero` | | the device is lost while profiling, exit 1 |
//! | `shared-memory` | | `/dev/shm` is full, exit 1 |
//! | `oom-killed` | `engine` | the kernel's OOM killer: SIGKILL while loading, of the whole server or the engine core alone |
//! | `benchmark-hangs` | `connected` | the client is silent for ever, without a connection to the server or with one |
//! | `benchmark-floods` | | the client prints megabytes a second for ever |
//! | `benchmark-exits` | exit code (1) | the client fails with a traceback |
//! | `benchmark-bad-json` | | the result file is cut in the middle |
//! | `benchmark-no-result` | | the client exits 0 and writes no result |

use std::fmt;
use std::str::FromStr;

/// What can go wrong; see the module documentation for the table.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The variants are the rows of the table above.
pub enum Fault {
    ExitAtStart { code: u8 },
    OutOfMemory,
    KvCache { small: bool },
    NeverHealthy,
    LateHealthy { times: u32 },
    HangLoading { busy: bool },
    HangAccept,
    DieInBenchmark { how: Death, after: DieAfter },
    HangInBenchmark { how: Hanging, after: DieAfter },
    SilentHealth,
    ServerFloods,
    RequestsFail { count: Option<u64> },
    StreamsFail { how: BrokenStream, count: Option<u64> },
    RankDies { after: Option<f64> },
    RankHangs,
    ResetRefused,
    IgnoresSigterm,
    GrandchildInGroup,
    GrandchildOutOfGroup,
    PortTaken,
    WrongModel,
    GarbageLog,
    UnknownFlag { flag: String },
    ModelNotFound,
    GatedModel,
    Network,
    QuantizationUnsupported,
    DtypeUnsupported,
    TooManyDevices,
    LevelZero,
    SharedMemory,
    OomKilled { engine_only: bool },
    BenchmarkHangs { connected: bool },
    BenchmarkFloods,
    BenchmarkExits { code: u8 },
    BenchmarkBadJson,
    BenchmarkNoResult,
}

/// How a server dies in a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL of every process of the server.
    Kill,
    /// SIGSEGV of the API server, SIGKILL of the rest.
    Segv,
    /// The API server exits with code 1 without a word.
    Exit,
    /// Only the engine core dies.
    Engine,
}

/// How a server hangs in a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hanging {
    /// The engine core waits for ever.
    Deadlock,
    /// The engine core computes for ever.
    Busy,
    /// The API server answers nobody.
    Deaf,
    /// The same, while lines are written.
    Babble,
}

impl Hanging {
    const ALL: [Self; 4] = [Self::Deadlock, Self::Busy, Self::Deaf, Self::Babble];

    fn name(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::Busy => "busy",
            Self::Deaf => "deaf",
            Self::Babble => "babble",
        }
    }
}

/// When a server dies or hangs in a benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DieAfter {
    /// After so many completed requests that are not warm-ups.
    Requests(u64),
    /// So many simulated seconds after the first such request arrived.
    Seconds(f64),
}

/// What can go wrong within an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenStream {
    /// An error object amid the tokens.
    Error,
    /// The connection is cut.
    Break,
    /// No further token.
    Stall,
    /// An event that is not JSON.
    Malformed,
    /// Half of the tokens.
    Short,
    /// No answer at all.
    Silent,
}

impl BrokenStream {
    const ALL: [Self; 6] = [Self::Error, Self::Break, Self::Stall, Self::Malformed, Self::Short, Self::Silent];

    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Break => "break",
            Self::Stall => "stall",
            Self::Malformed => "malformed",
            Self::Short => "short",
            Self::Silent => "silent",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.name() == name)
    }
}

/// Every fault: its name, what its parameter may be, and one line of help.
pub const KNOWN: &[(&str, &str, &str)] = &[
    ("exit-at-start", "[:CODE]", "the server exits at once"),
    ("out-of-memory", "", "device memory runs out while loading"),
    ("kv-cache", "[:small]", "no memory is left for the KV cache"),
    ("never-healthy", "", "/health answers 503 for ever"),
    ("late-healthy", "[:TIMES]", "/health answers 503 a few times first"),
    ("hang-loading", "[:busy]", "silent for ever while loading"),
    ("hang-accept", "", "accepts connections and never answers"),
    ("die-in-benchmark", "[:kill|segv|exit|engine][+N|+SECONDSs]", "the server dies in the benchmark"),
    ("hang-in-benchmark", "[:deadlock|busy|deaf|babble][+N|+SECONDSs]", "the server hangs in the benchmark"),
    ("silent-health", "", "/health never answers in a benchmark"),
    ("server-floods", "", "the server floods its log"),
    ("requests-fail", "[:N|all]", "requests get HTTP 500"),
    ("streams-fail", "[:error|break|stall|malformed|short|silent][+N|+all]", "answers go wrong"),
    ("rank-dies", "[:SECONDSs]", "a rank on another node dies"),
    ("rank-hangs", "", "a rank on another node never joins"),
    ("reset-refused", "", "the prefix cache is not emptied"),
    ("ignores-sigterm", "", "no process of the server ends on SIGTERM"),
    ("grandchild-in-group", "", "a process of the group stays"),
    ("grandchild-out-of-group", "", "a process in a session of its own stays"),
    ("port-taken", "", "the port is in use"),
    ("wrong-model", "", "another model is served"),
    ("garbage-log", "", "the log is not text"),
    ("unknown-flag", "[:FLAG]", "a flag is refused"),
    ("model-not-found", "", "no such model"),
    ("gated-model", "", "the model needs a licence and a token"),
    ("network", "", "Hugging Face cannot be reached"),
    ("quantization-unsupported", "", "the quantization is not supported"),
    ("dtype-unsupported", "", "the dtype is not supported"),
    ("too-many-devices", "", "more tensor parallelism than devices"),
    ("level-zero", "", "the device is lost"),
    ("shared-memory", "", "/dev/shm is full"),
    ("oom-killed", "[:engine]", "killed by the system"),
    ("benchmark-hangs", "[:connected]", "the client is silent for ever"),
    ("benchmark-floods", "", "the client floods its output"),
    ("benchmark-exits", "[:CODE]", "the client fails"),
    ("benchmark-bad-json", "", "the result file is cut"),
    ("benchmark-no-result", "", "the client writes no result"),
];

/// Why a fault specification was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum FaultError {
    #[error("an empty fault; known faults: {}", known_names())]
    Empty,
    #[error("unknown fault `{name}`{}; known faults: {}", did_you_mean(.nearest), known_names())]
    Unknown { name: String, nearest: Option<&'static str> },
    #[error("`{param}` is no parameter of the fault `{name}`; expected `{name}{expected}`")]
    Param { name: &'static str, param: String, expected: &'static str },
    #[error("`{condition}` is not `key=value`, as in `@tp=4,eager=true`")]
    Condition { condition: String },
    #[error("`#{attempts}` is no number of attempts, as in `#1`")]
    Attempts { attempts: String },
}

fn known_names() -> String {
    KNOWN.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// One fault with the runs and attempts that it applies to.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub fault: Fault,
    /// Flags (key, value) that a run must have.
    pub only_if: Vec<(String, String)>,
    /// Only the n-th benchmark on one server start, from 1 (`@load=2`).
    pub load: Option<u64>,
    /// Only while the attempt number is at most this.
    pub attempts: Option<u32>,
}

impl FaultSpec {
    /// Does it apply to this attempt of a run whose flags `flag` knows?
    pub fn applies(&self, attempt: u32, flag: impl Fn(&str) -> Option<String>) -> bool {
        self.attempts.is_none_or(|most| attempt <= most)
            && self.only_if.iter().all(|(key, wanted)| match flag(key) {
                Some(value) if key == "model" => value == *wanted || value.rsplit('/').next() == Some(wanted.as_str()),
                Some(value) => value == *wanted,
                None => false,
            })
    }
}

/// Parses a list separated by `;`; empty parts are allowed, so that a trailing `;` is no error.
pub fn parse_list(text: &str) -> Result<Vec<FaultSpec>, FaultError> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

impl FromStr for FaultSpec {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let text = text.trim();
        let (text, attempts) = match text.rsplit_once('#') {
            None => (text, None),
            Some((head, tail)) => match tail.parse::<u32>() {
                Ok(most) if most > 0 => (head, Some(most)),
                _ => return Err(FaultError::Attempts { attempts: tail.into() }),
            },
        };
        let (head, conditions) = match text.split_once('@') {
            None => (text, ""),
            Some((_, "")) => return Err(FaultError::Condition { condition: String::new() }),
            Some((head, conditions)) => (head, conditions),
        };
        let only_if: Vec<(String, String)> = conditions
            .split(',')
            .filter(|_| !conditions.is_empty())
            .map(|condition| match condition.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => Ok((normal_key(key.trim()), value.trim().to_string())),
                _ => Err(FaultError::Condition { condition: condition.into() }),
            })
            .collect::<Result<_, _>>()?;
        let (loads, only_if): (Vec<_>, Vec<_>) = only_if.into_iter().partition(|(key, _)| key == "load");
        let load = match loads.first() {
            None => None,
            Some((_, number)) => match number.parse::<u64>() {
                Ok(number) if number > 0 => Some(number),
                _ => return Err(FaultError::Condition { condition: format!("load={number}") }),
            },
        };
        let (name, param) = match head.split_once(':') {
            None => (head.trim(), None),
            Some((name, param)) => (name.trim(), Some(param.trim())),
        };
        Ok(FaultSpec { fault: fault(name, param)?, only_if, load, attempts })
    }
}

fn normal_key(key: &str) -> String {
    match key.trim_start_matches('-').replace('_', "-").as_str() {
        "tensor-parallel-size" => "tp".into(),
        "enforce-eager" => "eager".into(),
        other => other.into(),
    }
}

fn fault(name: &str, param: Option<&str>) -> Result<Fault, FaultError> {
    if name.is_empty() {
        return Err(FaultError::Empty);
    }
    let Some(&(known, expected, _)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
        return Err(FaultError::Unknown { name: name.into(), nearest: nearest(name) });
    };
    let wrong = || FaultError::Param { name: known, param: param.unwrap_or_default().into(), expected };
    if param.is_some() && expected.is_empty() {
        return Err(wrong());
    }
    let flagged = |word: &str| match param {
        None => Ok(false),
        Some(given) if given == word => Ok(true),
        Some(_) => Err(wrong()),
    };
    fn number<T: FromStr>(param: Option<&str>, default: T) -> Option<T> {
        param.map_or(Some(default), |text| text.parse().ok())
    }
    Ok(match known {
        "exit-at-start" => Fault::ExitAtStart { code: number(param, 1).ok_or_else(wrong)? },
        "out-of-memory" => Fault::OutOfMemory,
        "kv-cache" => Fault::KvCache { small: flagged("small")? },
        "never-healthy" => Fault::NeverHealthy,
        "late-healthy" => Fault::LateHealthy { times: number(param, 5).ok_or_else(wrong)? },
        "hang-loading" => Fault::HangLoading { busy: flagged("busy")? },
        "hang-accept" => Fault::HangAccept,
        "die-in-benchmark" => death(param).ok_or_else(wrong)?,
        "hang-in-benchmark" => hanging(param).ok_or_else(wrong)?,
        "silent-health" => Fault::SilentHealth,
        "server-floods" => Fault::ServerFloods,
        "requests-fail" if param == Some("all") => Fault::RequestsFail { count: None },
        "requests-fail" => Fault::RequestsFail { count: Some(number(param, 1).ok_or_else(wrong)?) },
        "streams-fail" => {
            let (how, count) = param.map_or(("error", None), |text| match text.split_once('+') {
                Some((how, count)) => (how, Some(count)),
                None => (text, None),
            });
            let how = BrokenStream::named(how).ok_or_else(wrong)?;
            let count = if count == Some("all") { None } else { Some(number(count, 1).ok_or_else(wrong)?) };
            Fault::StreamsFail { how, count }
        }
        "rank-dies" => {
            let seconds = |text: &str| text.strip_suffix('s')?.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
            Fault::RankDies { after: param.map(|text| seconds(text).ok_or_else(wrong)).transpose()? }
        }
        "rank-hangs" => Fault::RankHangs,
        "reset-refused" => Fault::ResetRefused,
        "ignores-sigterm" => Fault::IgnoresSigterm,
        "grandchild-in-group" => Fault::GrandchildInGroup,
        "grandchild-out-of-group" => Fault::GrandchildOutOfGroup,
        "port-taken" => Fault::PortTaken,
        "wrong-model" => Fault::WrongModel,
        "garbage-log" => Fault::GarbageLog,
        "unknown-flag" => Fault::UnknownFlag { flag: param.unwrap_or("--simulated-flag").into() },
        "model-not-found" => Fault::ModelNotFound,
        "gated-model" => Fault::GatedModel,
        "network" => Fault::Network,
        "quantization-unsupported" => Fault::QuantizationUnsupported,
        "dtype-unsupported" => Fault::DtypeUnsupported,
        "too-many-devices" => Fault::TooManyDevices,
        "level-zero" => Fault::LevelZero,
        "shared-memory" => Fault::SharedMemory,
        "oom-killed" => Fault::OomKilled { engine_only: flagged("engine")? },
        "benchmark-hangs" => Fault::BenchmarkHangs { connected: flagged("connected")? },
        "benchmark-floods" => Fault::BenchmarkFloods,
        "benchmark-exits" => Fault::BenchmarkExits { code: number(param, 1).ok_or_else(wrong)? },
        "benchmark-bad-json" => Fault::BenchmarkBadJson,
        "benchmark-no-result" => Fault::BenchmarkNoResult,
        _ => return Err(FaultError::Unknown { name: name.into(), nearest: None }),
    })
}

fn death(param: Option<&str>) -> Option<Fault> {
    let (mut how, mut after) = (Death::Kill, DieAfter::Requests(1));
    for part in param.unwrap_or("kill").split('+') {
        match part.trim() {
            "kill" => how = Death::Kill,
            "segv" => how = Death::Segv,
            "exit" => how = Death::Exit,
            "engine" => how = Death::Engine,
            part => after = when(part)?,
        }
    }
    Some(Fault::DieInBenchmark { how, after })
}

fn hanging(param: Option<&str>) -> Option<Fault> {
    let (mut how, mut after) = (Hanging::Deadlock, DieAfter::Requests(1));
    for part in param.unwrap_or("deadlock").split('+').map(str::trim) {
        match Hanging::ALL.into_iter().find(|how| how.name() == part) {
            Some(named) => how = named,
            None => after = when(part)?,
        }
    }
    Some(Fault::HangInBenchmark { how, after })
}

/// A number of requests, or seconds such as `5s`.
fn when(part: &str) -> Option<DieAfter> {
    let Some(seconds) = part.strip_suffix('s') else { return Some(DieAfter::Requests(part.parse().ok()?)) };
    let seconds: f64 = seconds.parse().ok()?;
    (seconds >= 0.0 && seconds.is_finite()).then_some(DieAfter::Seconds(seconds))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::ExitAtStart { code } => write!(f, "exit-at-start:{code}"),
            Fault::OutOfMemory => f.write_str("out-of-memory"),
            Fault::KvCache { small: true } => f.write_str("kv-cache:small"),
            Fault::KvCache { small: false } => f.write_str("kv-cache"),
            Fault::NeverHealthy => f.write_str("never-healthy"),
            Fault::LateHealthy { times } => write!(f, "late-healthy:{times}"),
            Fault::HangLoading { busy: true } => f.write_str("hang-loading:busy"),
            Fault::HangLoading { busy: false } => f.write_str("hang-loading"),
            Fault::HangAccept => f.write_str("hang-accept"),
            Fault::DieInBenchmark { how, after } => {
                let how = match how {
                    Death::Kill => "kill",
                    Death::Segv => "segv",
                    Death::Exit => "exit",
                    Death::Engine => "engine",
                };
                match after {
                    DieAfter::Requests(n) => write!(f, "die-in-benchmark:{how}+{n}"),
                    DieAfter::Seconds(s) => write!(f, "die-in-benchmark:{how}+{s}s"),
                }
            }
            Fault::HangInBenchmark { how, after: DieAfter::Requests(n) } => {
                write!(f, "hang-in-benchmark:{}+{n}", how.name())
            }
            Fault::HangInBenchmark { how, after: DieAfter::Seconds(s) } => {
                write!(f, "hang-in-benchmark:{}+{s}s", how.name())
            }
            Fault::SilentHealth => f.write_str("silent-health"),
            Fault::ServerFloods => f.write_str("server-floods"),
            Fault::RequestsFail { count: Some(n) } => write!(f, "requests-fail:{n}"),
            Fault::RequestsFail { count: None } => f.write_str("requests-fail:all"),
            Fault::StreamsFail { how, count: Some(n) } => write!(f, "streams-fail:{}+{n}", how.name()),
            Fault::StreamsFail { how, count: None } => write!(f, "streams-fail:{}+all", how.name()),
            Fault::RankDies { after: None } => f.write_str("rank-dies"),
            Fault::RankDies { after: Some(seconds) } => write!(f, "rank-dies:{seconds}s"),
            Fault::RankHangs => f.write_str("rank-hangs"),
            Fault::ResetRefused => f.write_str("reset-refused"),
            Fault::IgnoresSigterm => f.write_str("ignores-sigterm"),
            Fault::GrandchildInGroup => f.write_str("grandchild-in-group"),
            Fault::GrandchildOutOfGroup => f.write_str("grandchild-out-of-group"),
            Fault::PortTaken => f.write_str("port-taken"),
            Fault::WrongModel => f.write_str("wrong-model"),
            Fault::GarbageLog => f.write_str("garbage-log"),
            Fault::UnknownFlag { flag } => write!(f, "unknown-flag:{flag}"),
            Fault::ModelNotFound => f.write_str("model-not-found"),
            Fault::GatedModel => f.write_str("gated-model"),
            Fault::Network => f.write_str("network"),
            Fault::QuantizationUnsupported => f.write_str("quantization-unsupported"),
            Fault::DtypeUnsupported => f.write_str("dtype-unsupported"),
            Fault::TooManyDevices => f.write_str("too-many-devices"),
            Fault::LevelZero => f.write_str("level-zero"),
            Fault::SharedMemory => f.write_str("shared-memory"),
            Fault::OomKilled { engine_only: true } => f.write_str("oom-killed:engine"),
            Fault::OomKilled { engine_only: false } => f.write_str("oom-killed"),
            Fault::BenchmarkHangs { connected: true } => f.write_str("benchmark-hangs:connected"),
            Fault::BenchmarkHangs { connected: false } => f.write_str("benchmark-hangs"),
            Fault::BenchmarkFloods => f.write_str("benchmark-floods"),
            Fault::BenchmarkExits { code } => write!(f, "benchmark-exits:{code}"),
            Fault::BenchmarkBadJson => f.write_str("benchmark-bad-json"),
            Fault::BenchmarkNoResult => f.write_str("benchmark-no-result"),
        }
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        let load = self.load.map(|number| ("load".to_owned(), number.to_string()));
        for (index, (key, value)) in self.only_if.iter().chain(&load).enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { '@' } else { ',' })?;
        }
        match self.attempts {
            Some(most) => write!(f, "#{most}"),
            None => Ok(()),
        }
    }
}

/// The known name nearest to a misspelt one, if any is near.
fn nearest(name: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .map(|(known, ..)| (distance(name, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .map(|(_, known)| known)
}

/// Levenshtein distance over bytes (names are ASCII).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> FaultSpec {
        text.parse().expect(text)
    }

    #[test]
    fn every_known_fault_parses_without_parameter_and_survives_its_own_text() {
        for (name, ..) in KNOWN {
            let spec = parsed(name);
            assert_eq!(parsed(&spec.to_string()), spec, "{name}");
            let full = format!("{spec}@tp=4,model=Qwen/Qwen3-4B#2");
            assert_eq!(parsed(&full).to_string(), full);
        }
    }

    #[test]
    fn the_documentation_table_names_every_fault() {
        let table = include_str!("fault.rs").split("\nuse std").next().expect("docs");
        for (name, ..) in KNOWN {
            assert!(table.contains(&format!("`{name}`")), "{name} is missing in the table");
        }
    }

    #[test]
    fn parameters() {
        assert_eq!(parsed("exit-at-start:7").fault, Fault::ExitAtStart { code: 7 });
        assert_eq!(
            parsed("die-in-benchmark:engine+20").fault,
            Fault::DieInBenchmark { how: Death::Engine, after: DieAfter::Requests(20) }
        );
        assert_eq!(
            parsed("die-in-benchmark:2.5s").fault,
            Fault::DieInBenchmark { how: Death::Kill, after: DieAfter::Seconds(2.5) }
        );
        assert_eq!(parsed("requests-fail:all").fault, Fault::RequestsFail { count: None });
    }

    #[test]
    fn conditions_and_attempts() {
        let spec = parsed("out-of-memory@model=Qwen3-4B,tensor_parallel_size=2,eager=true#1");
        let flags = |key: &str| match key {
            "model" => Some("Qwen/Qwen3-4B".to_string()),
            "tp" => Some("2".to_string()),
            "eager" => Some("true".to_string()),
            _ => None,
        };
        assert!(spec.applies(1, flags));
        assert!(!spec.applies(2, flags));
        assert!(!spec.applies(1, |key| (key != "tp").then(|| flags(key)).flatten()));
        assert!(!parsed("network@block-size=64").applies(1, flags));
    }

    #[test]
    fn errors_name_the_nearest_and_the_known() {
        let error = "out-off-memory".parse::<FaultSpec>().unwrap_err().to_string();
        assert!(error.contains("did you mean `out-of-memory`?"), "{error}");
        assert!(error.contains("benchmark-no-result"), "{error}");
        for bad in [
            "",
            "exit-at-start:x",
            "network:1",
            "network@tp",
            "network#0",
            "network#x",
            "network@",
            "oom-killed:worker",
        ] {
            assert!(bad.parse::<FaultSpec>().is_err(), "{bad}");
        }
        assert_eq!(parse_list("network; gated-model#1 ;").expect("list").len(), 2);
    }
}
