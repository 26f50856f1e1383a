//! The documents say what is true: their examples are run, and what they list is compared with the program.
//!
//! Blocks marked `console` are run, line by line, those of one document in one directory: a line that begins with `$` is
//! a command (`# exit N` at its end: the exit code, else 0), the lines below it must occur in what it prints. Blocks
//! marked `bash` are not run.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Scene, files};
use vllm_bench::cli::RunArgs;
use vllm_bench::config::tree::Node;
use vllm_bench::config::{Environment, Preset, Settings, setting_keys};
use vllm_bench::exit;
use vllm_bench::model::{Cause, StartPhase};
use vllm_bench::sim::fault;

const GUIDE: &str = "EXPERIMENT_AUTOMATION.md";
const REFERENCE: &str = "docs/reference.md";
const LOAD: &str = "docs/load.md";
const DOCUMENTS: [&str; 15] = [
    "README.md",
    GUIDE,
    REFERENCE,
    "QUICK_REFERENCE.md",
    "CHANGELOG.md",
    LOAD,
    "docs/analysis.md",
    "docs/containers.md",
    "docs/dashboard.md",
    "docs/history.md",
    "docs/mlflow.md",
    "docs/plots.md",
    "docs/report.md",
    "docs/slurm.md",
    "docs/sources.md",
];
const COMMANDS: [&str; 24] = [
    "run",
    "sanity",
    "plan",
    "config",
    "list",
    "status",
    "dashboard",
    "stop",
    "logs",
    "check",
    "analyze",
    "compare",
    "history",
    "recommend",
    "plot",
    "report",
    "export mlflow",
    "backup",
    "clean",
    "load",
    "prompts",
    "diagnose",
    "completions",
    "man",
];
/// The commands below `prompts`.
const PROMPTS: [&str; 4] = ["prompts inspect", "prompts render", "prompts build", "prompts answers"];
/// Described once for all commands.
const GLOBAL: [&str; 5] = ["--color", "--quiet", "--verbose", "--help", "--version"];
/// Flags of other programs that the documents name, apart from those in the launch scripts.
const OF_OTHERS: [&str; 44] = [
    // vLLM
    "--max-num-seqs",
    "--dtype",
    "--gpu-memory-util",
    "--disable-log-requests",
    "--help=all",
    // docker, bash, cargo, xpu-smi
    "--query-gpu",
    "--shm-size",
    "--net",
    "--ipc",
    "--privileged",
    "--device",
    "--gpus",
    "--rocm",
    "--filter",
    "--cap-add",
    // pip and cargo
    "--path",
    "--no-index",
    "--name",
    "--entrypoint",
    "--login",
    "--force",
    "--release",
    "--lib",
    "--nocapture",
    "--reset",
    "--max-model-len",
    "--simulated-flag",
    "--noproxy",
    // the other load generators that docs/load.md names
    "--powers-of-2",
    "--max-batch",
    "--timeout",
    "--sync",
    // vLLM again
    "--profiler-config",
    "--serve-cmd",
    "--bench-cmd",
    "--serve-params",
    "--bench-params",
    // Slurm and what starts containers there
    "--gres",
    "--gpus-per-node",
    "--signal",
    "--export",
    "--container-image",
    "--container-mounts",
    "--nv",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A command of a `console` block.
struct Example {
    line: usize,
    command: String,
    code: i32,
    shown: Vec<String>,
}

fn examples(text: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match line.trim() {
            "```console" => inside = true,
            fence if fence.starts_with("```") => inside = false,
            line if inside => match line.strip_prefix("$ ") {
                Some(command) => {
                    let code = command.rsplit_once("# exit ").map_or(0, |(_, code)| code.trim().parse().unwrap());
                    // The examples of README begin with the compiler.
                    let command = command.replacen("cargo run --release -- ", "vllm-bench ", 1);
                    found.push(Example { line: number + 1, command, code, shown: Vec::new() });
                }
                None if line.is_empty() => {}
                None => found.last_mut().unwrap().shown.push(line.to_owned()),
            },
            _ => {}
        }
    }
    found
}

