//! A server, and vLLM's own client, in a container: the words of its runtime that stand before those of vLLM.
//!
//! The runtime's client runs in the launch script, in a group like any other: its output is the log, and what ends a group ends the
//! container ([`crate::process::Runtime`]). The container shares the network of the machine, so that ports, readiness and loads are
//! what they are outside. Values of variables never stand on the runtime's command line: it takes them over by their names.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::model::Experiment;
use crate::process::registry::MARKER;
use crate::process::{Role, Runtime, container};
use crate::telemetry::DeviceKind;

use super::EngineCommand;

/// A program that runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeKind {
    /// Docker, with its daemon.
    Docker,
    /// Podman, as root or without.
    Podman,
    /// Apptainer (Singularity): the container is a process like any other.
    Apptainer,
}

impl RuntimeKind {
    /// All of them, in the order in which they are looked for.
    pub const ALL: [RuntimeKind; 3] = [RuntimeKind::Docker, RuntimeKind::Podman, RuntimeKind::Apptainer];

    /// What kind a program of this name is; `None` where it is none that is known.
    pub fn of(program: &Path) -> Option<Self> {
        match program.file_name()?.to_str()? {
            "docker" => Some(Self::Docker),
            "podman" => Some(Self::Podman),
            "apptainer" | "singularity" => Some(Self::Apptainer),
            _ => None,
        }
    }

    /// Its program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Apptainer => "apptainer",
        }
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is asked for: the key `container` of sweep files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerRequest {
    /// The image, or the file of one.
    pub image: String,
    /// Name or path of the runtime; `None` = the first that is found.
    pub runtime: Option<String>,
    /// Size of `/dev/shm`, as the runtime writes it.
    pub shm_size: String,
    /// Directories and files that the container sees under the same path, beside those that are found.
    pub mounts: Vec<PathBuf>,
    /// Further words for the runtime, after all others.
    pub args: Vec<String>,
}

/// A container as this machine starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What is asked for.
    pub request: ContainerRequest,
    /// What kind of runtime.
    pub kind: RuntimeKind,
    /// Its program, as an absolute path.
    pub program: PathBuf,
    /// The devices that the container gets.
    pub devices: DeviceKind,
    /// Directories of caches, by the variable that names each; the container has them under the same path.
    pub caches: Vec<(&'static str, PathBuf)>,
    /// Names of variables of this process that the container gets.
    pub passed: Vec<String>,
    /// The program `vllm` inside of the image.
    pub vllm: String,
    /// oneAPI's environment script inside of the image; sourced where it is there.
    pub prelude: Option<PathBuf>,
    /// Where relative paths begin.
    pub working_directory: PathBuf,
}

/// What a container is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// Server or client.
    pub role: Role,
    /// Whose.
    pub experiment: &'a Experiment,
    /// The arguments of vLLM: files and directories among them are seen inside.
    pub args: &'a [String],
    /// A directory that the client writes to.
    pub writes: Option<&'a Path>,
    /// Variables of its lane.
    pub variables: &'a [(String, String)],
    /// Cores to which it is bound; none = as this program is.
    pub cores: &'a [u32],
    /// The run directory.
    pub run: &'a Path,
}

/// Variables that the launch script always exports.
const EXPORTED: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Sources the first word where it is there, then becomes the others.
const IN_ONEAPI: &str = r#"test ! -f "$1" || source "$1" --force; shift; exec "$@""#;

/// No directory of a container's own is hidden by one of this machine.
const NEVER_MOUNTED: [&str; 12] =
    ["/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/root", "/sbin", "/sys", "/usr"];

impl Container {
    /// The runtime that ends it; `None` where ending its processes does.
    pub fn runtime(&self) -> Option<Runtime> {
        (self.kind != RuntimeKind::Apptainer).then(|| Runtime { program: self.program.clone() })
    }

    /// What stands in the place of the program `vllm` for this purpose.
    pub fn engine(&self, purpose: &Purpose<'_>) -> EngineCommand {
        let mut words = match self.kind {
            RuntimeKind::Docker | RuntimeKind::Podman => self.run_words(purpose),
            RuntimeKind::Apptainer => self.exec_words(purpose),
        };
        words.extend(self.entry());
        EngineCommand { program: self.program.clone(), prefix: words }
    }

