//! What the host offers: shared memory, disk, the results directory, memory, open files, time zone data.

use serde_json::json;

use super::{CheckLine, GIB, shown_bytes};
use crate::telemetry::host::{FolderState, HostInfo, Space};

/// Below this, `/dev/shm` cannot carry the exchange between tensor-parallel workers.
const SHM_MINIMUM_BYTES: u64 = GIB;
/// What the XPU and CUDA container guides ask for.
const SHM_ADVISED_BYTES: u64 = 10 * GIB;
const DISK_MINIMUM_BYTES: u64 = GIB;
const DISK_ADVISED_BYTES: u64 = 10 * GIB;
const MEMORY_ADVISED_BYTES: u64 = 8 * GIB;
const OPEN_FILES_ADVISED: u64 = 4096;

/// `/dev/shm` against the largest tp of the grid.
pub fn shm(space: Option<Space>, largest_tp: u32, in_container: bool) -> CheckLine {
    const NAME: &str = "shm";
    let next = if in_container {
        "start the container with --shm-size 10g (or --ipc=host)"
    } else {
        "enlarge it: mount -o remount,size=10g /dev/shm"
    };
    let Some(Space { total_bytes, available_bytes }) = space else {
        let message = "/dev/shm is not there";
        return if largest_tp > 1 {
            CheckLine::failure(NAME, message, next, json!({}))
        } else {
            CheckLine::warning(NAME, message, next, json!({}))
        };
    };
    let data = json!({ "total_bytes": total_bytes, "available_bytes": available_bytes });
    let message = format!("/dev/shm has {}, {} of it free", shown_bytes(total_bytes), shown_bytes(available_bytes));
    if available_bytes < SHM_MINIMUM_BYTES && largest_tp > 1 {
        let message = format!("{message}: too little for tp {largest_tp}");
        let next =
            if total_bytes < SHM_MINIMUM_BYTES { next } else { "remove what earlier runs have left in /dev/shm" };
        CheckLine::failure(NAME, message, next, data)
    } else if total_bytes < SHM_ADVISED_BYTES {
        CheckLine::warning(NAME, message, next, data)
    } else {
        CheckLine::ok(NAME, message, data)
    }
}

/// Room for the results (and whatever vLLM writes beside them). `space` is absent when it could not be read.
pub fn disk(path: &std::path::Path, space: Option<Space>) -> CheckLine {
    const NAME: &str = "disk";
    let place = path.display();
    let next = "free some, or choose another place with --results-dir";
    let Some(Space { available_bytes, .. }) = space else {
        return CheckLine::warning(
            NAME,
            format!("the room on the disk of {place} is not known"),
            next,
            json!({ "path": path }),
        );
    };
    let data = json!({ "path": path, "available_bytes": available_bytes });
    let message = format!("{} free on the disk of {place}", shown_bytes(available_bytes));
    if available_bytes < DISK_MINIMUM_BYTES {
        CheckLine::failure(NAME, message, next, data)
    } else if available_bytes < DISK_ADVISED_BYTES {
        CheckLine::warning(NAME, message, next, data)
    } else {
        CheckLine::ok(NAME, message, data)
    }
}

/// Whether results can be written.
pub fn results_dir(state: &FolderState) -> CheckLine {
    const NAME: &str = "results-dir";
    let place = state.path.display();
    let data = json!({ "path": state.path, "exists": state.exists, "writable": state.refusal.is_none() });
    match (&state.refusal, state.exists) {
        (Some(why), _) => CheckLine::failure(
            NAME,
            format!("results cannot be written to {place}: {why}"),
            "give this user the folder, or choose another with --results-dir",
            data,
        ),
        (None, true) => CheckLine::ok(NAME, format!("{place} is writable"), data),
        (None, false) => {
            CheckLine::ok(NAME, format!("{place} will be made in {}, which is writable", state.tried.display()), data)
        }
    }
}

/// Memory of the host: weights pass through it on their way to the devices.
pub fn memory(host: &HostInfo) -> CheckLine {
    const NAME: &str = "memory";
    let data = json!({
        "total_bytes": host.memory_total_bytes,
        "available_bytes": host.memory_available_bytes,
        "cgroup_bytes": host.cgroup_memory_bytes,
    });
    let room = host.memory_available_bytes.into_iter().chain(host.cgroup_memory_bytes).min();
    let Some(room) = room else {
        return CheckLine::warning(NAME, "the memory of this machine is not known", "look at /proc/meminfo", data);
    };
    let limit =
        host.cgroup_memory_bytes.map(|bytes| format!(", of which this container may use {}", shown_bytes(bytes)));
    let available = host.memory_available_bytes.map_or_else(|| "unknown".to_owned(), shown_bytes);
    let message = format!("{available} of memory available{}", limit.unwrap_or_default());
    if room < MEMORY_ADVISED_BYTES {
        let next = "end other programs, or give the container more memory: loading a model needs about the size of its largest file";
        CheckLine::warning(NAME, message, next, data)
    } else {
        CheckLine::ok(NAME, message, data)
    }
}

/// The limit of open files (`ulimit -n`), soft and hard; absent stands for unlimited.
pub fn open_files(soft: Option<u64>, hard: Option<u64>) -> CheckLine {
    const NAME: &str = "open-files";
    let data = json!({ "soft": soft, "hard": hard });
    match soft {
        Some(limit) if limit < OPEN_FILES_ADVISED => {
            let can_raise = hard.is_none_or(|hard| hard >= OPEN_FILES_ADVISED);
            let next = if can_raise {
                "run `ulimit -n 65536` in this shell first"
            } else {
                "start the container with --ulimit nofile=65536"
            };
            CheckLine::warning(NAME, format!("only {limit} open files allowed: high concurrency may fail"), next, data)
        }
        Some(limit) => CheckLine::ok(NAME, format!("{limit} open files allowed"), data),
        None => CheckLine::ok(NAME, "open files are not limited", data),
    }
}

