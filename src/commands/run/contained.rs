//! The container of a run as this machine has it: its runtime, its image, and a small program that asks the image's vLLM.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::commands::host_facts;
use crate::config::{Environment, Settings, is_executable};
use crate::execute::{self, Container, ContainerRequest, RuntimeKind, UnitContext};
use crate::preflight::asker;
use crate::telemetry::{DeviceKind, check, devices, run_limited};

/// How long a runtime may take to say whether it has an image.
const INSPECT: Duration = Duration::from_secs(30);
/// How long vLLM may take in a container to say its version: its import takes ten seconds, and minutes on a busy machine.
const VERSION: Duration = Duration::from_secs(300);

/// Beginnings of the names of variables that a server outside of a container would inherit, and that mean something to it.
const PASSED: [&str; 13] = [
    "HF_",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "TOKENIZERS_",
    "VLLM_",
    "OPENAI_API_KEY",
    "CUDA_",
    "NCCL_",
    "CCL_",
    "ZE_",
    "ONEAPI_DEVICE_SELECTOR",
    "OMP_",
];
/// The same of AMD's devices, and the proxies.
const MORE_PASSED: [&str; 9] =
    ["HIP_", "ROCR_", "HSA_", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// The container in which the servers of a run start; `None` where they start in none. Directories of caches that are missing are made.
///
/// # Errors
/// When no runtime is found.
pub fn container(
    settings: &Settings,
    environment: &Environment,
    devices: DeviceKind,
) -> Result<Option<Container>, execute::Error> {
    let Some(request) = settings.container.as_ref().filter(|_| !settings.simulated()) else { return Ok(None) };
    let program = runtime(request, environment)?;
    let kind = RuntimeKind::of(&program).unwrap_or(RuntimeKind::Docker);
    let caches = caches(environment);
    for (_, folder) in &caches {
        // Made by the runtime it would be root's.
        let _ = std::fs::create_dir_all(folder);
    }
    Ok(Some(Container {
        request: request.clone(),
        kind,
        program,
        devices,
        caches,
        passed: passed(environment),
        vllm: settings.vllm_bin.as_ref().map_or_else(|| "vllm".to_owned(), |path| path.to_string_lossy().into_owned()),
        prelude: settings.setvars.clone().filter(|_| devices == DeviceKind::Xpu),
        working_directory: environment.working_directory().to_owned(),
    }))
}

/// Lets servers and clients of these start in the container of the run. What runs on this machine sources nothing then.
///
/// # Errors
/// As [`container`].
pub fn put_into(
    context: &mut UnitContext,
    settings: &Settings,
    environment: &Environment,
    devices: DeviceKind,
) -> Result<(), execute::Error> {
    context.container = container(settings, environment, devices)?;
    if context.container.is_some() {
        context.setvars = None;
    }
    Ok(())
}

/// A program that runs the `vllm` of the run's image, for its version and its flags; `None` where the run has no container. It is made
/// once for each image, and knows the version then.
///
/// # Errors
/// When there is no runtime, or it has no such image.
pub fn program(settings: &Settings, environment: &Environment) -> Result<Option<PathBuf>, execute::Error> {
    if settings.container.is_none() || settings.simulated() {
        return Ok(None);
    }
    let kind = devices::detect(&host_facts::probe(settings, environment)).kind;
    let Some(container) = container(settings, environment, kind)? else { return Ok(None) };
    let image = image_of(&container)?;
    let mut words = vec![container.program.to_string_lossy().into_owned()];
    words.extend(container.asking());
    let digest = Sha256::digest(format!("1\n{image}\n{}", words.join("\0")).as_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = environment.cache_dir().join("containers").join(name);
    let path = folder.join("vllm");
    if !is_executable(&path) {
        let version = version_of(&words);
        write(&folder, &path, &asker(&container.request.image, version.as_deref(), &words))
            .map_err(|source| execute::Error::Script { path: path.clone(), source })?;
    }
    Ok(Some(path))
}

/// The runtime that is asked for, or the first that is there.
fn runtime(request: &ContainerRequest, environment: &Environment) -> Result<PathBuf, execute::Error> {
    let names: Vec<&str> = match &request.runtime {
        Some(named) if named.contains('/') => {
            let path = environment.absolute(named);
            return if is_executable(&path) { Ok(path) } else { Err(execute::Error::NotExecutable(path)) };
        }
        Some(named) => vec![named],
        None => RuntimeKind::ALL.map(RuntimeKind::name).to_vec(),
    };
    names.iter().find_map(|name| environment.find_program(name)).ok_or_else(|| execute::Error::NoContainer {
        problem: format!(
            "servers are to run in a container of `{}`, and none of these is on PATH: {}",
            request.image,
            names.join(", ")
        ),
        hint: "install one, or name it with `--container-runtime PATH`; `--container none` starts servers without one"
            .to_owned(),
    })
}

/// What the runtime calls the image: the same name may be another image tomorrow.
fn image_of(container: &Container) -> Result<String, execute::Error> {
    let image = &container.request.image;
    if container.kind == RuntimeKind::Apptainer {
        // A file that was built again is another image; what is fetched is not known before.
        let meta = std::fs::metadata(image).ok();
        let is_file = meta.is_some() || image.contains("://");
        let written = meta.and_then(|meta| Some((meta.len(), meta.modified().ok()?)));
        return is_file.then(|| format!("{image} {written:?}")).ok_or_else(|| execute::Error::NoContainer {
            problem: format!("there is no image `{image}`"),
            hint: "name its file, or fetch one before: `apptainer pull vllm.sif docker://vllm/vllm-openai:v0.14.1`"
                .to_owned(),
        });
    }
    let mut command = Command::new(&container.program);
    command.args(["image", "inspect", "--format", "{{.Id}}", image]);
    let why = match run_limited(command, INSPECT) {
        Ok(output) if output.status.success() => return Ok(output.text().trim().to_owned()),
        Ok(output) => output.complaint().unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    let runtime = container.kind;
    Err(execute::Error::NoContainer {
        problem: format!("{runtime} cannot give the image `{image}`: {why}"),
        hint: format!(
            "fetch it before, for a start is timed: `{runtime} pull {image}`; `{runtime} images` lists what is here"
        ),
    })
}

/// What the image's vLLM says of its version.
fn version_of(words: &[String]) -> Option<String> {
    let (program, rest) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(rest).arg("--version");
    let output = run_limited(command, VERSION).ok().filter(|output| output.status.success())?;
    let text = output.text();
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let version = last.split_whitespace().last()?;
    (version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.')).then(|| version.to_owned())
}

fn write(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file.as_file(), text.as_bytes())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The caches of the hub and of vLLM, each with the variable that names it.
fn caches(environment: &Environment) -> Vec<(&'static str, PathBuf)> {
    let vars = environment.vars();
    let cache = environment.get("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| environment.get("HOME").map(|home| Path::new(home).join(".cache")));
    let own = environment.get("VLLM_CACHE_ROOT").map(PathBuf::from).or_else(|| Some(cache?.join("vllm")));
    let home = check::hf_home(vars);
    let hub = check::hf_hub_cache(vars).filter(|hub| home.as_ref().is_none_or(|home| !hub.starts_with(home)));
    let all = [("HF_HOME", home), ("HF_HUB_CACHE", hub), ("VLLM_CACHE_ROOT", own)];
    all.into_iter().filter_map(|(name, path)| Some((name, path.filter(|path| path.is_absolute())?))).collect()
}

fn passed(environment: &Environment) -> Vec<String> {
    let own = environment.own_variables();
    let is_passed = |name: &String| {
        PASSED.iter().chain(&MORE_PASSED).any(|beginning| name.starts_with(beginning)) && !own.contains(name)
    };
    environment.vars().keys().filter(|name| is_passed(name)).cloned().collect()
}