    /// What asks the image's vLLM for its version or its flags: `PROGRAM WORDS… serve --help`.
    pub fn asking(&self) -> Vec<String> {
        let mut words = match self.kind {
            RuntimeKind::Docker | RuntimeKind::Podman => {
                words(&["run", "--rm", "--pull", "never", "--network", "none", "--log-driver", "none"])
            }
            RuntimeKind::Apptainer => words(&["exec"]),
        };
        words.extend(self.device_words());
        let variables: &[&str] =
            if self.kind == RuntimeKind::Apptainer { &[] } else { &["COLUMNS", "VLLM_TARGET_DEVICE"] };
        words.extend(variables.iter().flat_map(|name| ["--env".to_owned(), (*name).to_owned()]));
        words.extend(self.request.args.iter().cloned());
        words.extend(self.entry());
        words
    }

    fn run_words(&self, purpose: &Purpose<'_>) -> Vec<String> {
        let mut all = words(&["run", "--rm", "--pull", "never"]);
        all.extend([
            "--name".to_owned(),
            container::name_in_script(),
            "--label".to_owned(),
            container::label_in_script(),
        ]);
        all.push(format!("--label=vllm-bench.run={}", purpose.run.display()));
        all.push(format!("--label=vllm-bench.experiment={}", purpose.experiment.name));
        if let Ok(file) = container::id_file_in_script() {
            all.extend(["--cidfile".to_owned(), file]);
        }
        all.extend(words(&["--network", "host", "--log-driver", "none", "--security-opt", "label=disable"]));
        if self.kind == RuntimeKind::Docker {
            // What vLLM leaves is reaped, and SIGTERM ends it before it has a handler.
            all.push("--init".to_owned());
            let cores: Vec<String> = purpose.cores.iter().map(u32::to_string).collect();
            all.extend((!cores.is_empty()).then(|| format!("--cpuset-cpus={}", cores.join(","))));
        }
        all.push(format!("--shm-size={}", self.request.shm_size));
        if purpose.role == Role::Server {
            all.extend(self.device_words());
        }
        all.extend(self.environment(purpose).into_iter().flat_map(|variable| ["--env".to_owned(), variable]));
        for (path, writable) in self.mounts(purpose) {
            let path = path.to_string_lossy().into_owned();
            all.push(format!("--volume={path}:{path}{}", if writable { "" } else { ":ro" }));
        }
        if self.has_relative_path(purpose) {
            all.push(format!("--workdir={}", self.working_directory.display()));
        }
        all.extend(self.request.args.iter().cloned());
        all
    }

    fn exec_words(&self, purpose: &Purpose<'_>) -> Vec<String> {
        let mut all = words(&["exec"]);
        if purpose.role == Role::Server {
            all.extend(self.device_words());
        }
        // It inherits the environment of the launch script.
        let set = self.environment(purpose).into_iter().filter(|variable| variable.contains('='));
        all.extend(set.flat_map(|variable| ["--env".to_owned(), variable]));
        for (path, writable) in self.mounts(purpose) {
            let path = path.to_string_lossy().into_owned();
            all.extend(["--bind".to_owned(), format!("{path}:{path}{}", if writable { "" } else { ":ro" })]);
        }
        if self.has_relative_path(purpose) {
            all.extend(["--pwd".to_owned(), self.working_directory.display().to_string()]);
        }
        all.extend(self.request.args.iter().cloned());
        all
    }

    /// The image and what is started in it.
    fn entry(&self) -> Vec<String> {
        let image = self.request.image.clone();
        let in_shell = self.prelude.as_ref().map(|prelude| {
            [
                "-c".to_owned(),
                IN_ONEAPI.to_owned(),
                "vllm-bench".to_owned(),
                prelude.display().to_string(),
                self.vllm.clone(),
            ]
        });
        let entry = if in_shell.is_some() { "bash".to_owned() } else { self.vllm.clone() };
        let mut all = match self.kind {
            RuntimeKind::Docker | RuntimeKind::Podman => vec![format!("--entrypoint={entry}"), image],
            RuntimeKind::Apptainer => vec![image, entry],
        };
        all.extend(in_shell.into_iter().flatten());
        all
    }