fn run_examples_of(name: &str) {
    let scene = Scene::new();
    let all = examples(&document(name));
    assert!(!all.is_empty(), "{name} has no example");
    for Example { line, command, code, shown } in all {
        let place = format!("{name}:{line}: $ {command}");
        let starts = command.contains(" run ") || command.contains(" sanity ");
        assert!(
            !starts || command.contains("--engine sim") || command.contains("--dry-run"),
            "{place}\nan example that starts servers uses the simulated vLLM"
        );
        let around = ["status", "stop", "logs", "analyze", "backup", "clean"];
        assert!(
            !around.iter().any(|word| command.contains(&format!("vllm-bench {word}")))
                || command.contains("--results-dir"),
            "{place}\nwithout a results directory it would look at runs of others"
        );
        let script = format!("vllm-bench() {{ \"$0\" \"$@\"; }}\nset -o pipefail\n{command}");
        let mut call = scene.call(&[]).through(&["bash", "-c", &script]);
        // As it stands: also where a server has port 8000, and other examples run.
        assert!(
            !["vllm-bench run ", "vllm-bench sanity "].iter().any(|call| command.contains(call))
                || !command.contains("--engine sim")
                || command.contains("--port auto"),
            "{place}\ntwo examples may run at once, and a server may hold port 8000: write `--port auto`"
        );
        call = call.env("VLLM_BENCH_KEEP_FOREIGN", "true");
        if command.contains("--detach") {
            call = call.stays();
        }
        let ended = call.ends();
        ended.check(ended.status.code() == Some(code), &format!("{place}\nexit code {code} was expected"));
        for words in shown {
            let there = ended.stdout.contains(&words) || ended.stderr.contains(&words);
            ended.check(there, &format!("{place}\nshould print: {words}"));
        }
    }
}

#[test]
fn the_examples_of_readme_run() {
    run_examples_of("README.md");
}

#[test]
fn the_examples_of_the_guide_run() {
    run_examples_of(GUIDE);
}

#[test]
fn the_examples_of_the_reference_run() {
    run_examples_of(REFERENCE);
}

#[test]
fn the_examples_of_the_load_generator_run() {
    run_examples_of(LOAD);
}

#[test]
fn the_examples_of_the_quick_reference_run() {
    run_examples_of("QUICK_REFERENCE.md");
}

/// The calls of this program in `bash` blocks: with what is optional, and without.
fn calls(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        match line {
            "```bash" => inside = true,
            fence if fence.starts_with("```") => inside = false,
            line if inside => {
                let line = line.split(" #").next().unwrap_or(line);
                let calls = line.split(" / ").map(|call| call.trim().trim_start_matches("./"));
                found.extend(calls.filter_map(|call| {
                    let is_second = line.contains(" / ") && !call.starts_with("vllm-bench");
                    let words = if is_second { Some(call) } else { call.strip_prefix("vllm-bench ") }?;
                    Some(words.to_owned())
                }));
            }
            _ => {}
        }
    }
    let optional = |call: String| {
        // Of several words one is meant.
        let bare: String = {
            let mut depth = 0;
            let keeps = call.chars().filter(|sign| {
                depth += i32::from(*sign == '[');
                let keeps = depth == 0;
                depth -= i32::from(*sign == ']');
                keeps
            });
            keeps.collect()
        };
        let with = call
            .replace(['[', ']'], "")
            .split(' ')
            .map(|word| word.split('|').next().unwrap())
            .collect::<Vec<_>>()
            .join(" ");
        [bare, with]
    };
    found.into_iter().flat_map(optional).collect()
}

#[test]
fn what_readme_and_the_quick_reference_call_is_understood() {
    for name in ["README.md", "QUICK_REFERENCE.md"] {
        let all = calls(&document(name));
        assert!(all.len() > 10, "{name}: {all:?}");
        for call in all {
            let words = shlex::split(&call).unwrap().into_iter().filter(|word| word != "…" && !word.ends_with("..."));
            let words = std::iter::once("vllm-bench".to_owned()).chain(words).map(std::ffi::OsString::from);
            let read = vllm_bench::cli::Cli::read(words);
            assert!(read.is_ok(), "{name}: `vllm-bench {call}`\n{}", read.unwrap_err());
        }
    }
}

