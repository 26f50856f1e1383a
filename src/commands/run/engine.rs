//! Which program plays `vllm`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::config::{Environment, Settings, is_executable};
use crate::error::Error;
use crate::execute::{self, EngineCommand};
use crate::telemetry::run_limited;

use super::contained;

/// How long a login shell may take to say where `vllm` is.
const SHELL_LIMIT: Duration = Duration::from_secs(20);

/// Finds the program, as an absolute path: a login shell resets PATH.
///
/// # Errors
/// When there is none, or the one named cannot be run.
pub async fn resolve(settings: &Settings, environment: &Environment) -> Result<EngineCommand, Error> {
    if settings.simulated() {
        return Ok(simulated()?);
    }
    let (settings, environment) = (settings.clone(), environment.clone());
    let found = tokio::task::spawn_blocking(move || find(&settings, &environment)).await;
    let program = found.unwrap_or(Err(execute::Error::NoVllm))?;
    Ok(EngineCommand::of(program))
}

/// This very program as the simulated vLLM.
///
/// # Errors
/// When the program does not know its own path.
pub fn simulated() -> std::io::Result<EngineCommand> {
    Ok(EngineCommand { program: std::env::current_exe()?, prefix: vec!["sim-vllm".to_owned()] })
}

/// The `vllm` of a run: [`find_vllm`], or what runs that of its container's image.
///
/// # Errors
/// When there is none.
pub fn find(settings: &Settings, environment: &Environment) -> Result<PathBuf, execute::Error> {
    match contained::program(settings, environment)? {
        Some(program) => Ok(program),
        None => find_vllm(settings.vllm_bin.clone(), environment),
    }
}

/// The `vllm` the user named, else the one on PATH, else the one a login shell finds.
///
/// # Errors
/// When there is none, or the one named cannot be run.
pub fn find_vllm(named: Option<PathBuf>, environment: &Environment) -> Result<PathBuf, execute::Error> {
    if let Some(path) = named {
        return if is_executable(&path) { Ok(path) } else { Err(execute::Error::NotExecutable(path)) };
    }
    environment.find_program("vllm").or_else(ask_login_shell).ok_or(execute::Error::NoVllm)
}

/// As [`find_vllm`], without asking a login shell: for what must not take time.
pub fn quick_find(settings: &Settings, environment: &Environment) -> Option<PathBuf> {
    if settings.container.is_some() {
        return contained::program(settings, environment).ok().flatten();
    }
    match &settings.vllm_bin {
        Some(path) => is_executable(path).then(|| path.clone()),
        None => environment.find_program("vllm").or_else(ask_login_shell),
    }
}

fn ask_login_shell() -> Option<PathBuf> {
    let mut command = Command::new("bash");
    command.args(["--login", "-c", "command -v vllm"]);
    let output = run_limited(command, SHELL_LIMIT).ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).lines().last()?.trim());
    (path.is_absolute() && is_executable(&path)).then_some(path)
}
