//! Who stands still when nothing moves any more: judged from what was seen of the processes, of `/health` and of the server's counters.
//! Pure: it reads nothing.

use crate::model::{Hang, Party, Standstill, StartPhase};
use crate::process::activity::Activity;

/// What vLLM's engine and worker processes call themselves.
pub(super) const ENGINE_TITLE: &str = "VLLM::";
/// A process that uses a larger part of a core computes; one that waits has its timers only.
const BUSY: f64 = 0.2;

/// What the server said to whoever asked whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// 2xx.
    Well,
    /// Another status.
    Unwell(u16),
    /// It takes connections and does not answer.
    Silent,
    /// Nobody listens.
    Closed,
}

/// A process as it was seen twice, a moment apart.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// At the second look.
    pub now: Activity,
    /// The part of one core that it used in between, all threads together.
    pub busy: f64,
    /// One of its threads ran, or waited for a core, at both looks: on a machine that is busy it gets but a small part.
    pub runs: bool,
    /// Where it waited in the kernel without being interruptible, at both looks.
    pub stuck: Option<String>,
    /// It is the first process of its group.
    pub leads: bool,
}

impl Member {
    fn computes(&self) -> bool {
        self.busy >= BUSY || self.runs
    }
}

/// Everything that was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The processes of the server.
    pub server: Vec<Member>,
    /// Those of the client; empty where none runs.
    pub client: Vec<Member>,
    /// The client has a connection to the server.
    pub connected: bool,
    /// What `/health` said.
    pub health: Health,
    /// Requests that the server works on, or that wait there; `None` where it does not say.
    pub under_way: Option<f64>,
    /// Whether the server has counted anything since the client began; `None` where it counts nothing.
    pub was_asked: Option<bool>,
}

/// Who was found to stand still.
#[derive(Debug, Clone)]
pub(super) struct Found<'s> {
    who: Party,
    does: Standstill,
    member: Option<&'s Member>,
    seen: &'s Seen,
}

impl Seen {
    /// Nothing is known yet.
    pub fn nothing() -> Self {
        let health = Health::Closed;
        Self { server: Vec::new(), client: Vec::new(), connected: false, health, under_way: None, was_asked: None }
    }

    /// Who stands still while requests should run.
    pub fn while_measuring(&self) -> Found<'_> {
        let (engine, api, client) = (self.engines(), self.api(), leader(&self.client));
        let stopped = |members: &[&'_ Member]| members.iter().position(|member| member.now.is_stopped());
        if let Some(at) = stopped(&engine) {
            return self.found(Party::Engine, Standstill::Stopped, Some(engine[at]));
        }
        if let Some(api) = api.filter(|api| api.now.is_stopped()) {
            return self.found(Party::ApiServer, Standstill::Stopped, Some(api));
        }
        let clients: Vec<&Member> = self.client.iter().collect();
        if let Some(at) = stopped(&clients) {
            return self.found(Party::Client, Standstill::Stopped, Some(clients[at]));
        }
        for (who, members) in
            [(Party::Engine, &engine), (Party::ApiServer, &api.into_iter().collect()), (Party::Client, &clients)]
        {
            if let Some(stuck) = members.iter().find(|member| member.stuck.is_some()) {
                return self.found(who, Standstill::InKernel, Some(stuck));
            }
        }
        if matches!(self.health, Health::Silent | Health::Closed) {
            return self.found(Party::ApiServer, doing(api), api);
        }
        let has_none = self.under_way == Some(0.0);
        if let Some(client) = client.filter(|_| self.under_way.is_none_or(|requests| requests <= 0.0)) {
            let for_itself = client.now.waits_for_others() == Some(false);
            if !self.connected || has_none && (self.was_asked == Some(false) || for_itself) {
                return self.found(Party::Client, doing(Some(client)), Some(client));
            }
            if has_none && !busiest(&engine).is_some_and(Member::computes) {
                return self.found(Party::Requests, Standstill::Waits, Some(client));
            }
        }
        let engine = busiest(&engine).or(api);
        self.found(Party::Engine, doing(engine), engine)
    }

