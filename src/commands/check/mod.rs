//! `check`: whether this machine can run a sweep. Gathers facts, has them judged, prints one line each.

mod units;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cli::{CheckArgs, RunArgs};
use crate::config::{Environment, PortChoice, Preset, Settings};
use crate::error::Error;
use crate::exit;
use crate::preflight::PATIENCE;
use crate::sim::settings::SimSettings;
use crate::telemetry::check::{self, CheckLine, Level, ProgramFacts, SetvarsFacts, VllmFacts};
use crate::telemetry::netport::PortHolder;
use crate::telemetry::{HostInfo, devices, host, netport, run_patiently};
use crate::ui::Ui;
use crate::words::quoted;

use super::run::engine::find;
use super::{format, host_facts};
use units::Units;

/// Prints the lines; exit code 4 when one is a failure.
///
/// # Errors
/// When a flag is wrong.
pub async fn run(args: &CheckArgs, environment: &Environment, ui: &Ui) -> Result<u8, Error> {
    let zone = args.timezone.clone().or_else(|| environment.get("VLLM_BENCH_TIMEZONE").map(str::to_owned));
    let run_args = RunArgs {
        tp: args.tp.clone(),
        port: args.port.clone(),
        results_dir: args.results_dir.clone(),
        vllm_bin: args.vllm_bin.clone(),
        setvars: args.setvars.clone(),
        engine: args.engine.clone(),
        device_locks: args.device_locks.clone(),
        // A wrong zone is a line of the answer, not an error of the question.
        timezone: Some("UTC".to_owned()),
        ..RunArgs::default()
    };
    let settings = Settings::resolve(&run_args, environment, Preset::Full)?;
    if !args.output.is_json() && !settings.simulated() {
        ui.say("asking vLLM for its version takes some seconds …");
    }
    let explicit = args.setvars.is_some();
    let environment = environment.clone();
    let gathered =
        tokio::task::spawn_blocking(move || gather(&settings, zone.as_deref(), explicit, &environment)).await;
    let (lines, units) = gathered.map_err(std::io::Error::other)?;
    let overall = check::overall(&lines);
    if args.output.is_json() {
        let inventory = units.as_ref().map(Units::to_json);
        let report = json!({ "overall": overall, "lines": lines, "inventory": inventory });
        ui.out(&serde_json::to_string_pretty(&report).map_err(std::io::Error::from)?);
    } else {
        show(&lines, units.as_ref(), ui);
    }
    Ok(if overall == Level::Failure { exit::ENVIRONMENT } else { exit::OK })
}

/// This program, and the one that its name starts.
fn program(environment: &Environment) -> ProgramFacts {
    let own = std::env::current_exe().unwrap_or_default();
    let followed = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    ProgramFacts {
        own: followed(own),
        version: env!("CARGO_PKG_VERSION"),
        on_path: environment.find_program("vllm-bench").map(followed),
        is_static: cfg!(target_env = "musl"),
    }
}