/// Every `--flag` in a text.
fn flags_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if c == '-' && text[at..].starts_with("--") && !before.is_alphanumeric() && before != '-' {
            let name: String = text[at + 2..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')
                .collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.insert(format!("--{}", name.trim_end_matches('-')));
            }
        }
        before = c;
    }
    found
}

/// The flags that `--help` of a command lists, with their other names.
fn flags_of(scene: &Scene, command: &str) -> BTreeSet<String> {
    let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
    let help = scene.call(&words).exits(0).stdout;
    let lists = |line: &&str| line.trim_start().starts_with('-') || line.trim_start().starts_with("[alias");
    let names: String = help.lines().filter(lists).collect::<Vec<_>>().join("\n");
    let mut flags = flags_in(&names);
    flags.retain(|flag| !GLOBAL.contains(&flag.as_str()));
    flags
}

/// The text below a heading, up to the next of its rank.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no `{heading}`"));
    let rest = &text[start + heading.len() + 2..];
    let mark = format!("\n{} ", heading.split(' ').next().unwrap());
    let end = [rest.find(&mark), rest.find("\n## ")].into_iter().flatten().min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The first cells of the rows of all tables in a text.
fn first_cells(text: &str) -> String {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_flag_is_described_where_its_command_is_and_no_other_is() {
    let scene = Scene::new();
    let guide = document(REFERENCE);
    let settings = flags_in(&first_cells(section(&guide, "## Settings")));
    for command in COMMANDS {
        let described = match command {
            "load" => flags_in(&first_cells(section(&document(LOAD), "## Flags of `load`"))),
            "prompts" => continue,
            _ => flags_in(&first_cells(section(&guide, &format!("### `{command}`")))),
        };
        let expected = flags_of(&scene, command);
        let described = match command {
            "run" => described.union(&settings).cloned().collect(),
            "sanity" => {
                assert_eq!(expected, flags_of(&scene, "run"), "the guide says that both take the same flags");
                continue;
            }
            "plan" => described.union(&flags_of(&scene, "run")).cloned().collect(),
            _ => described,
        };
        assert_eq!(described, expected, "flags of `{command}` in {REFERENCE}");
    }
    let described = flags_in(&first_cells(section(&document(LOAD), "## Flags of `prompts`")));
    let all = |commands: &[&str]| -> BTreeSet<String> {
        commands.iter().flat_map(|command| flags_of(&scene, command)).collect()
    };
    let own: BTreeSet<String> = all(&PROMPTS).difference(&all(&["load"])).cloned().collect();
    assert!(own.is_subset(&described), "flags of `prompts`: {own:?} are to be in {LOAD}, {described:?} are");
    assert!(described.is_subset(&all(&PROMPTS)), "flags of `prompts` in {LOAD}");
    let global = first_cells(section(&guide, "## Commands").split("### ").next().unwrap());
    assert_eq!(flags_in(&global), GLOBAL.map(str::to_owned).into(), "flags of all commands");
}

#[test]
fn no_document_names_a_flag_that_nobody_knows() {
    let scene = Scene::new();
    let mut known: BTreeSet<String> = GLOBAL.iter().chain(&OF_OTHERS).map(|flag| flag.to_string()).collect();
    for command in COMMANDS.iter().chain(&PROMPTS) {
        known.extend(flags_of(&scene, command));
    }
    known.extend(flags_in(&scene.call(&["run", "--dry-run"]).exits(0).stdout));
    for name in DOCUMENTS {
        let unknown: Vec<_> = flags_in(&document(name)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?}");
    }
}

/// The values of a preset, as a cell of the table of settings shows them, by flag.
fn preset(preset: Preset) -> BTreeMap<&'static str, String> {
    let environment = Environment::of(&[], Path::new("/"));
    let settings = Settings::resolve(&RunArgs::default(), &environment, preset).unwrap();
    let cell = |flag: &str, node: Option<&Node>| match node {
        Some(node) => match (node.items(), node.scalar()) {
            (Some(items), _) => {
                items.iter().map(|item| format!("`{}`", item.scalar().unwrap())).collect::<Vec<_>>().join(", ")
            }
            // `--no-reuse` is the opposite of the key `reuse`.
            (None, Some(word)) if flag.starts_with("no-") => format!("`{}`", word != "true"),
            (None, word) => word.map(|word| format!("`{word}`")).unwrap_or_default(),
        },
        None => String::new(),
    };
    let node = |path: &[&str]| (!path.is_empty()).then(|| settings.resolved.find(path)).flatten();
    setting_keys().map(|(flag, path)| (flag, cell(flag, node(path)))).collect()
}

