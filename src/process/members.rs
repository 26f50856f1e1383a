//! Which processes belong to a group, and whether one can have been lost from sight.
//!
//! Held by a cgroup, none can. Otherwise by descent: the guard is a subreaper and so is the orchestrator, so that every
//! descendant stays below the guard while that lives, and falls to the orchestrator when it dies. Once both are dead only
//! what was recorded until then (number and start time) and the marker in the environment tell; then it is not proven that
//! none is left. A number alone (of a session, of a process group) never makes a process ours: the kernel gives it away again.

use crate::model::{HeldBy, ProcessId};
use std::collections::{HashMap, HashSet};

use super::cgroup::{self, Removed};
use super::group::is_own_guard;
use super::guard;
use super::procfs::{self, Stat};
use super::registry::{self, Record};
use super::{Runtime, container};

/// What is known of a group in which no process is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emptiness {
    /// Nobody is left.
    Proven,
    /// Guard and orchestrator have died: a process may have been lost from sight.
    NotProven,
    /// The kernel says that somebody is there, and shows nobody.
    Refuted,
}

/// Tells which processes belong to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members(Record);

impl Members {
    /// The members of a registered group.
    pub fn of(record: Record) -> Self {
        Self(record)
    }

    /// What holds them together.
    pub fn held_by(&self) -> HeldBy {
        if self.0.cgroup.is_some() { HeldBy::Cgroup } else { HeldBy::Descent }
    }

    /// The runtime of their container, where they are in one, and the group's token.
    pub(super) fn container(&self) -> Option<(&Runtime, &str)> {
        self.0.container.as_ref().map(|runtime| (runtime, self.0.token.as_str()))
    }

    /// The live members, the guard apart.
    pub fn find(&self) -> Vec<Stat> {
        self.search(false)
    }

    /// The live members, those included that only the marker in their environment tells. Reads more of `/proc` than
    /// [`Members::find`].
    pub fn find_all(&self) -> Vec<Stat> {
        self.search(true)
    }

    fn search(&self, deep: bool) -> Vec<Stat> {
        let all = procfs::all();
        // The cgroup of a container may not be seen from here; the token is in its environment.
        let roots = Roots::of(&self.0, &all, deep || self.0.container.is_some());
        let mut children: HashMap<i32, Vec<&Stat>> = HashMap::new();
        for stat in &all {
            children.entry(stat.parent).or_default().push(stat);
        }
        let mut found: HashSet<i32> = HashSet::new();
        let mut frontier: Vec<&Stat> = all.iter().filter(|stat| roots.contain(stat)).collect();
        while let Some(stat) = frontier.pop() {
            if found.insert(stat.pid) {
                frontier.extend(children.get(&stat.pid).into_iter().flatten());
            }
        }
        let me = ProcessId::current().pid;
        all.into_iter()
            .filter(|stat| found.contains(&stat.pid) && !stat.is_dead())
            .filter(|stat| stat.pid != self.0.guard.pid && stat.pid != me)
            .collect()
    }

    /// Whether a process is in the process group that was started.
    pub(super) fn in_group(&self, stat: &Stat) -> bool {
        self.0.leader.is_some_and(|leader| stat.group == leader.pid)
    }

    /// Records members that were not seen before, so that they are known when guard and orchestrator are dead. Nothing to
    /// do where a cgroup holds them. Returns whether there were new ones.
    pub(super) fn remember(&mut self, alive: &[Stat]) -> bool {
        let new: Vec<ProcessId> =
            alive.iter().map(Stat::process).filter(|process| !self.0.seen.contains(process)).collect();
        if self.0.cgroup.is_some() || new.is_empty() {
            return false;
        }
        self.0.seen.retain(ProcessId::is_alive);
        self.0.seen.extend(new);
        if let Err(error) = registry::register(&self.0) {
            tracing::debug!(%error, "could not record the members of a group");
        }
        true
    }

    /// What is known after no member was seen. Removes the cgroup.
    pub(super) fn emptiness(&self) -> Emptiness {
        let Record { cgroup: Some(dir), guard, .. } = &self.0 else {
            let held = self.0.guard.is_alive() || self.0.orchestrator.is_alive();
            return if held { Emptiness::Proven } else { Emptiness::NotProven };
        };
        match cgroup::remove(dir) {
            // One that cannot be removed from here was looked at: every process says in which cgroup it is.
            Removed::Gone | Removed::Refused => Emptiness::Proven,
            // The guard could not leave it again.
            Removed::Busy if cgroup::members(dir).is_some_and(|pids| pids == [guard.pid]) => Emptiness::Proven,
            Removed::Busy => Emptiness::Refuted,
        }
    }
}

/// Which of these processes belong to which group, by its token: each is looked for upwards, from itself, so that what nobody asks for is
/// not read. `all`: the processes of this machine.
pub fn owners(records: &[Record], pids: &[i32], all: &[Stat]) -> HashMap<i32, String> {
    if pids.is_empty() {
        return HashMap::new();
    }
    let by_pid: HashMap<i32, &Stat> = all.iter().map(|stat| (stat.pid, stat)).collect();
    let mut owners = HashMap::new();
    for record in records {
        let roots = Roots::of(record, all, true);
        for pid in pids.iter().filter(|pid| **pid != record.guard.pid) {
            let mut line = HashSet::new();
            let mut above = by_pid.get(pid);
            while let Some(stat) = above.filter(|stat| line.insert(stat.pid)) {
                if roots.contain(stat) {
                    owners.insert(*pid, record.token.clone());
                    break;
                }
                above = by_pid.get(&stat.parent);
            }
        }
    }
    owners
}