fn gather(
    settings: &Settings,
    zone: Option<&str>,
    explicit: bool,
    environment: &Environment,
) -> (Vec<CheckLine>, Option<Units>) {
    if settings.simulated() {
        return (gather_simulated(settings, zone), None);
    }
    let vars = environment.vars();
    let probe = host_facts::probe(settings, environment);
    let report = devices::detect(&probe);
    let machine = HostInfo::read(&probe);
    let tps = &settings.sweep.tensor_parallel_sizes();
    let setvars_exists = settings.setvars.as_deref().is_some_and(Path::is_file);
    let path = find(settings, environment).ok();
    let setvars = settings.setvars.as_deref().filter(|_| setvars_exists);
    let (version, refusal) = match path.as_deref().map(|path| version_of(path, setvars)) {
        Some(Ok(version)) => (Some(version), None),
        Some(Err(refusal)) => (None, Some(refusal)),
        None => (None, None),
    };
    let (port, holder) = port_and_holder(settings);
    let token_file = check::hf_token_file(vars).is_some_and(|path| path.is_file());
    let cache = check::hf_hub_cache(vars).map(|path| host::try_folder(&path));
    let (soft, hard) = host::open_file_limit();
    let largest_tp = tps.iter().copied().max().unwrap_or(1);
    let units = Units::gather(&probe, report.kind, settings.device_locks.as_deref());
    let facts = SetvarsFacts { kind: report.kind, path: settings.setvars.clone(), exists: setvars_exists, explicit };
    let lines = vec![
        check::program(&program(environment)),
        check::vllm(&VllmFacts { path, version, refusal, asked: settings.vllm_bin.clone() }),
        check::setvars(&facts, vars),
        check::devices(&report, tps),
        check::device_locks(units.locks()),
        check::telemetry(&units.watched(&probe)),
        check::port(port, holder.as_ref()),
        check::shm(host::shm(&probe), largest_tp, machine.container.is_some()),
        check::disk(&settings.results_dir, host::free_disk(&settings.results_dir).ok()),
        check::results_dir(&host::try_folder(&settings.results_dir)),
        check::memory(&machine),
        check::open_files(soft, hard),
        check::hf_token(vars, token_file),
        check::hf_cache(cache.as_ref()),
        check::proxy(vars),
        check::timezone(zone.unwrap_or("Asia/Jerusalem")),
    ];
    (lines, Some(units))
}

/// What a simulated run needs: no vLLM, no device, no token.
fn gather_simulated(settings: &Settings, zone: Option<&str>) -> Vec<CheckLine> {
    let variable =
        |name: &str| settings.simulation.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let machine = SimSettings::from_lookup(variable).unwrap_or_default();
    let (port, holder) = port_and_holder(settings);
    let (soft, hard) = host::open_file_limit();
    vec![
        check::simulated(machine.devices, machine.device_memory_gib, &settings.sweep.tensor_parallel_sizes()),
        check::port(port, holder.as_ref()),
        check::disk(&settings.results_dir, host::free_disk(&settings.results_dir).ok()),
        check::results_dir(&host::try_folder(&settings.results_dir)),
        check::open_files(soft, hard),
        check::timezone(zone.unwrap_or("Asia/Jerusalem")),
    ]
}

/// The port that a server would use, and who holds it.
fn port_and_holder(settings: &Settings) -> (Option<u16>, Option<PortHolder>) {
    let port = match settings.port {
        PortChoice::Fixed(port) => Some(port),
        PortChoice::Auto => None,
    };
    (port, port.and_then(|port| netport::holder_of(Path::new("/"), port)))
}

/// The version as the launch script will see it: in a login shell, after oneAPI's environment. vLLM may print other
/// lines first. The error is why there is none: how it ended, and its last line.
fn version_of(vllm: &Path, setvars: Option<&Path>) -> Result<String, String> {
    let prelude =
        setvars.map(|path: &Path| format!("source {} --force >/dev/null 2>&1; ", quoted(&path.to_string_lossy())));
    let script =
        format!("{}exec {} --version", prelude.unwrap_or_default(), quoted(&PathBuf::from(vllm).to_string_lossy()));
    let mut command = Command::new("bash");
    command.args(["--login", "-c", &script]);
    let output = run_patiently(command, PATIENCE, |_| {}).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    if !output.status.success() {
        let said = output.complaint().or_else(|| last.map(str::to_owned)).unwrap_or_else(|| "it said nothing".into());
        return Err(format!("it ended with {}: {said}", output.status));
    }
    match last.filter(|last| last.starts_with(|c: char| c.is_ascii_digit()) && last.len() < 100) {
        Some(version) => Ok(version.to_owned()),
        None => Err(format!("its last line is `{}`", last.unwrap_or_default())),
    }
}

/// On a terminal that is narrower messages stand below their names.
const NARROW: usize = 80;