    /// What lets a container use the devices.
    fn device_words(&self) -> Vec<String> {
        let rootless = self.kind == RuntimeKind::Podman && !nix::unistd::geteuid().is_root();
        let groups = |nodes: &[&str]| match rootless {
            // Of a user without root only this gives the groups on.
            true => vec!["--group-add=keep-groups".to_owned()],
            false => groups_of(nodes).iter().map(|group| format!("--group-add={group}")).collect(),
        };
        match (self.devices, self.kind) {
            (DeviceKind::Cpu, _) => Vec::new(),
            (DeviceKind::Cuda, RuntimeKind::Docker) => words(&["--gpus", "all"]),
            // By the container device interface.
            (DeviceKind::Cuda, RuntimeKind::Podman) => words(&["--device=nvidia.com/gpu=all"]),
            (DeviceKind::Cuda, RuntimeKind::Apptainer) => words(&["--nv"]),
            (DeviceKind::Rocm, RuntimeKind::Apptainer) => words(&["--rocm"]),
            // It shows `/dev` as it is.
            (DeviceKind::Xpu, RuntimeKind::Apptainer) => Vec::new(),
            (DeviceKind::Rocm, RuntimeKind::Docker | RuntimeKind::Podman) => {
                let mut all = words(&["--device=/dev/kfd", "--device=/dev/dri", "--cap-add=SYS_PTRACE"]);
                all.push("--security-opt=seccomp=unconfined".to_owned());
                all.extend(groups(&["/dev/kfd", "/dev/dri"]));
                all
            }
            (DeviceKind::Xpu, RuntimeKind::Docker | RuntimeKind::Podman) => {
                // oneCCL takes memory of the other ranks' processes.
                let mut all = words(&["--device=/dev/dri", "--cap-add=SYS_PTRACE"]);
                all.extend(groups(&["/dev/dri"]));
                all
            }
        }
    }

    /// Variables, each as `NAME` (taken over) or `NAME=VALUE` (a path of this machine).
    fn environment(&self, purpose: &Purpose<'_>) -> Vec<String> {
        let Experiment { server, .. } = purpose.experiment;
        let mut names: BTreeSet<String> = self.passed.iter().cloned().collect();
        names.extend(server.env.keys().cloned());
        names.extend(server.secret_env.iter().cloned());
        names.extend(purpose.variables.iter().map(|(name, _)| name.clone()));
        names.extend(EXPORTED.map(str::to_owned));
        names.insert(MARKER.to_owned());
        let caches = self.caches.iter().filter(|(name, _)| !names.contains(*name));
        let set: Vec<String> = caches.map(|(name, path)| format!("{name}={}", path.display())).collect();
        names.into_iter().chain(set).collect()
    }

    /// What the container sees of this machine, and whether it may write there.
    fn mounts(&self, purpose: &Purpose<'_>) -> Vec<(PathBuf, bool)> {
        let mut found: Vec<(PathBuf, bool)> = Vec::new();
        let mut add = |path: PathBuf, writable: bool| {
            let fits = path.is_absolute() && !path.to_string_lossy().contains(':') && path.exists();
            if fits
                && !NEVER_MOUNTED.iter().any(|never| path == Path::new(never))
                && !found.iter().any(|(known, _)| *known == path)
            {
                found.push((path, writable));
            }
        };
        purpose.writes.into_iter().for_each(|path| add(path.to_owned(), true));
        self.caches.iter().for_each(|(_, path)| add(path.clone(), true));
        self.request.mounts.iter().for_each(|path| add(path.clone(), true));
        if purpose.role == Role::Server && self.devices == DeviceKind::Xpu && self.kind != RuntimeKind::Apptainer {
            add("/dev/dri/by-path".into(), false);
        }
        self.paths(purpose).for_each(|(_, path)| add(path, false));
        found
    }