/// The processes whose descendants, and who themselves, belong to a group.
struct Roots<'a> {
    record: &'a Record,
    /// The parent whose every child is one, with the session of those that are not (its own helpers).
    parent: Option<(i32, Option<i32>)>,
    /// The cgroup's members, where it can be read.
    cgroup: Option<HashSet<i32>>,
    name: String,
    /// The number of the container, once there is one.
    container: Option<String>,
    marker: Option<String>,
    /// The other groups of the orchestrator, where that may have adopted members.
    others: Vec<Record>,
}

/// Whether a process is known to belong to this group.
fn is_of(group: &Record, stat: &Stat) -> bool {
    let process = stat.process();
    group.guard == process
        || group.leader == Some(process)
        || group.seen.contains(&process)
        || group.cgroup.is_some() && procfs::is_in_cgroup(stat.pid, &registry::cgroup_name(&group.token))
}

impl<'a> Roots<'a> {
    fn of(record: &'a Record, all: &[Stat], deep: bool) -> Self {
        let parent = if record.guard.is_alive() {
            Some((record.guard.pid, None))
        } else {
            let orchestrator = all.iter().find(|stat| stat.process() == record.orchestrator && !stat.is_dead());
            orchestrator.map(|stat| (stat.pid, Some(stat.session)))
        };
        let others = match parent {
            Some((_, Some(_))) => registry::records().unwrap_or_default(),
            Some((_, None)) | None => Vec::new(),
        };
        let is_other = |other: &Record| other.token != record.token && other.orchestrator == record.orchestrator;
        Self {
            record,
            parent,
            others: others.into_iter().filter(is_other).collect(),
            cgroup: record.cgroup.as_deref().and_then(cgroup::members).map(HashSet::from_iter),
            name: registry::cgroup_name(&record.token),
            container: record.container.as_ref().and_then(|_| container::id_of(&record.token)),
            marker: deep.then(|| registry::marker(&record.token)),
        }
    }

    fn contain(&self, stat: &Stat) -> bool {
        if stat.start_time < self.record.guard.start_time {
            return false;
        }
        let process = stat.process();
        self.is_child(stat)
            || self.record.leader == Some(process)
            || self.record.seen.contains(&process)
            || self.is_in_cgroup(stat.pid)
            || self.container.as_ref().is_some_and(|id| procfs::is_in_container(stat.pid, id))
            || self.marker.as_ref().is_some_and(|marker| procfs::environ_has(stat.pid, marker) == Some(true))
    }

    /// A child of the guard; or, once that is dead, one that the orchestrator adopted. Its own children are guards, and
    /// helpers in its own session; where several groups live at once, it may have adopted members of another one.
    fn is_child(&self, stat: &Stat) -> bool {
        match self.parent {
            Some((parent, None)) => stat.parent == parent,
            Some((parent, Some(session))) => {
                let adopted = stat.parent == parent && stat.session != session;
                adopted
                    && !guard::is_guard(stat.pid)
                    && !is_own_guard(stat.process())
                    && !self.others.iter().any(|other| is_of(other, stat))
            }
            None => false,
        }
    }

    fn is_in_cgroup(&self, pid: i32) -> bool {
        match &self.cgroup {
            Some(pids) => pids.contains(&pid),
            None => self.record.cgroup.is_some() && procfs::is_in_cgroup(pid, &self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::super::{Owner, Role, boot_id, pid_namespace};
    use super::*;

    /// A process in a session and group of its own, whose environment is gone.
    struct Innocent(Child);

    impl Innocent {
        fn start() -> Self {
            let mut command = Command::new("setsid");
            let child = Self(command.args(["sleep", "60"]).env_clear().spawn().unwrap());
            while procfs::argv(child.pid()).first().is_none_or(|program| program != "sleep") {
                std::thread::yield_now();
            }
            child
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }
    }

    impl Drop for Innocent {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn record(guard: ProcessId, leader: Option<ProcessId>) -> Record {
        let gone = ProcessId { pid: 1 << 22, start_time: 1 };
        Record {
            boot_id: boot_id(),
            pid_namespace: pid_namespace(),
            token: "none".into(),
            orchestrator: gone,
            guard,
            leader,
            owner: Owner { run: "/r".into(), experiment: "e".into(), role: Role::Server, port: 1 },
            cgroup: None,
            seen: Vec::new(),
            container: None,
        }
    }

    fn pids(record: Record) -> Vec<i32> {
        Members::of(record).find_all().iter().map(|stat| stat.pid).collect()
    }

    #[test]
    fn a_process_that_only_has_the_number_of_a_recorded_one_is_never_a_member() {
        let innocent = Innocent::start();
        let process = ProcessId::of(innocent.pid()).unwrap();
        // Its session, its group and its own number are those of a record from before it began; its environment is unknown.
        let earlier = ProcessId { start_time: process.start_time - 1, ..process };
        assert!(pids(record(earlier, Some(earlier))).is_empty());
        let mut seen = record(earlier, None);
        seen.seen = vec![earlier, ProcessId { start_time: process.start_time + 1, ..process }];
        assert!(pids(seen).is_empty());
    }

    #[test]
    fn a_recorded_process_is_a_member_although_guard_and_orchestrator_are_dead() {
        let innocent = Innocent::start();
        let process = ProcessId::of(innocent.pid()).unwrap();
        let gone = ProcessId { pid: 1 << 22, start_time: 1 };
        let mut known = record(gone, None);
        known.seen = vec![process];
        assert_eq!(pids(known.clone()), [process.pid]);
        assert_eq!(Members::of(known).emptiness(), Emptiness::NotProven);
        assert_eq!(pids(record(gone, Some(process))), [process.pid]);
    }
}
