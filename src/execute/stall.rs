//! Whether a measurement still moves: what the server counts, what the server and its client write, what the client
//! computes, and whether `/health` is answered. It only looks; whoever asked keeps the evidence and ends the processes.
//!
//! A slow server moves: its counters do, with every step of its engine. Of a server that keeps no counters, the processor time is
//! looked at. `/health` without an answer is a hang only where no token comes either.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::bounded;
use crate::load::server::Reading;
use crate::process::activity::{Work, ticks_per_second};
use crate::process::{Members, stood_still};

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
/// A client that computes for more than this part of the time prepares something, and a server works. One that waits has its timers only.
const WORKS: f64 = 0.1;

/// What is looked at.
pub(super) struct Watched<'a> {
    pub http: &'a reqwest::Client,
    /// `http://HOST:PORT` of the server.
    pub base: String,
    pub server_log: &'a Path,
    /// The client's log, where the client writes only when something moves.
    pub client_log: Option<&'a Path>,
    pub server: Members,
    pub client: Members,
    /// Without a movement for so long it is stalled.
    pub limit: Duration,
    /// What the server counted before the client began, where that is known.
    pub before: Option<&'a Reading>,
}

/// Nothing moved any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stalled {
    /// For so long, seconds.
    pub seconds: u64,
    /// What did not.
    pub why: Why,
    /// Whether the server has counted anything since the client began; `None` where it counts nothing.
    pub was_asked: Option<bool>,
    /// Bytes in the server's log: what follows was said while the server was being ended.
    pub log_length: u64,
}

/// Why it counts as standing still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// No token, no finished request, no line in a log.
    NothingMoves,
    /// Lines came, but no token, and `/health` was not answered.
    HealthSilent,
}

/// What the server says of its counters.
enum Counters {
    Told(Reading),
    /// It keeps none.
    Absent,
    Unanswered,
}

/// What one look saw since the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Look {
    /// The server's counters moved; `None` where it keeps none.
    counted: Option<bool>,
    /// The server wrote a line that shows that it works.
    server_line: bool,
    /// The client wrote one, where it does so only when something moves.
    client_line: bool,
    /// The client computes.
    client_works: bool,
    /// The server computes.
    server_works: bool,
    /// `/health` was answered, whatever with.
    health: bool,
}

/// Since when nothing moves. Pure: times are those since the watch began.
#[derive(Debug)]
struct Stillness {
    limit: Duration,
    moved: Duration,
    looks: u32,
    /// The last token, or the last sign that there may have been one.
    token: Duration,
    /// The last answer of `/health`.
    health: Duration,
    told: bool,
}

/// What a look says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    GoOn,
    /// `/health` has been silent for so long, and tokens come: to be told, once.
    OnlyHealth(Duration),
    Stalled(Why, Duration),
}

impl Stillness {
    fn new(limit: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { limit, moved: zero, looks: 0, token: zero, health: zero, told: false }
    }

    /// The program itself was stopped for so long: nobody's silence.
    fn lost(&mut self, lost: Duration) {
        self.looks = 0;
        for at in [&mut self.moved, &mut self.token, &mut self.health] {
            *at += lost;
        }
    }

    fn see(&mut self, look: Look, now: Duration) -> Said {
        let token = match look.counted {
            Some(moved) => moved,
            None => look.server_works,
        } || look.client_line;
        if token || look.server_works {
            self.token = now;
        }
        if look.health {
            (self.health, self.told) = (now, false);
        }
        if token || look.server_line || look.client_works {
            (self.moved, self.looks) = (now, 0);
        } else {
            self.looks += 1;
        }
        let since = |at: Duration| now.saturating_sub(at);
        if self.looks >= LOOKS && since(self.moved) >= self.limit {
            return Said::Stalled(Why::NothingMoves, since(self.moved));
        }
        if since(self.health) < self.limit {
            return Said::GoOn;
        }
        if since(self.token) >= self.limit {
            return Said::Stalled(Why::HealthSilent, since(self.health.max(self.token)));
        }
        match std::mem::replace(&mut self.told, true) {
            true => Said::GoOn,
            false => Said::OnlyHealth(since(self.health)),
        }
    }
}