    /// Who stands still while the server should become ready.
    pub fn while_starting(&self) -> Found<'_> {
        let (engine, api) = (self.engines(), self.api());
        let all: Vec<(Party, &Member)> = engine
            .iter()
            .map(|member| (Party::Engine, *member))
            .chain(api.map(|api| (Party::ApiServer, api)))
            .collect();
        let stopped = all.iter().find(|(_, member)| member.now.is_stopped());
        if let Some((who, member)) = stopped {
            return self.found(*who, Standstill::Stopped, Some(member));
        }
        if let Some((who, member)) = all.iter().find(|(_, member)| member.stuck.is_some()) {
            return self.found(*who, Standstill::InKernel, Some(member));
        }
        let busiest = all.iter().max_by(|a, b| a.1.busy.total_cmp(&b.1.busy)).filter(|(_, member)| member.computes());
        if let Some((who, member)) = busiest {
            return self.found(*who, Standstill::Busy, Some(member));
        }
        // A server that listens has its engine behind it: then it is the API that does not come up.
        match engine.first().filter(|_| self.health == Health::Closed) {
            Some(engine) => self.found(Party::Engine, Standstill::Waits, Some(engine)),
            None => self.found(Party::ApiServer, Standstill::Waits, api),
        }
    }

    fn found<'s>(&'s self, who: Party, does: Standstill, member: Option<&'s Member>) -> Found<'s> {
        Found { who, does, member, seen: self }
    }

    fn api(&self) -> Option<&Member> {
        leader(&self.server)
    }

    /// The processes that compute: those that call themselves `VLLM::…`, else what the first process has started.
    fn engines(&self) -> Vec<&Member> {
        let titled =
            |member: &&Member| member.now.title.starts_with(ENGINE_TITLE) && !member.now.title.contains("APIServer");
        let titled: Vec<&Member> = self.server.iter().filter(titled).collect();
        if !titled.is_empty() {
            return titled;
        }
        // `python -c from multiprocessing…` of older releases; its resource tracker has one thread.
        self.server.iter().filter(|member| !member.leads && member.now.threads.len() > 1).collect()
    }
}

/// The first process of a group, or the eldest that is left.
fn leader(members: &[Member]) -> Option<&Member> {
    members
        .iter()
        .find(|member| member.leads)
        .or_else(|| members.iter().min_by_key(|member| member.now.process.start_time))
}

fn busiest<'m>(members: &[&'m Member]) -> Option<&'m Member> {
    let busiest = members.iter().copied().max_by(|a, b| a.busy.total_cmp(&b.busy));
    busiest.filter(|busiest| busiest.computes()).or_else(|| members.first().copied())
}

fn doing(member: Option<&Member>) -> Standstill {
    if member.is_some_and(Member::computes) { Standstill::Busy } else { Standstill::Waits }
}

