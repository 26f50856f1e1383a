//! Writes a launch script and starts it in a group of its own.

use std::path::Path;

use super::ranks::Meeting;
use super::script::{
    EngineCommand, ScriptContext, bench_args, script_after, serve_args, warmup_args, write_exclusively,
};
use super::{Container, Job, Purpose, UnitContext};
use crate::model::{Cause, Client, Failure, Phase, Side};
use crate::process::{Group, GroupSpec, Owner, Role, Stop};
use crate::safe;

/// The words after the program's own for the server of a job, or for its measurement.
pub(super) fn arguments(role: Role, job: &Job) -> Vec<String> {
    match role {
        Role::Server => serve_args(&job.experiment, job.port),
        Role::Benchmark => bench_args(&job.experiment, job.port, &job.places.result),
    }
}

/// What runs a launch script: a login shell reads the user's profile first.
pub(super) fn shell(login: bool) -> Vec<&'static str> {
    if login { vec!["bash", "--login"] } else { vec!["bash"] }
}

/// The program that plays a role in a job.
fn program(role: Role, job: &Job, context: &UnitContext) -> std::io::Result<EngineCommand> {
    if let Some(container) = container_of(role, job, context) {
        let args = arguments(role, job);
        let engine = container.engine(&Purpose {
            role,
            experiment: &job.experiment,
            args: &args,
            writes: (role == Role::Benchmark).then(|| job.places.result.parent()).flatten(),
            variables: if role == Role::Server { &job.binding.variables } else { &[] },
            cores: cores(role, job),
            run: &context.run,
        });
        return if role == Role::Server { Ok(engine) } else { engine.client_of(&job.experiment, context.stall) };
    }
    match role {
        Role::Server => Ok(match (&context.before, job.experiment.side) {
            (Some(before), Some(Side::Before)) => before.clone(),
            (Some(_) | None, _) => context.engine.clone(),
        }),
        Role::Benchmark => context.engine.client_of(&job.experiment, context.stall),
    }
}

/// The container that a role runs in. The built-in client is part of this program.
fn container_of<'c>(role: Role, job: &Job, context: &'c UnitContext) -> Option<&'c Container> {
    let vllm = role == Role::Server || job.experiment.workload.client == Client::Vllm;
    context.container.as_ref().filter(|_| vllm)
}

fn cores(role: Role, job: &Job) -> &[u32] {
    match role {
        Role::Server => &job.binding.server_cores,
        Role::Benchmark => &job.binding.client_cores,
    }
}

/// The server of a job.
pub(super) fn server_of(job: &Job, context: &UnitContext) -> EngineCommand {
    program(Role::Server, job, context).unwrap_or_else(|_| context.engine.clone())
}

/// What the scripts of a job depend on, with this program.
pub(super) fn script_context<'a>(
    engine: &'a EngineCommand,
    job: &'a Job,
    context: &'a UnitContext,
) -> ScriptContext<'a> {
    ScriptContext {
        engine,
        setvars: context.setvars.as_deref(),
        port: job.port,
        attempt: job.attempt,
        variables: &job.binding.variables,
    }
}

/// The whole command line.
pub(super) fn command(role: Role, job: &Job, context: &UnitContext) -> Vec<String> {
    let engine = program(role, job, context).unwrap_or_else(|_| context.engine.clone());
    let mut command = vec![engine.program.to_string_lossy().into_owned()];
    command.extend(engine.prefix.iter().cloned());
    command.extend(arguments(role, job));
    command
}

/// Starts the server of a job, or its part on this node where ranks on others meet it.
pub(super) async fn launch_server(
    job: &Job,
    context: &UnitContext,
    meeting: Option<&Meeting>,
    stop: &mut Stop,
) -> Result<Group, Failure> {
    let (kept, log) = (&job.places.server_script, &job.places.server_log);
    let mut args = arguments(Role::Server, job);
    let mut before = Vec::new();
    if let Some(meeting) = meeting {
        args.extend(meeting.head_args(&job.experiment));
        before = meeting.before_head(&server_of(job, context));
    }
    Group::spawn(spec(Role::Server, job, context, (&args, &before), Some(kept), log)?, stop)
        .await
        .map_err(|error| failed(Role::Server, &error))
}

/// Starts the client of a job.
pub(super) async fn launch_client(job: &Job, context: &UnitContext, stop: &mut Stop) -> Result<Group, Failure> {
    let (kept, log) = (&job.places.benchmark_script, &job.places.benchmark_log);
    let role = Role::Benchmark;
    Group::spawn(spec(role, job, context, (&arguments(role, job), &[]), Some(kept), log)?, stop)
        .await
        .map_err(|error| failed(role, &error))
}

/// Starts the warm-up before the first measurement of a workload.
pub(super) async fn launch_warmup(job: &Job, context: &UnitContext, stop: &mut Stop) -> Result<Group, Failure> {
    let args = warmup_args(&job.experiment, job.port, &job.places.warmup_result, context.warmup_prompts);
    let role = Role::Benchmark;
    Group::spawn(spec(role, job, context, (&args, &[]), None, &job.places.warmup_log)?, stop)
        .await
        .map_err(|error| failed(role, &error))
}

fn failed(role: Role, error: &dyn std::error::Error) -> Failure {
    let phase = if role == Role::Server { Phase::Launching } else { Phase::Measuring };
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    Failure::plain(Cause::LaunchFailed, phase, text)
}

/// Writes the script, and says how it is started: the program's arguments, and lines before it.
fn spec(
    role: Role,
    job: &Job,
    context: &UnitContext,
    (args, before): (&[String], &[String]),
    kept: Option<&Path>,
    log: &Path,
) -> Result<GroupSpec, Failure> {
    let failed = |error: &dyn std::error::Error| failed(role, error);
    let engine = program(role, job, context).map_err(|error| failed(&error))?;
    let script_context = script_context(&engine, job, context);
    let text = script_after(role, &job.experiment, args, &script_context, before);
    if let Some(kept) = kept {
        keep_copy(kept, &safe::file_bytes(text.as_bytes())).map_err(|error| failed(&error))?;
    }
    let path = write_exclusively(role, &text).map_err(|error| failed(&error))?;
    Ok(GroupSpec {
        argv: shell(context.login).into_iter().chain([&*path.to_string_lossy()]).map(str::to_owned).collect(),
        env: context.secret_env.clone(),
        unset: context.unset.clone(),
        secrets: context.secrets.clone(),
        log: log.to_owned(),
        cleanup: vec![path],
        grace: context.grace,
        cores: cores(role, job).to_vec(),
        container: container_of(role, job, context).and_then(Container::runtime),
        owner: Owner { run: context.run.clone(), experiment: job.experiment.name.clone(), role, port: job.port },
    })
}

/// The script as it was run, for the reader. What has its name is replaced, never written through: it may be a link.
fn keep_copy(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let write = || {
        let _ = std::fs::remove_file(path);
        std::fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text)
    };
    write().map_err(|error| std::io::Error::new(error.kind(), format!("could not write `{}`: {error}", path.display())))
}