#[test]
fn the_table_of_settings_has_the_defaults_and_variables() {
    let guide = document(REFERENCE);
    let (full, sanity) = (preset(Preset::Full), preset(Preset::Sanity));
    let mut seen = BTreeSet::new();
    for row in section(&guide, "## Settings").lines().filter(|line| line.starts_with("| `--")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let key = cells[0].trim_start_matches("`--").split([' ', '`']).next().unwrap();
        let empty = String::new();
        let expected = (full.get(key).unwrap_or(&empty), sanity.get(key).unwrap_or(&empty));
        assert_eq!((cells[1], cells[2]), (expected.0.as_str(), expected.1.as_str()), "defaults of --{key}");
        let variable = format!("`VLLM_BENCH_{}`", key.to_uppercase().replace('-', "_"));
        assert_eq!(cells[3], variable, "variable of --{key}");
        seen.insert(key.to_owned());
    }
    for key in full.keys().chain(sanity.keys()) {
        assert!(seen.contains(*key), "the setting `{key}` is not in the table");
    }
}

/// Every `VLLM_BENCH_…` in a text.
fn variables_in(text: &str) -> BTreeSet<String> {
    let names = text.match_indices("VLLM_BENCH_").map(|(at, _)| {
        text[at..].chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect::<String>()
    });
    names.filter(|name| !name.ends_with('_')).collect()
}

#[test]
fn every_variable_is_documented_and_no_other_is() {
    let guide = document(REFERENCE);
    let documented = variables_in(&guide);
    let mut known: BTreeSet<String> = variables_in(&first_cells(section(&guide, "## Settings")));
    let is_test = |file: &PathBuf| file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
    for file in files(&root().join("src")).into_iter().filter(|file| !is_test(file)) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        known.extend(variables_in(text.split("#[cfg(test)]").next().unwrap()));
    }
    for (key, _) in setting_keys() {
        known.insert(format!("VLLM_BENCH_{}", key.to_uppercase().replace('-', "_")));
    }
    assert_eq!(documented, known);
}

#[test]
fn every_cause_fault_phase_event_and_exit_code_is_documented() {
    let guide = document(REFERENCE);
    let rows = |heading: &str| -> Vec<String> {
        let cells = first_cells(section(&guide, heading));
        cells.lines().filter_map(|cell| cell.split('`').nth(1).map(str::to_owned)).collect()
    };
    let causes: Vec<&str> = Cause::ALL.iter().map(|cause| cause.word()).collect();
    assert_eq!(rows("## Causes of failure"), causes);
    for cause in Cause::ALL {
        let row = guide.lines().find(|line| line.starts_with(&format!("| `{cause}` |"))).unwrap();
        for advice in cause.advice() {
            assert!(row.contains(advice), "advice of {cause}: {advice}");
        }
    }
    let faults = first_cells(section(&guide, "### Faults"));
    let faults: BTreeSet<&str> = faults.split('`').skip(1).step_by(2).collect();
    let known: BTreeSet<&str> = fault::KNOWN.iter().map(|(name, ..)| *name).collect();
    assert_eq!(faults, known);
    let events = fs::read_to_string(root().join("src/model/event.rs")).unwrap();
    let events: Vec<String> = events
        .lines()
        .skip_while(|line| !line.starts_with("pub enum Event"))
        .take_while(|line| *line != "}")
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(kebab)
        .collect();
    assert_eq!(rows("## Records"), events);
    for phase in [StartPhase::Launching, StartPhase::Downloading, StartPhase::StartingApi] {
        assert!(guide.contains(phase.word()), "{}", phase.word());
    }
    let codes =
        [exit::OK, exit::EXPERIMENT_FAILED, exit::USAGE, exit::NOTHING, exit::ENVIRONMENT, exit::RECORD, exit::BUG];
    let help = Scene::new().call(&["--help"]).exits(0).stdout;
    for name in ["README.md", REFERENCE] {
        let text = document(name);
        for code in codes.map(|code| code.to_string()).into_iter().chain([format!("{}+n", exit::SIGNAL)]) {
            let meaning = help.lines().find_map(|line| line.trim().strip_prefix(&format!("{code} "))).unwrap().trim();
            let row = text.lines().find(|line| line.starts_with(&format!("| {code} |"))).unwrap_or_default();
            assert!(row.contains(meaning), "{name}: exit code {code}: {meaning}");
        }
    }
}