impl Found<'_> {
    /// As it is recorded. `seconds`: without a movement.
    pub fn hang(&self, seconds: u64) -> Hang {
        let stuck = self.member.and_then(|member| member.stuck.clone());
        let place = || self.member.and_then(|member| member.now.waits_in().map(str::to_owned));
        Hang {
            who: self.who,
            does: self.does,
            seconds,
            process: self.member.map(|member| member.now.process),
            waits_in: if self.does == Standstill::Busy { None } else { stuck.or_else(place) },
            health_answers: self.seen.health == Health::Well,
        }
    }

    /// Whether it computes.
    pub fn is_busy(&self) -> bool {
        self.does == Standstill::Busy
    }

    /// Whether the client is to blame, and not the server.
    pub fn is_client(&self) -> bool {
        self.who == Party::Client
    }

    /// What the sentence says, behind what did not move.
    pub fn clause(&self) -> String {
        let who = self.subject();
        match self.does {
            Standstill::Stopped => {
                let then = match self.who {
                    Party::Client => "",
                    Party::ApiServer => ", and answers nobody",
                    Party::Engine | Party::Requests => "",
                };
                format!("{who} is stopped, by a signal (SIGSTOP), a debugger or a frozen cgroup{then}")
            }
            Standstill::InKernel => {
                let place = self.member.and_then(|member| member.stuck.as_deref()).unwrap_or("a place that is hidden");
                format!(
                    "{who} waits in the kernel ({place}) and cannot be interrupted: a device, a disk or a network file system does \
                     not answer"
                )
            }
            Standstill::Busy => {
                let share = self.member.map_or(0.0, |member| member.busy * 100.0);
                let health = if self.answers() { "" } else { " and does not answer `/health`" };
                format!("{who} is busy (it uses {share:.0} % of a core), and nothing comes of it{health}")
            }
            Standstill::Waits => self.waits(&who),
        }
    }

    fn waits(&self, who: &str) -> String {
        let seen = self.seen;
        let place = self.member.and_then(|member| member.now.waits_in());
        let place = place.map(|place| format!(" (in {place})")).unwrap_or_default();
        match (self.who, seen.health) {
            (Party::Client, _) => {
                let why = match (seen.connected, seen.was_asked) {
                    (false, _) => "has no connection to the server",
                    (true, Some(false)) => "has sent no request",
                    (true, Some(true) | None) => "reads no answer",
                };
                let server =
                    if seen.health == Health::Well { "; the server is well and has nothing to do" } else { "" };
                format!("{who} stands still{place}: it computes nothing and {why}{server}")
            }
            (Party::Requests, _) => format!(
                "{who} waits for answers{place}, and the server is well and has no request under way: its engine never took them up, \
                 they were lost between the two, or the client waits for something else"
            ),
            (Party::ApiServer, Health::Silent) => {
                format!("{who} takes connections and answers none; it waits{place} and uses no processor time")
            }
            (Party::ApiServer, Health::Unwell(status)) => {
                format!("{who} answers `/health` with {status}, and does nothing else{place}")
            }
            (Party::ApiServer, Health::Closed) => {
                format!("{who} does not listen; it waits{place} and uses no processor time")
            }
            (Party::Engine | Party::ApiServer, _) => {
                let requests = seen.under_way.filter(|requests| *requests > 0.0);
                let requests = requests.map(|n| format!(" with {n:.0} request(s) under way")).unwrap_or_default();
                format!("{who} waits{place} and uses no processor time{requests}")
            }
        }
    }

    /// Whether `/health` is answered, or need not be yet.
    fn answers(&self) -> bool {
        self.who != Party::ApiServer || !matches!(self.seen.health, Health::Silent)
    }

    /// Who, with the process that shows it.
    fn subject(&self) -> String {
        let name = match self.who {
            Party::Engine => "the engine",
            Party::ApiServer => "the API server",
            Party::Client | Party::Requests => "the benchmark client",
        };
        match self.member {
            Some(member) => format!("{name} (`{}`, process {})", member.now.title, member.now.process.pid),
            None => name.to_owned(),
        }
    }

    /// What to try next.
    pub fn advice(&self) -> Vec<String> {
        let own: &[&str] = match (self.who, self.does) {
            (_, Standstill::Stopped) => &[
                "find out who stopped it: job control (Ctrl-Z), a scheduler or container runtime that suspends jobs, a debugger; `kill -CONT` lets it go on",
            ],
            (_, Standstill::InKernel) => &[
                "look into the kernel's log for a lost device or a dead file system; a wedged device needs a reset, or the machine a reboot",
            ],
            (Party::Engine, Standstill::Busy) => &[
                "a single step may be that slow (a long prompt, compilation, a kernel without an optimised version): give it more time by `--stall-timeout`",
                "the stacks in the evidence show where it computes; try once with `--enforce-eager`",
            ],
            (Party::Engine, Standstill::Waits) => &[
                "the stacks in the evidence show who waits for whom; a lower `--tensor-parallel-size` tells a device from the link between devices",
                "run it once alone with `VLLM_LOGGING_LEVEL=DEBUG` to see its last step",
            ],
            (Party::ApiServer, Standstill::Busy | Standstill::Waits) => &[
                "the stacks in the evidence show what keeps its event loop; fewer clients at once, or `--api-server-count`, take work off it",
            ],
            (Party::Client, Standstill::Busy | Standstill::Waits) => &[
                "the server is not at fault: the stacks in the evidence show where the client stands; `--client builtin` measures with another client",
            ],
            (Party::Requests, _) => &[
                "look into both logs for a request that one side began and the other never had; a proxy or a firewall between the two drops idle connections",
            ],
        };
        own.iter().map(|advice| (*advice).to_owned()).collect()
    }
}

