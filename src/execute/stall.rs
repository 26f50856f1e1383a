//! Whether a measurement still moves: what the server counts, what the server and its client write, what the client
//! computes. It only looks; whoever asked ends the processes.
//!
//! A slow server moves: its counters do, with every step of its engine. What tells nothing (a server that keeps no
//! counters) never ends a measurement.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::load::server::Reading;
use crate::process::{Members, cpu_ticks, stood_still};
use crate::telemetry::netport;

/// So many looks in a row must have seen nothing.
const LOOKS: u32 = 3;
/// Looks within the limit.
const LOOKS_PER_LIMIT: u32 = 10;
/// Between two looks.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// How long the server may take to tell its counters.
const ANSWER_LIMITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// The most of a log that is read at one look.
const MOST_READ: u64 = 256 << 10;
/// A client that computes for more than this part of the time prepares something. One that waits has its timers only.
const WORKS: f64 = 0.1;

/// What is looked at.
pub(super) struct Watched<'a> {
    pub http: &'a reqwest::Client,
    /// `http://HOST:PORT` of the server.
    pub base: String,
    pub port: u16,
    pub server_log: &'a Path,
    /// The client's log, where the client writes only when something moves.
    pub client_log: Option<&'a Path>,
    pub client: Members,
    /// Without a movement for so long it is stalled.
    pub limit: Duration,
}

/// Nothing moved any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stalled {
    /// For so long, seconds.
    pub seconds: u64,
    /// The client has a connection to the server: it waits for it. Without one the client itself stands still.
    pub on_server: bool,
    /// Bytes in the server's log: what follows was said while the server was being ended.
    pub log_length: u64,
}

/// What the server says of its counters.
enum Counters {
    Told(Reading),
    /// It keeps none.
    Absent,
    Unanswered,
}

/// What was seen at the last look.
struct Seen {
    counters: Option<Reading>,
    server_log: Tail,
    client_log: Option<Tail>,
    ticks: u64,
    at: Instant,
}

/// Looks until nothing has moved for the limit.
pub(super) async fn until_stalled(watched: Watched<'_>) -> Stalled {
    let interval = (watched.limit / LOOKS_PER_LIMIT).clamp(INTERVALS[0], INTERVALS[1]);
    let mut seen = Seen {
        counters: None,
        server_log: Tail::at_end(watched.server_log),
        client_log: watched.client_log.map(Tail::at_end),
        ticks: ticks(&watched.client),
        at: Instant::now(),
    };
    let (mut moved, mut looks) = (Instant::now(), 0);
    loop {
        let began = Instant::now();
        tokio::time::sleep(interval).await;
        if seen.moves(&watched).await {
            (moved, looks) = (Instant::now(), 0);
            continue;
        }
        let lost = stood_still(began, interval + answer_limit(watched.limit));
        if !lost.is_zero() {
            (moved, looks) = (moved + lost, 0);
            continue;
        }
        looks += 1;
        if looks >= LOOKS && moved.elapsed() >= watched.limit {
            let pids: Vec<i32> = watched.client.find().iter().map(|stat| stat.pid).collect();
            return Stalled {
                seconds: moved.elapsed().as_secs(),
                on_server: !netport::connected_pids(Path::new("/"), watched.port, &pids).is_empty(),
                log_length: std::fs::metadata(watched.server_log).map_or(0, |meta| meta.len()),
            };
        }
    }
}

impl Seen {
    /// Looks once, at everything: what is not looked at now would count as new the next time.
    async fn moves(&mut self, watched: &Watched<'_>) -> bool {
        let counters = match counters(watched).await {
            Counters::Told(reading) => {
                let moved = self.counters.as_ref().is_none_or(|before| before.differs(&reading));
                self.counters = Some(reading);
                moved
            }
            Counters::Absent => true,
            Counters::Unanswered => false,
        };
        let server = self.server_log.has_news(tells_of_life);
        let client = self.client_log.as_mut().is_some_and(|log| log.has_news(|line| !line.trim().is_empty()));
        let now = ticks(&watched.client);
        let most = self.at.elapsed().as_secs_f64() * ticks_per_second() * WORKS;
        let works = now.saturating_sub(self.ticks) as f64 > most.max(2.0);
        (self.ticks, self.at) = (now, Instant::now());
        counters || server || client || works
    }
}