/// What was seen at the last look.
struct Seen {
    counters: Option<Reading>,
    server_log: Tail,
    client_log: Option<Tail>,
    client: Work,
    server: Work,
    at: Instant,
}

/// Looks until nothing has moved for the limit. `tell`: a sentence that the user should read.
pub(super) async fn until_stalled(watched: Watched<'_>, tell: impl Fn(String)) -> Stalled {
    let interval = (watched.limit / LOOKS_PER_LIMIT).clamp(INTERVALS[0], INTERVALS[1]);
    let mut seen = Seen {
        counters: None,
        server_log: Tail::at_end(watched.server_log),
        client_log: watched.client_log.map(Tail::at_end),
        client: Work::of(&watched.client),
        server: Work::of(&watched.server),
        at: Instant::now(),
    };
    let (watching, mut still) = (Instant::now(), Stillness::new(watched.limit));
    loop {
        let began = Instant::now();
        tokio::time::sleep(interval).await;
        let look = seen.look(&watched).await;
        let lost = stood_still(began, interval + answer_limit(watched.limit));
        if !lost.is_zero() {
            still.lost(lost);
        }
        match still.see(look, watching.elapsed()) {
            Said::GoOn => {}
            Said::OnlyHealth(silent) => tell(format!(
                "warning: `/health` of the server has not answered for {} s, while tokens come: the measurement goes on",
                silent.as_secs()
            )),
            Said::Stalled(why, silent) => {
                return Stalled {
                    seconds: silent.as_secs(),
                    why,
                    was_asked: watched.before.and_then(|before| Some(before.differs(seen.counters.as_ref()?))),
                    log_length: std::fs::metadata(watched.server_log).map_or(0, |meta| meta.len()),
                };
            }
        }
    }
}

impl Seen {
    /// Looks once, at everything: what is not looked at now would count as new the next time.
    async fn look(&mut self, watched: &Watched<'_>) -> Look {
        let (counters, health) = tokio::join!(counters(watched), health(watched));
        let counted = match counters {
            Counters::Told(reading) => {
                let moved = self.counters.as_ref().is_none_or(|before| before.differs(&reading));
                self.counters = Some(reading);
                Some(moved)
            }
            Counters::Absent => None,
            Counters::Unanswered => Some(false),
        };
        let server_line = self.server_log.has_news(tells_of_life);
        let client_line = self.client_log.as_mut().is_some_and(|log| log.has_news(|line| !line.trim().is_empty()));
        let (client, server) = (Work::of(&watched.client), Work::of(&watched.server));
        let most = (self.at.elapsed().as_secs_f64() * ticks_per_second() * WORKS).max(2.0);
        let works = |now: &Work, before: &Work| now.since(before).ticks as f64 > most;
        let (client_works, server_works) = (works(&client, &self.client), works(&server, &self.server));
        (self.client, self.server, self.at) = (client, server, Instant::now());
        Look { counted, server_line, client_line, client_works, server_works, health }
    }
}

/// How long the server may take to tell its counters, where it is stalled after `limit`.
fn answer_limit(limit: Duration) -> Duration {
    (limit / 4).clamp(ANSWER_LIMITS[0], ANSWER_LIMITS[1])
}

/// Whether `/health` is answered. One that refuses is heard of elsewhere: the client's requests fail.
async fn health(watched: &Watched<'_>) -> bool {
    let asked = watched.http.get(format!("{}/health", watched.base)).send();
    tokio::time::timeout(answer_limit(watched.limit), asked).await.is_ok_and(|answer| answer.is_ok())
}

async fn counters(watched: &Watched<'_>) -> Counters {
    let asked = async {
        let response = watched.http.get(format!("{}/metrics", watched.base)).send().await.ok()?;
        if !response.status().is_success() {
            return Some(Counters::Absent);
        }
        let body = bounded::body(response, bounded::TEXT).await.ok()?;
        let reading = Reading::parse(&String::from_utf8_lossy(&body));
        Some(if reading.counts_tokens() { Counters::Told(reading) } else { Counters::Absent })
    };
    tokio::time::timeout(answer_limit(watched.limit), asked).await.ok().flatten().unwrap_or(Counters::Unanswered)
}