/// What did not move in a start.
pub(super) fn no_progress(phase: StartPhase, seconds: u64) -> String {
    let during = match phase {
        StartPhase::Ready => "after its log said that it is ready".to_owned(),
        _ => format!("while {}", phase.label()),
    };
    format!("no progress for {seconds} s {during} (no log line, no processor time, nothing read or written)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProcessId;
    use crate::process::activity::Thread;

    fn member(title: &str, state: char, busy: f64, place: &str) -> Member {
        let place = Some(place.to_owned()).filter(|place| !place.is_empty());
        let thread = Thread { tid: 5, name: "x".into(), state, waits_in: place, ticks: 0 };
        let process = ProcessId { pid: 5, start_time: 1 };
        let threads = vec![thread.clone(), thread];
        let now = Activity { process, parent: 1, title: title.into(), state, ticks: 0, threads };
        Member { now, busy, runs: state == 'R', stuck: None, leads: !title.starts_with("VLLM::") }
    }

    fn api() -> Member {
        member("python vllm serve", 'S', 0.01, "ep_poll")
    }

    fn engine() -> Member {
        member("VLLM::EngineCore", 'S', 0.0, "futex_do_wait")
    }

    fn client() -> Member {
        member("python vllm bench", 'S', 0.01, "ep_poll")
    }

    fn seen(server: Vec<Member>, client: Vec<Member>) -> Seen {
        Seen { server, client, connected: true, health: Health::Well, under_way: Some(2.0), was_asked: Some(true) }
    }

    fn stuck(mut member: Member, place: &str) -> Member {
        member.stuck = Some(place.into());
        member
    }

    #[test]
    fn who_stands_still_in_a_measurement() {
        let stopped = |title: &str| member(title, 'T', 0.0, "do_signal_stop");
        let busy = |title: &str| member(title, 'R', 0.97, "");
        let shares = |title: &str| member(title, 'R', 0.03, "");
        let usual = || seen(vec![api(), engine()], vec![client()]);
        let cases: Vec<(&str, Seen, Party, Standstill, &str)> = vec![
            (
                "engine stopped",
                seen(vec![api(), stopped("VLLM::EngineCore")], vec![client()]),
                Party::Engine,
                Standstill::Stopped,
                "is stopped",
            ),
            // Its worker spins meanwhile.
            (
                "worker spins, engine stopped",
                seen(vec![api(), stopped("VLLM::EngineCore"), busy("VLLM::Worker_TP0")], vec![client()]),
                Party::Engine,
                Standstill::Stopped,
                "VLLM::EngineCore",
            ),
            (
                "API server stopped",
                Seen {
                    health: Health::Silent,
                    under_way: None,
                    ..seen(vec![stopped("python vllm serve"), engine()], vec![client()])
                },
                Party::ApiServer,
                Standstill::Stopped,
                "answers nobody",
            ),
            (
                "client stopped",
                seen(vec![api(), engine()], vec![stopped("python vllm bench")]),
                Party::Client,
                Standstill::Stopped,
                "benchmark client",
            ),
            (
                "deadlock",
                usual(),
                Party::Engine,
                Standstill::Waits,
                "futex_do_wait) and uses no processor time with 2 request(s)",
            ),
            (
                "busy",
                seen(vec![api(), busy("VLLM::EngineCore")], vec![client()]),
                Party::Engine,
                Standstill::Busy,
                "97 % of a core",
            ),
            (
                "busy on a machine that is",
                seen(vec![api(), shares("VLLM::EngineCore")], vec![client()]),
                Party::Engine,
                Standstill::Busy,
                "3 % of a core",
            ),
            (
                "device",
                seen(vec![api(), stuck(engine(), "xe_sync_wait")], vec![client()]),
                Party::Engine,
                Standstill::InKernel,
                "xe_sync_wait",
            ),
            (
                "API deaf",
                Seen { health: Health::Silent, under_way: None, ..usual() },
                Party::ApiServer,
                Standstill::Waits,
                "answers none",
            ),
            (
                "API spins",
                Seen { health: Health::Silent, ..seen(vec![busy("python vllm serve"), engine()], vec![client()]) },
                Party::ApiServer,
                Standstill::Busy,
                "does not answer `/health`",
            ),
            (
                "client without a connection",
                Seen { connected: false, under_way: Some(0.0), was_asked: Some(false), ..usual() },
                Party::Client,
                Standstill::Waits,
                "has no connection to the server; the server is well",
            ),
            (
                "client that sent nothing",
                Seen { under_way: Some(0.0), was_asked: Some(false), ..usual() },
                Party::Client,
                Standstill::Waits,
                "has sent no request",
            ),
            (
                "client that waits for itself",
                Seen {
                    under_way: Some(0.0),
                    ..seen(vec![api(), engine()], vec![member("python vllm bench", 'S', 0.0, "futex_do_wait")])
                },
                Party::Client,
                Standstill::Waits,
                "reads no answer",
            ),
            (
                "lost answers",
                Seen { under_way: Some(0.0), ..usual() },
                Party::Requests,
                Standstill::Waits,
                "they were lost between the two",
            ),
            // It is well, connected, and waits: nothing is said against it.
            (
                "no counters",
                Seen { under_way: None, was_asked: None, ..usual() },
                Party::Engine,
                Standstill::Waits,
                "the engine",
            ),
            (
                "the client has ended",
                Seen { client: Vec::new(), ..usual() },
                Party::Engine,
                Standstill::Waits,
                "the engine",
            ),
        ];
        for (name, seen, who, does, words) in cases {
            let found = seen.while_measuring();
            assert_eq!((found.who, found.does), (who, does), "{name}: {}", found.clause());
            assert!(found.clause().contains(words), "{name}: {}", found.clause());
            assert!(!found.advice().is_empty());
            let hang = found.hang(7);
            assert_eq!((hang.seconds, hang.health_answers), (7, seen.health == Health::Well), "{name}");
        }
    }

    #[test]
    fn who_stands_still_in_a_start() {
        let closed = |server: Vec<Member>| Seen { health: Health::Closed, under_way: None, ..seen(server, Vec::new()) };
        let cases: Vec<(Seen, Party, Standstill, &str)> = vec![
            (closed(vec![api(), engine()]), Party::Engine, Standstill::Waits, "futex_do_wait"),
            (closed(vec![api()]), Party::ApiServer, Standstill::Waits, "does not listen"),
            (closed(vec![member("bash", 'T', 0.0, "")]), Party::ApiServer, Standstill::Stopped, "is stopped"),
            (closed(vec![api(), member("VLLM::Worker_TP0", 'R', 0.9, "")]), Party::Engine, Standstill::Busy, "90 %"),
            (
                Seen { health: Health::Silent, ..closed(vec![api(), engine()]) },
                Party::ApiServer,
                Standstill::Waits,
                "takes connections and answers none",
            ),
            (
                Seen { health: Health::Unwell(503), ..closed(vec![api(), engine()]) },
                Party::ApiServer,
                Standstill::Waits,
                "with 503",
            ),
            (closed(vec![stuck(api(), "nfs_wait")]), Party::ApiServer, Standstill::InKernel, "nfs_wait"),
            (closed(Vec::new()), Party::ApiServer, Standstill::Waits, "the API server"),
        ];
        for (seen, who, does, words) in cases {
            let found = seen.while_starting();
            assert_eq!((found.who, found.does), (who, does), "{}", found.clause());
            assert!(found.clause().contains(words), "{}", found.clause());
        }
    }
}
