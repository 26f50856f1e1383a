//! The machine (or container) that the run happens on, and small probes of its file systems.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{User, getuid};
use serde::{Deserialize, Serialize};

use super::probe::Probe;

/// Limits of at least this many bytes are the kernel's way to say "none" (cgroup v1).
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// What is recorded of the machine. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Host name.
    pub hostname: Option<String>,
    /// Kernel release, such as `6.14.0-1008-intel`.
    pub kernel: Option<String>,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os: Option<String>,
    /// Processor model.
    pub cpu_model: Option<String>,
    /// Processor sockets.
    pub cpu_sockets: Option<u32>,
    /// Logical processors of the machine (see `cgroup_cpus` for what this container may use).
    pub logical_cpus: Option<u32>,
    /// Bytes of memory of the machine.
    pub memory_total_bytes: Option<u64>,
    /// Bytes of memory available without swapping, of the machine.
    pub memory_available_bytes: Option<u64>,
    /// Bytes of memory that the control group allows; absent without a limit.
    pub cgroup_memory_bytes: Option<u64>,
    /// Processors' worth of time that the control group allows; absent without a limit.
    pub cgroup_cpus: Option<f64>,
    /// The kind of container: `docker`, `podman`, `kubernetes`, …; absent outside of one.
    pub container: Option<String>,
    /// The kernel's identity of this boot: process numbers mean nothing across two of them.
    pub boot_id: Option<String>,
    /// The user that runs this program; its number where it has no name.
    pub user: Option<String>,
}

impl HostInfo {
    /// Reads everything. Takes no longer than reading a dozen small files.
    pub fn read(probe: &Probe) -> Self {
        let cpu = cpu_facts(probe);
        let memory = memory_facts(probe);
        let limits = cgroup_limits(probe);
        Self {
            hostname: probe.text("/proc/sys/kernel/hostname"),
            kernel: probe.text("/proc/sys/kernel/osrelease"),
            os: os_name(probe),
            cpu_model: cpu.model,
            cpu_sockets: cpu.sockets,
            logical_cpus: cpu.logical,
            memory_total_bytes: memory.total_bytes,
            memory_available_bytes: memory.available_bytes,
            cgroup_memory_bytes: limits.memory_bytes,
            cgroup_cpus: limits.cpus,
            container: container(probe),
            boot_id: probe.text("/proc/sys/kernel/random/boot_id"),
            user: Some(user()),
        }
    }

    /// Bytes of memory that can really be used here: the machine's, or the control group's if that is less.
    pub fn usable_memory_bytes(&self) -> Option<u64> {
        self.memory_total_bytes.into_iter().chain(self.cgroup_memory_bytes).min()
    }
}

/// Size and room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that this user may still write.
    pub available_bytes: u64,
}

/// `/dev/shm`; `None` where there is none.
pub fn shm(probe: &Probe) -> Option<Space> {
    space(&probe.at("/dev/shm")).ok()
}

/// Room on the file system that holds `path`, or would hold it: the nearest folder above that exists is asked.
pub fn free_disk(path: &Path) -> io::Result<Space> {
    space(&nearest_folder(path)?)
}

fn space(path: &Path) -> io::Result<Space> {
    let metrics = statvfs(path)?;
    let block = metrics.fragment_size();
    Ok(Space { total_bytes: metrics.blocks() * block, available_bytes: metrics.blocks_available() * block })
}

/// Whether a folder can be written to, by trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderState {
    /// The folder asked for.
    pub path: PathBuf,
    /// The folder that was tried: `path`, or the nearest above it that exists.
    pub tried: PathBuf,
    /// Whether `path` itself exists.
    pub exists: bool,
    /// Why nothing can be written; absent when it can.
    pub refusal: Option<String>,
}

/// Creates, writes, syncs and removes a small temporary file in `path`, or (where that does not exist yet) in the nearest
/// folder above it. Creates no folder.
pub fn try_folder(path: &Path) -> FolderState {
    let exists = path.exists();
    let (tried, outcome) = match nearest_folder(path) {
        Ok(folder) => {
            let outcome = write_and_remove(&folder);
            (folder, outcome)
        }
        Err(error) => (path.to_owned(), Err(error)),
    };
    FolderState { path: path.to_owned(), tried, exists, refusal: outcome.err().map(|error| error.to_string()) }
}