/// A log that grows.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    path: PathBuf,
    read: u64,
}

impl Tail {
    pub fn at_end(path: &Path) -> Self {
        Self { path: path.to_owned(), read: std::fs::metadata(path).map_or(0, |meta| meta.len()) }
    }

    /// Whether a line that counts was written since the last look. Of very much, the end is looked at.
    pub fn has_news(&mut self, counts: impl Fn(&str) -> bool) -> bool {
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
pub(super) fn tells_of_life(line: &str) -> bool {
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

    const STILL: Look = Look {
        counted: Some(false),
        server_line: false,
        client_line: false,
        client_works: false,
        server_works: false,
        health: true,
    };

    /// What is said at the last of so many looks, a second apart, each as the one given.
    fn after(seconds: u64, look: impl Fn(u64) -> Look) -> Said {
        let mut still = Stillness::new(Duration::from_secs(10));
        let mut said = Said::GoOn;
        for second in 1..=seconds {
            said = still.see(look(second), Duration::from_secs(second));
            if second < seconds {
                assert!(!matches!(said, Said::Stalled(..)), "at {second} s already: {said:?}");
            }
        }
        said
    }

    #[test]
    fn nothing_that_moves_is_ended_and_what_stands_still_is_within_the_limit() {
        let ten = Duration::from_secs(10);
        let stalled = Said::Stalled(Why::NothingMoves, ten);
        assert_eq!(after(9, |_| STILL), Said::GoOn);
        assert_eq!(after(10, |_| STILL), stalled);
        // Computing alone shows no token where tokens are counted, and is all that can be seen where they are not.
        assert_eq!(after(10, |_| Look { server_works: true, ..STILL }), stalled);
        assert_eq!(after(90, |_| Look { server_works: true, counted: None, ..STILL }), Said::GoOn);
        assert_eq!(after(10, |_| Look { counted: None, ..STILL }), stalled);
        // A token or a line every nine seconds; a client that prepares something.
        for look in [
            Look { counted: Some(true), ..STILL },
            Look { server_line: true, ..STILL },
            Look { client_line: true, ..STILL },
            Look { client_works: true, ..STILL },
        ] {
            assert_eq!(after(90, |second| if second % 9 == 0 { look } else { STILL }), Said::GoOn, "{look:?}");
        }
    }

    #[test]
    fn a_silent_health_is_a_hang_only_where_no_token_comes() {
        let silent = Look { health: false, server_line: true, ..STILL };
        assert_eq!(after(10, |_| silent), Said::Stalled(Why::HealthSilent, Duration::from_secs(10)));
        let tokens = Look { counted: Some(true), ..silent };
        assert_eq!(after(10, |_| tokens), Said::OnlyHealth(Duration::from_secs(10)));
        assert_eq!(after(11, |_| tokens), Said::GoOn, "it is told once");
        // Its engine works: tokens may come over streams that are open.
        assert_eq!(after(40, |_| Look { server_works: true, ..silent }), Said::GoOn);
        assert_eq!(
            after(15, |second| if second <= 5 { Look { health: true, ..silent } } else { silent }),
            Said::Stalled(Why::HealthSilent, Duration::from_secs(10))
        );
    }

    #[test]
    fn time_in_which_the_program_itself_was_stopped_is_nobodys_silence() {
        let mut still = Stillness::new(Duration::from_secs(10));
        for second in 1..=9 {
            assert_eq!(still.see(STILL, Duration::from_secs(second)), Said::GoOn);
        }
        still.lost(Duration::from_secs(600));
        for second in 610..=611 {
            assert_eq!(still.see(STILL, Duration::from_secs(second)), Said::GoOn);
        }
        assert!(matches!(still.see(STILL, Duration::from_secs(612)), Said::Stalled(Why::NothingMoves, _)));
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