fn show(lines: &[CheckLine], units: Option<&Units>, ui: &Ui) {
    ui.out(&page(lines, units, ui));
}

/// A line for each check, broken where the terminal ends, and the devices.
fn page(lines: &[CheckLine], units: Option<&Units>, ui: &Ui) -> String {
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    // `warning`, the name, and the blanks behind them; on a narrow terminal the message stands below them.
    let beside = ui.display.columns_out.is_none_or(|columns| columns >= NARROW);
    let hanging = if beside { 7 + 2 + width + 2 } else { 4 };
    let room = ui.display.columns_out.map_or(usize::MAX, |columns| columns.saturating_sub(hanging));
    let blanks = " ".repeat(hanging);
    let mut page: Vec<String> = Vec::new();
    for line in lines {
        let mark = match line.level {
            Level::Ok => ui.good("ok     "),
            Level::Warning => ui.caution("warning"),
            Level::Failure => ui.bad("failure"),
        };
        // The command line of a process is one word, and need not be whole.
        let lines = format::packed([line.message.as_str()], "", room);
        let lines =
            lines.iter().map(|line| if room == usize::MAX { line.clone() } else { format::cut_end(line, room) });
        let message = lines.collect::<Vec<_>>().join(&format!("\n{blanks}"));
        let gap = if beside { "  ".to_owned() } else { format!("\n{blanks}") };
        page.push(format!("{mark}  {:1$}{gap}{message}", line.name, if beside { width } else { 0 }));
        if let Some(next) = &line.next_step {
            let next = format::packed([format!("-> {next}").as_str()], "", room);
            page.extend(next.iter().map(|line| format!("{blanks}{}", ui.dim(line))));
        }
    }
    page.extend(units.into_iter().flat_map(|units| units.lines(ui)));
    let count = |level| lines.iter().filter(|line| line.level == level).count();
    let (warnings, failures) = (count(Level::Warning), count(Level::Failure));
    page.push(format!("\n{} checks: {failures} failures, {warnings} warnings", lines.len()));
    page.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold;
    use crate::telemetry::{DeviceKind, Probe};
    use crate::ui::Display;

    #[test]
    fn the_page_is_no_wider_than_the_terminal() {
        let line = |name, level, message: &str, next: Option<&str>| CheckLine {
            name,
            level,
            message: message.to_owned(),
            next_step: next.map(str::to_owned),
            data: json!({}),
        };
        let lines = [
            line("results-dir", Level::Ok, "/w is writable", None),
            line(
                "device-locks",
                Level::Failure,
                "a run would be refused: cores:0-31,64-95 is held by process 4711 of somebody, since 2026-02-25 14:30:00 +02:00: \
                 `/opt/venv/bin/vllm-bench run sweep.yaml --models an-organisation/a-model-with-a-long-name --tp 1 2 4 8 --name a-name`",
                Some(
                    "mount -v ~/.cache/huggingface:/root/.cache/huggingface, wait for it with `vllm-bench run --wait`, or give this run other devices: ZE_AFFINITY_MASK, CUDA_VISIBLE_DEVICES",
                ),
            ),
        ];
        let units = Units::gather(&Probe::of_machine(std::collections::BTreeMap::new()), DeviceKind::Cpu, None);
        for columns in 60..=120 {
            let ui = Ui::new(Display { columns_out: Some(columns), ..Display::PLAIN });
            let page = page(&lines, Some(&units), &ui);
            assert!(page.lines().all(|line| fold::width(line) <= columns), "{columns}:\n{page}");
            assert!(
                page.contains("ZE_AFFINITY_MASK")
                    && page.contains("`/opt/venv/bin/vllm-bench run")
                    && page.contains("2 checks: 1 failures, 0 warnings"),
                "{page}"
            );
        }
        let ui = Ui::new(Display::PLAIN);
        assert!(page(&lines, None, &ui).lines().any(|line| line.len() > 120), "a pipe gets whole lines");
    }
}