/// Whether `path` is a folder that can be written to: really tries, as [`try_folder`].
pub fn is_writable_dir(path: &Path) -> bool {
    path.is_dir() && write_and_remove(path).is_ok()
}

fn write_and_remove(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".vllm-bench-try-").tempfile_in(folder)?;
    file.write_all(b"vllm-bench\n")?;
    file.as_file().sync_all()?;
    file.close()
}

fn nearest_folder(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    for folder in absolute.ancestors() {
        let refuse = |kind, what: &str| Err(io::Error::new(kind, format!("`{}` is {what}", folder.display())));
        match folder.metadata() {
            Ok(found) if found.is_dir() => return Ok(folder.to_owned()),
            Ok(_) => return refuse(io::ErrorKind::NotADirectory, "not a folder"),
            Err(_) if folder.is_symlink() => return refuse(io::ErrorKind::NotFound, "a link to nothing"),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// How many files this process may hold open: now, and at most after raising it. `None` stands for unlimited or unknown.
pub fn open_file_limit() -> (Option<u64>, Option<u64>) {
    let known = |limit: u64| (limit != nix::libc::RLIM_INFINITY).then_some(limit);
    getrlimit(Resource::RLIMIT_NOFILE).map_or((None, None), |(soft, hard)| (known(soft), known(hard)))
}

/// The processor.
#[derive(Debug, Default)]
pub(super) struct CpuFacts {
    pub model: Option<String>,
    pub sockets: Option<u32>,
    pub logical: Option<u32>,
}

pub(super) fn cpu_facts(probe: &Probe) -> CpuFacts {
    let text = probe.text("/proc/cpuinfo").unwrap_or_default();
    let fields: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.trim(), value.trim())).collect();
    let values = |key: &'static str| fields.iter().filter(move |(name, _)| *name == key).map(|(_, value)| *value);
    let count = |number: usize| u32::try_from(number).ok().filter(|number| *number > 0);
    // Arm and others have no "model name".
    let model = ["model name", "cpu model", "Processor", "Model"].iter().find_map(|key| values(key).next());
    CpuFacts {
        model: model.filter(|text| !text.is_empty()).map(str::to_owned),
        sockets: count(values("physical id").collect::<BTreeSet<_>>().len()),
        logical: count(values("processor").count()),
    }
}

/// The machine's memory.
#[derive(Debug, Default)]
pub(super) struct MemoryFacts {
    pub total_bytes: Option<u64>,
    pub available_bytes: Option<u64>,
}

impl MemoryFacts {
    pub fn used_bytes(&self) -> Option<u64> {
        self.total_bytes?.checked_sub(self.available_bytes?)
    }
}

pub(super) fn memory_facts(probe: &Probe) -> MemoryFacts {
    let text = probe.text("/proc/meminfo").unwrap_or_default();
    let kibibytes = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    MemoryFacts { total_bytes: kibibytes("MemTotal"), available_bytes: kibibytes("MemAvailable") }
}

fn os_name(probe: &Probe) -> Option<String> {
    let text = probe.text("/etc/os-release").or_else(|| probe.text("/usr/lib/os-release"))?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("PRETTY_NAME").or_else(|| value("NAME"))?;
    Some(name.trim_matches(['"', '\'']).to_owned())
}

fn user() -> String {
    let uid = getuid();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// The kind of container this runs in, from the traces that each kind leaves.
fn container(probe: &Probe) -> Option<String> {
    let there = |path: &str| probe.at(path).exists();
    if there("/run/secrets/kubernetes.io") || probe.variable("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("kubernetes".to_owned());
    }
    if there("/run/.containerenv") {
        return Some("podman".to_owned());
    }
    if there("/.dockerenv") {
        return Some("docker".to_owned());
    }
    if there("/.singularity.d") {
        return Some("apptainer".to_owned());
    }
    let groups = probe.text("/proc/1/cgroup").unwrap_or_default();
    let marks = [
        ("kubepods", "kubernetes"),
        ("libpod", "podman"),
        ("docker", "docker"),
        ("containerd", "containerd"),
        ("/lxc", "lxc"),
    ];
    let by_group = marks.iter().find(|(mark, _)| groups.contains(mark)).map(|(_, kind)| (*kind).to_owned());
    by_group.or_else(|| probe.text("/run/systemd/container"))
}

#[derive(Debug, Default)]
pub(super) struct Limits {
    pub memory_bytes: Option<u64>,
    pub cpus: Option<f64>,
}

/// The tightest limits of this process's control group and those above it, version 2 and 1.
pub(super) fn cgroup_limits(probe: &Probe) -> Limits {
    let text = probe.text("/proc/self/cgroup").unwrap_or_default();
    let group = |controller: &str| -> Option<&str> {
        text.lines().find_map(|line| {
            let mut words = line.splitn(3, ':');
            let (_, names, path) = (words.next()?, words.next()?, words.next()?);
            (names == controller || (!controller.is_empty() && names.split(',').any(|name| name == controller)))
                .then_some(path)
        })
    };
    let unified = folders(probe, "/sys/fs/cgroup", group(""));
    let memory_v1 = folders(probe, "/sys/fs/cgroup/memory", group("memory"));
    let cpu_v1 = folders(probe, "/sys/fs/cgroup/cpu", group("cpu"));
    let number = |path: PathBuf| super::probe::read_number(&path);
    let memory = unified
        .iter()
        .filter_map(|folder| number(folder.join("memory.max")))
        .chain(memory_v1.iter().filter_map(|folder| number(folder.join("memory.limit_in_bytes"))))
        .filter(|limit| *limit < NO_LIMIT_BYTES);
    let quota_v2 = |folder: &PathBuf| {
        let text = super::probe::read_text(&folder.join("cpu.max"))?;
        let (quota, period) = text.split_once(' ')?;
        Some((quota.parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?))
    };
    let quota_v1 = |folder: &PathBuf| {
        // -1 (no limit) is not a number here.
        let quota = number(folder.join("cpu.cfs_quota_us"))?;
        Some((quota as f64, number(folder.join("cpu.cfs_period_us"))? as f64))
    };
    let quotas = unified.iter().filter_map(quota_v2).chain(cpu_v1.iter().filter_map(quota_v1));
    let cpus = quotas.filter(|(_, period)| *period > 0.0).map(|(quota, period)| quota / period);
    Limits { memory_bytes: memory.min(), cpus: cpus.reduce(f64::min) }
}

/// The folder of a control group and those above it. In a container the path may be the host's: the mount itself is always
/// among them.
fn folders(probe: &Probe, mount: &str, group: Option<&str>) -> Vec<PathBuf> {
    let mount = probe.at(mount);
    let below = group.unwrap_or("/").trim_start_matches('/');
    let plain = !below.split('/').any(|part| part == "..");
    let mut found: Vec<PathBuf> =
        Path::new(if plain { below } else { "" }).ancestors().map(|part| mount.join(part)).collect();
    if !found.contains(&mount) {
        found.push(mount);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn a_machine_is_read() {
        let tree = Tree::new();
        tree.file("proc/sys/kernel/hostname", "gpu-7\n");
        tree.file("proc/sys/kernel/osrelease", "6.14.0-1008-intel\n");
        tree.file("proc/sys/kernel/random/boot_id", "1b2c\n");
        tree.file("etc/os-release", "NAME=\"Ubuntu\"\nPRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\n");
        tree.file(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Xeon(R) 6960P\nphysical id\t: 0\n\nprocessor\t: 1\nphysical id\t: 0\n",
        );
        tree.file("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n");
        tree.file(".dockerenv", "");
        let host = HostInfo::read(&tree.probe());
        assert_eq!(host.hostname.as_deref(), Some("gpu-7"));
        assert_eq!(host.kernel.as_deref(), Some("6.14.0-1008-intel"));
        assert_eq!(host.os.as_deref(), Some("Ubuntu 24.04.2 LTS"));
        assert_eq!(
            (host.cpu_model.as_deref(), host.cpu_sockets, host.logical_cpus),
            (Some("Xeon(R) 6960P"), Some(1), Some(2))
        );
        assert_eq!((host.memory_total_bytes, host.memory_available_bytes), (Some(1_024_000), Some(409_600)));
        assert_eq!(host.container.as_deref(), Some("docker"));
        assert_eq!(host.boot_id.as_deref(), Some("1b2c"));
        assert_eq!((host.cgroup_memory_bytes, host.cgroup_cpus), (None, None));
        let again: HostInfo = serde_json::from_str(&serde_json::to_string(&host).unwrap()).unwrap();
        assert_eq!(again, host);
    }

    #[test]
    fn this_machine_can_be_read() {
        let probe = Probe::of_machine(super::super::Environment::new());
        let host = HostInfo::read(&probe);
        println!("{host:#?}\n{:?}\n{:#?}", shm(&probe), super::super::devices::detect(&probe));
        assert!(host.kernel.is_some() && host.boot_id.is_some() && host.logical_cpus.is_some());
        assert!(host.memory_total_bytes > host.memory_available_bytes);
    }

    #[test]
    fn an_empty_machine_is_unknown_not_zero() {
        let host = HostInfo::read(&Tree::new().probe());
        let unknown = HostInfo { user: host.user.clone(), ..HostInfo::default() };
        assert_eq!(host, unknown);
        assert!(host.user.is_some());
    }

    #[test]
    fn limits_of_version_2_are_the_tightest_on_the_way_up() {
        let tree = Tree::new();
        tree.file("proc/self/cgroup", "0::/a/b\n");
        tree.file("sys/fs/cgroup/a/b/memory.max", "max\n");
        tree.file("sys/fs/cgroup/a/memory.max", "8000\n");
        tree.file("sys/fs/cgroup/memory.max", "9000\n");
        tree.file("sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
        tree.file("sys/fs/cgroup/cpu.max", "max 100000\n");
        let host = HostInfo::read(&tree.probe());
        assert_eq!((host.cgroup_memory_bytes, host.cgroup_cpus), (Some(8000), Some(2.5)));
        assert_eq!(host.usable_memory_bytes(), Some(8000));
    }

    #[test]
    fn limits_of_version_1_and_of_a_container_mount() {
        let tree = Tree::new();
        // The host's path, which this mount does not have.
        tree.file("proc/self/cgroup", "9:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n");
        tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
        tree.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        tree.file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        let host = HostInfo::read(&tree.probe());
        assert_eq!((host.cgroup_memory_bytes, host.cgroup_cpus), (Some(5000), None));
        tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(HostInfo::read(&tree.probe()).cgroup_memory_bytes, None);
    }

    #[test]
    fn containers_are_told_apart() {
        for (path, text, kind) in [
            ("run/.containerenv", "", Some("podman")),
            ("run/secrets/kubernetes.io/x", "", Some("kubernetes")),
            ("proc/1/cgroup", "0::/system.slice/docker-abc.scope\n", Some("docker")),
            ("proc/1/cgroup", "1:cpu:/kubepods/pod1\n", Some("kubernetes")),
            ("proc/1/cgroup", "0::/init.scope\n", None),
        ] {
            let tree = Tree::new();
            tree.file(path, text);
            assert_eq!(container(&tree.probe()).as_deref(), kind, "{path} {text}");
        }
        let probe = Tree::new().probe_with(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
        assert_eq!(container(&probe).as_deref(), Some("kubernetes"));
    }

    #[test]
    fn writing_is_really_tried_and_leaves_nothing() {
        let tree = Tree::new();
        let state = try_folder(&tree.path().join("results/of/today"));
        assert_eq!((state.exists, state.tried.as_path(), state.refusal), (false, tree.path(), None));
        assert!(is_writable_dir(tree.path()));
        assert_eq!(std::fs::read_dir(tree.path()).unwrap().count(), 0);

        let file = tree.file("a-file", "");
        let state = try_folder(&file.join("below"));
        assert!(state.refusal.as_deref().is_some_and(|why| why.contains("a-file")), "{state:?}");
        assert!(!is_writable_dir(&file));
        tree.link("dangling", "/nonexistent/folder");
        let state = try_folder(&tree.path().join("dangling"));
        assert!(state.refusal.as_deref().is_some_and(|why| why.contains("link to nothing")), "{state:?}");
        // No user, root included, can create a file in /proc.
        assert!(!is_writable_dir(Path::new("/proc")));
        assert!(try_folder(Path::new("/proc/none")).refusal.is_some());
    }

    #[test]
    fn room_is_told_for_paths_that_do_not_exist_yet() {
        let tree = Tree::new();
        let space = free_disk(&tree.path().join("x/y")).unwrap();
        assert!(space.total_bytes >= space.available_bytes && space.total_bytes > 0);
        assert_eq!(shm(&tree.probe()), None);
    }
}