    /// The arguments that are files or directories of this machine: as they are written, and where they are.
    fn paths<'a>(&'a self, purpose: &Purpose<'a>) -> impl Iterator<Item = (&'a str, PathBuf)> {
        let is_path = |word: &&'a String| word.contains('/') && !word.starts_with('-');
        let place = move |word: &'a String| {
            let path = self.working_directory.join(word);
            path.exists().then_some((word.as_str(), path))
        };
        purpose.args.iter().filter(is_path).filter_map(place)
    }

    fn has_relative_path(&self, purpose: &Purpose<'_>) -> bool {
        self.paths(purpose).any(|(word, _)| !word.starts_with('/'))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The groups of these device nodes, and of those in these directories, as numbers: an image may have no such name.
fn groups_of(nodes: &[&str]) -> BTreeSet<u32> {
    let of = |path: &Path| std::fs::metadata(path).ok().filter(|meta| !meta.is_dir()).map(|meta| meta.gid());
    let inside = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let groups = nodes
        .iter()
        .map(Path::new)
        .flat_map(|node| of(node).into_iter().chain(inside(node).filter_map(|path| of(&path))));
    groups.filter(|group| *group != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::plan::fixture::axis;
    use crate::plan::{Group, Sweep, Value, expand};

    fn container(kind: RuntimeKind, devices: DeviceKind) -> Container {
        Container {
            request: ContainerRequest {
                image: "vllm/vllm-openai:v0.14.1".into(),
                shm_size: "16g".into(),
                ..ContainerRequest::default()
            },
            kind,
            program: Path::new("/usr/bin").join(kind.name()),
            devices,
            caches: vec![("HF_HOME", "/tmp".into())],
            passed: vec!["HTTPS_PROXY".into()],
            vllm: "vllm".into(),
            prelude: None,
            working_directory: "/".into(),
        }
    }

    fn line(container: &Container, role: Role, args: &[&str]) -> String {
        let mut model = axis("model", "m");
        model.values = vec![Value::Text("org/m".to_owned())];
        let group = Group { serve: vec![model], env: vec![axis("A", "b")], ..Group::default() };
        let sweep = Sweep { groups: vec![group], secret_env: vec!["HF_TOKEN".into()], ..Sweep::new(Engine::Vllm) };
        let experiment = expand(&sweep).experiments.remove(0);
        let args = words(args);
        let purpose = Purpose {
            role,
            experiment: &experiment,
            args: &args,
            writes: (role == Role::Benchmark).then_some(Path::new("/var")),
            variables: &[("ZE_AFFINITY_MASK".to_owned(), "1".to_owned())],
            cores: &[2, 3],
            run: Path::new("/results/1"),
        };
        container.engine(&purpose).prefix.join(" ")
    }

    #[test]
    fn each_runtime_gets_the_words_that_let_its_devices_in() {
        for (kind, devices, expected) in [
            (RuntimeKind::Docker, DeviceKind::Cuda, "--gpus all"),
            (RuntimeKind::Podman, DeviceKind::Cuda, "--device=nvidia.com/gpu=all"),
            (RuntimeKind::Apptainer, DeviceKind::Cuda, "exec --nv"),
            (RuntimeKind::Docker, DeviceKind::Rocm, "--device=/dev/kfd --device=/dev/dri --cap-add=SYS_PTRACE"),
            (RuntimeKind::Apptainer, DeviceKind::Rocm, "exec --rocm"),
            (RuntimeKind::Podman, DeviceKind::Xpu, "--device=/dev/dri --cap-add=SYS_PTRACE"),
        ] {
            let container = container(kind, devices);
            let server = line(&container, Role::Server, &["serve", "org/m"]);
            assert!(server.contains(expected), "{server}");
            let client = line(&container, Role::Benchmark, &["bench", "serve"]);
            assert!(!client.contains(expected.rsplit(' ').next().unwrap()), "the client needs no device: {client}");
            let asking = container.asking().join(" ");
            assert!(asking.contains(expected) && asking.contains("vllm/vllm-openai"), "{asking}");
        }
    }

    #[test]
    fn values_of_variables_stay_off_the_command_line_and_paths_are_seen_inside() {
        let docker = container(RuntimeKind::Docker, DeviceKind::Cpu);
        let server = line(
            &docker,
            Role::Server,
            &["serve", "/var/lib", "--tokenizer", "etc/hostname", "--x", "/nowhere/at/all"],
        );
        for part in [
            "--name vllm-bench-$GUARDED_BY_VLLM_BENCH",
            "--label vllm-bench.group=$GUARDED_BY_VLLM_BENCH",
            "--label=vllm-bench.run=/results/1",
            "--env HF_TOKEN",
            "--env A",
            "--env HTTPS_PROXY",
            "--env NO_PROXY",
            "--env ZE_AFFINITY_MASK",
            "--env HF_HOME=/tmp",
            "--volume=/tmp:/tmp",
            "--volume=/var/lib:/var/lib:ro",
            "--volume=/etc/hostname:/etc/hostname:ro",
            "--workdir=/",
            "--cpuset-cpus=2,3",
            "--network host",
            "--shm-size=16g",
        ] {
            assert!(server.contains(part), "{part}: {server}");
        }
        assert!(!server.contains("A=b") && !server.contains("MASK=1") && !server.contains("nowhere"), "{server}");
        assert!(server.ends_with("--entrypoint=vllm vllm/vllm-openai:v0.14.1"), "{server}");
        let client = line(&docker, Role::Benchmark, &["bench", "serve"]);
        assert!(client.contains("--volume=/var:/var ") && !client.contains("--workdir"), "{client}");
    }

    #[test]
    fn oneapi_is_sourced_inside_where_it_is() {
        let mut xpu = container(RuntimeKind::Docker, DeviceKind::Xpu);
        xpu.prelude = Some("/opt/intel/oneapi/setvars.sh".into());
        let prefix = line(&xpu, Role::Server, &["serve", "org/m"]);
        assert!(prefix.contains("--entrypoint=bash vllm/vllm-openai:v0.14.1 -c "), "{prefix}");
        assert!(prefix.ends_with("vllm-bench /opt/intel/oneapi/setvars.sh vllm"), "{prefix}");
    }
}