/// Whether the run's time zone is known to the data compiled into this program.
pub fn timezone(name: &str) -> CheckLine {
    const NAME: &str = "timezone";
    if name.parse::<chrono_tz::Tz>().is_ok() {
        return CheckLine::ok(NAME, format!("times are shown in {name}"), json!({ "timezone": name, "known": true }));
    }
    let near = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).find(|zone| {
        zone.eq_ignore_ascii_case(name.trim())
            || zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name.trim()))
    });
    let next = format!("use a name such as --timezone {}", near.unwrap_or("Asia/Jerusalem"));
    CheckLine::failure(
        NAME,
        format!("there is no time zone `{name}`"),
        next,
        json!({ "timezone": name, "known": false }),
    )
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::Level::{self, Failure, Ok, Warning};
    use super::*;

    fn sized(total: u64, available: u64) -> Option<Space> {
        Some(Space { total_bytes: total, available_bytes: available })
    }

    #[test]
    fn shared_memory_truth_table() {
        for (space, tp, level) in [
            (sized(64 << 20, 64 << 20), 1, Warning),
            (sized(64 << 20, 64 << 20), 2, Failure),
            (sized(GIB, GIB), 8, Warning),
            (sized(10 * GIB - 1, 10 * GIB - 1), 8, Warning),
            (sized(10 * GIB, 10 * GIB), 8, Ok),
            (sized(16 * GIB, 1), 8, Failure),
            (sized(16 * GIB, 1), 1, Ok),
            (None, 1, Warning),
            (None, 2, Failure),
        ] {
            let line = shm(space, tp, true);
            assert_eq!(line.level, level, "{space:?} tp {tp}");
        }
    }

    #[test]
    fn the_next_step_for_shared_memory_fits_the_place_and_the_cause() {
        let next = |space, container| shm(space, 2, container).next_step.unwrap();
        assert!(next(sized(1, 1), true).contains("--shm-size 10g"));
        assert!(next(sized(1, 1), false).contains("remount"));
        assert!(next(sized(16 * GIB, 1), true).contains("earlier runs"));
    }

    #[test]
    fn disk_truth_table() {
        for (available, level) in [(GIB - 1, Failure), (GIB, Warning), (10 * GIB - 1, Warning), (10 * GIB, Ok)] {
            assert_eq!(disk(Path::new("/r"), sized(100 * GIB, available)).level, level, "{available}");
        }
        assert_eq!(disk(Path::new("/r"), None).level, Warning);
    }

    #[test]
    fn results_dir_truth_table() {
        let state = |exists, refusal: Option<&str>| FolderState {
            path: PathBuf::from("/a/b"),
            tried: PathBuf::from("/a"),
            exists,
            refusal: refusal.map(str::to_owned),
        };
        for (state, level, word) in [
            (state(true, None), Ok, "is writable"),
            (state(false, None), Ok, "will be made in /a"),
            (state(true, Some("Read-only file system")), Failure, "Read-only file system"),
            (state(false, Some("Permission denied")), Failure, "Permission denied"),
        ] {
            let line = results_dir(&state);
            assert_eq!(line.level, level);
            assert!(line.message.contains(word), "{}", line.message);
        }
    }

    #[test]
    fn memory_truth_table() {
        let host = |available, cgroup| HostInfo {
            memory_available_bytes: available,
            cgroup_memory_bytes: cgroup,
            ..HostInfo::default()
        };
        for (available, cgroup, level) in [
            (Some(8 * GIB), None, Ok),
            (Some(8 * GIB - 1), None, Warning),
            (Some(64 * GIB), Some(4 * GIB), Warning),
            (Some(64 * GIB), Some(32 * GIB), Ok),
            (None, None, Warning),
        ] {
            assert_eq!(memory(&host(available, cgroup)).level, level, "{available:?} {cgroup:?}");
        }
    }

    #[test]
    fn open_files_truth_table() {
        let judge = |soft, hard| {
            let line = open_files(soft, hard);
            (line.level, line.next_step.unwrap_or_default())
        };
        assert_eq!(judge(Some(4096), Some(4096)).0, Ok);
        assert_eq!(judge(None, None).0, Ok);
        let (level, next) = judge(Some(1024), Some(1_048_576));
        assert_eq!((level, next.contains("ulimit -n")), (Warning, true));
        let (level, next) = judge(Some(1024), Some(1024));
        assert_eq!((level, next.contains("--ulimit")), (Warning, true));
    }

    #[test]
    fn timezone_truth_table() {
        let judge = |name: &str| -> (Level, Option<String>) {
            let line = timezone(name);
            (line.level, line.next_step)
        };
        assert_eq!(judge("Asia/Jerusalem"), (Ok, None));
        assert_eq!(judge("UTC"), (Ok, None));
        for (name, advice) in
            [("asia/jerusalem", "Asia/Jerusalem"), ("berlin", "Europe/Berlin"), ("Mars/Base", "Asia/Jerusalem")]
        {
            let (level, next) = judge(name);
            assert_eq!(level, Failure, "{name}");
            assert!(next.unwrap().ends_with(advice), "{name}");
        }
    }
}