/// How long the server may take to tell its counters, where it is stalled after `limit`.
fn answer_limit(limit: Duration) -> Duration {
    (limit / 4).clamp(ANSWER_LIMITS[0], ANSWER_LIMITS[1])
}

async fn counters(watched: &Watched<'_>) -> Counters {
    let asked = async {
        let response = watched.http.get(format!("{}/metrics", watched.base)).send().await.ok()?;
        if !response.status().is_success() {
            return Some(Counters::Absent);
        }
        let reading = Reading::parse(&response.text().await.ok()?);
        Some(if reading.counts_tokens() { Counters::Told(reading) } else { Counters::Absent })
    };
    tokio::time::timeout(answer_limit(watched.limit), asked).await.ok().flatten().unwrap_or(Counters::Unanswered)
}

fn ticks(client: &Members) -> u64 {
    client.find().iter().filter_map(|stat| cpu_ticks(stat.pid)).sum()
}

fn ticks_per_second() -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks.map_or(100.0, |ticks| ticks as f64)
}

/// A log that grows.
struct Tail {
    path: PathBuf,
    read: u64,
}

impl Tail {
    fn at_end(path: &Path) -> Self {
        Self { path: path.to_owned(), read: std::fs::metadata(path).map_or(0, |meta| meta.len()) }
    }

    /// Whether a line that counts was written since the last look. Of very much, the end is looked at.
    fn has_news(&mut self, counts: impl Fn(&str) -> bool) -> bool {
        let length = std::fs::metadata(&self.path).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        let from = self.read.max(length.saturating_sub(MOST_READ));
        self.read = length;
        if length <= from {
            return false;
        }
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.take(length - from).read_to_end(&mut bytes)
        });
        read.is_ok() && String::from_utf8_lossy(&bytes).lines().any(counts)
    }
}

/// Whether a line of a server's log shows that it works. An answer to whoever asks for its state is none, nor the line
/// every ten seconds that says that nothing is generated, nor the complaint of a process that waits for another.
fn tells_of_life(line: &str) -> bool {
    let asked = ["\"GET /metrics", "\"GET /health", "\"GET /version", "\"GET /v1/models"];
    let idle = line.contains("prompt throughput: 0.0 tokens/s") && line.contains("generation throughput: 0.0 tokens/s");
    let is_empty = line.trim().is_empty();
    let waits = line.contains("No available shared memory broadcast block found");
    !(is_empty || idle || waits || asked.iter().any(|asked| line.contains(asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hung_server_still_writes_is_no_sign_of_life() {
        for line in [
            "",
            "INFO:     127.0.0.1:40612 - \"GET /metrics HTTP/1.1\" 200 OK",
            "(APIServer pid=1) INFO:     127.0.0.1:40612 - \"GET /health HTTP/1.1\" 200 OK",
            "(APIServer pid=7) INFO 11-28 10:00:00 [loggers.py:248] Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg \
             generation throughput: 0.0 tokens/s, Running: 2 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.1%",
            "(EngineCore_DP0 pid=9) INFO 11-28 10:01:00 [shm_broadcast.py:542] No available shared memory broadcast block \
             found in 60 seconds. This typically happens when some processes are hanging or doing some time-consuming work",
        ] {
            assert!(!tells_of_life(line), "{line}");
        }
        for line in [
            "INFO:     127.0.0.1:40612 - \"POST /v1/completions HTTP/1.1\" 200 OK",
            "Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 12.0 tokens/s, Running: 2 reqs",
            "(EngineCore_DP0 pid=9) INFO 11-28 10:01:00 [gpu_model_runner.py:1] Graph capturing finished",
        ] {
            assert!(tells_of_life(line), "{line}");
        }
    }

    #[test]
    fn only_what_is_new_in_a_log_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "before\n").unwrap();
        let mut tail = Tail::at_end(&path);
        assert!(!tail.has_news(|_| true));
        std::fs::write(&path, "before\nafter\n").unwrap();
        assert!(tail.has_news(|line| line == "after"));
        assert!(!tail.has_news(|_| true), "it was read");
        assert!(!Tail::at_end(Path::new("/dev/zero")).has_news(|_| true));
        assert!(!Tail::at_end(&folder.path().join("none")).has_news(|_| true));
    }
}
