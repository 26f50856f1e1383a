//! Binding what is started to some cores.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::model::core_list;

/// Runs `start` while the calling thread is bound to these cores, so that what it starts is; to none: as it is.
///
/// # Errors
/// When the kernel refuses, or what `start` answers.
pub(super) fn bound_to<T>(cores: &[u32], start: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    if cores.is_empty() {
        return start();
    }
    let thread = Pid::from_raw(0);
    let before = sched_getaffinity(thread)?;
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core as usize)?;
    }
    sched_setaffinity(thread, &set)
        .map_err(|error| std::io::Error::other(format!("could not bind to the cores {}: {error}", core_list(cores))))?;
    let started = start();
    sched_setaffinity(thread, &before)?;
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Vec<usize> {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
        (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap()).collect()
    }

    #[test]
    fn what_is_started_is_bound_and_the_caller_is_not_afterwards() {
        let all = now();
        let last = *all.last().expect("a core");
        let seen = bound_to(&[u32::try_from(last).unwrap()], || Ok(now())).unwrap();
        assert_eq!((seen, now()), (vec![last], all));
    }
}