fn kebab(name: &str) -> String {
    let mut word = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            word.push('-');
        }
        word.extend(c.to_lowercase());
    }
    word
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn relative_links_lead_somewhere() {
    for name in DOCUMENTS {
        let text = document(name);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(name).parent().unwrap();
            let path = if file.is_empty() { PathBuf::from(name) } else { folder.join(file) };
            assert!(root().join(&path).exists(), "{name} links to {target}");
            if !fragment.is_empty() {
                let linked = fs::read_to_string(root().join(&path)).unwrap();
                let there = linked
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line.trim_start_matches('#').trim()) == fragment);
                assert!(there, "{name} links to {target}");
            }
        }
    }
}

#[test]
fn files_and_tests_that_the_table_of_rules_names_exist() {
    let guide = document(REFERENCE);
    let table = section(&guide, "## The rules, where they live, and their tests");
    let tests = fs::read_to_string(root().join("tests/suite/rules.rs")).unwrap();
    let words: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
    let named: Vec<&&str> = words.iter().filter(|word| word.starts_with("rule")).collect();
    assert!(named.len() >= 11, "{named:?}");
    for test in named {
        assert!(tests.contains(&format!("fn {test}()")), "there is no test {test}");
    }
    for file in words.iter().filter(|word| word.starts_with("src/")) {
        assert!(root().join(file).is_file(), "{file}");
    }
    for test in tests.lines().filter_map(|line| line.strip_prefix("fn rule")?.split('(').next()) {
        assert!(table.contains(&format!("`rule{test}`")), "the table lacks rule{test}");
    }
}

#[test]
fn the_quick_reference_is_one_page() {
    let text = document("QUICK_REFERENCE.md");
    assert!(text.lines().count() <= 80, "{} lines", text.lines().count());
    for command in COMMANDS.iter().filter(|command| !["completions", "man"].contains(command)) {
        assert!(text.contains(&format!("vllm-bench {command}")), "{command} is missing");
    }
}

#[test]
fn the_plot_says_that_it_is_simulated() {
    let plot = document("docs/terminal.svg");
    assert!(plot.contains("SIMULATED") && plot.contains("Best by"));
    // It is of today: one warning for all that a rule leaves out.
    assert!(plot.contains("Skipping 2 combinations by the rule"), "make it again: docs/make_terminal_svg.py");
}

#[test]
fn the_licence_is_the_one_that_cargo_names() {
    assert!(document("Cargo.toml").contains("license = \"Apache-2.0\""));
    let text = document("LICENSE");
    assert!(
        text.contains("Apache License") && text.contains("END OF TERMS AND CONDITIONS") && text.contains("APPENDIX")
    );
}

/// What reference.sh would run, word by word.
fn reference(step: &str, vars: &[(&str, &str)]) -> Vec<String> {
    let output = Command::new("bash")
        .arg(root().join("reference.sh"))
        .arg(step)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", "/root")
        .env("PRINT", "1")
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    shlex::split(&text).unwrap()
}

/// A command of a dry run, word by word, without the folder and the name of the result.
fn scripted(text: &str, begin: &str) -> Vec<String> {
    let start = text.find(begin).unwrap_or_else(|| panic!("no `{begin}` in\n{text}"));
    let lines: Vec<&str> = text[start..].lines().take_while(|line| !line.trim().is_empty()).collect();
    let words = shlex::split(&lines.join(" ").replace(" \\ ", " ")).unwrap();
    without_result(words.into_iter().skip_while(|word| word != "vllm").collect())
}

fn without_result(mut words: Vec<String>) -> Vec<String> {
    for flag in ["--result-dir", "--result-filename"] {
        if let Some(at) = words.iter().position(|word| word == flag) {
            words.drain(at..at + 2);
        }
    }
    words
}

/// The guide's script is the program's, on a machine with oneAPI and vLLM in /usr/local/bin.
#[test]
fn the_script_that_the_guide_shows_is_the_real_one() {
    let scene = Scene::new();
    let setvars = scene.program("setvars.sh", "");
    let vllm = scene.program("bin/vllm", "#!/bin/sh\n");
    let (setvars, vllm) = (setvars.to_str().unwrap(), vllm.to_str().unwrap());
    let shown = scene.call(&["run", "--dry-run", "1", "--setvars", setvars, "--vllm-bin", vllm]).exits(0).stdout;
    let shown = shown
        .replace(setvars, "/opt/intel/oneapi/setvars.sh")
        .replace(vllm, "/usr/local/bin/vllm")
        .replace(scene.path("bin").to_str().unwrap(), "/usr/local/bin");
    let guide = document(REFERENCE);
    let guide = section(&guide, "## Launch scripts").split("```").nth(1).unwrap();
    for line in guide.lines().skip(1).filter(|line| !line.contains("(…)")) {
        assert!(shown.lines().any(|real| real == line), "`{line}` is not in\n{shown}");
    }
    let real = shown.split("#!/bin/bash").nth(1).unwrap().split("--- benchmark").next().unwrap();
    for line in real.lines().skip(2) {
        assert!(guide.lines().any(|written| written == line), "the guide lacks `{line}`");
    }
}

#[test]
fn reference_sh_has_the_flags_of_the_presets() {
    let scene = Scene::new();
    let model = "org/m";
    for (command, preset) in [("run", "full"), ("sanity", "sanity")] {
        for (quantization, eager) in [("none", "true"), ("none", "false"), ("fp8", "true")] {
            let plan = ["--models", model, "--tp", "4", "--quantization", quantization, "--enforce-eager", eager];
            let words: Vec<&str> = [command, "--dry-run", "1", "--port", "8123"].into_iter().chain(plan).collect();
            // A program of this name, so that the scripts name `vllm` and not a path.
            let shown = scene.call(&words).env("PATH", "/nonexistent").exits(0).stdout;
            let vars = [
                ("PRESET", preset),
                ("MODEL", model),
                ("TP", "4"),
                ("QUANTIZATION", quantization),
                ("EAGER", eager),
                ("PORT", "8123"),
            ];
            assert_eq!(reference("server", &vars), scripted(&shown, "exec vllm serve"));
            assert_eq!(without_result(reference("client", &vars)), scripted(&shown, "exec vllm bench"));
        }
    }
}

#[test]
fn reference_sh_runs_nothing_by_accident() {
    let script = root().join("reference.sh");
    for words in [&["-n"][..], &[]] {
        let output = Command::new("bash").args(words).arg(&script).output().unwrap();
        let expected = if words.is_empty() { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
    }
    let container = reference("container", &[("HF_TOKEN", "hf_planted")]).join(" ");
    assert!(!container.contains("hf_planted"), "{container}");
    // README shows the same command.
    let readme = document("README.md").replace("\\\n", " ");
    for part in [
        "--shm-size 10g",
        "--net=host",
        "--ipc=host",
        "--privileged",
        "--device /dev/dri",
        "/dev/dri/by-path",
        "-e HF_TOKEN",
        "intel/vllm:0.14.1-xpu",
    ] {
        assert!(container.contains(part) && readme.contains(part), "{part}: {container}");
    }
}
