//! The rules of ARCHITECTURE.md, read off the source: who imports whom, who prints, who reads the environment.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// All modules in layers: one imports only what stands above it, nothing beside it or below.
const LAYERS: [&[&str]; 11] = [
    &["bounded", "contained", "exit", "fold", "http", "model", "nearest", "releases", "safe", "stats", "words"],
    &["analyse", "diagnose", "load", "plan", "process", "telemetry"],
    &["preflight", "record", "search", "sim"],
    &["execute", "observe", "results"],
    &["campaign", "report"],
    &["dashboard", "mlflow", "notify"],
    &["cli"],
    &["config"],
    &["error"],
    &["ui"],
    &["commands"],
];
/// The binary: it puts everything together.
const ROOTS: [&str; 2] = ["main", "lib"];

struct Source {
    path: String,
    /// Without comments and without the test modules.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "tests" && name != "fixtures" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") && !is_test_file(&path) {
                let code = code_of(&fs::read_to_string(&path).unwrap());
                found.push(Source { path: path.strip_prefix(root).unwrap().display().to_string(), code });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `tests.rs`, `…_test.rs`, `…_tests.rs`, and files that only tests use.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().unwrap().to_string_lossy();
    stem == "tests" || stem == "fixture" || stem.ends_with("_test") || stem.ends_with("_tests")
}

/// Everything before the test module, comment lines left out.
fn code_of(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    let end = tests.iter().find_map(|begin| text.find(begin)).unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.fold(String::new(), |mut code, line| {
        let _ = writeln!(code, "{line}");
        code
    })
}

/// The module of a file: the first folder or file below `src`.
fn module(path: &str) -> &str {
    path.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules that a file names: `use crate::x`, `crate::x::y`, and lists such as `use crate::{a, b::c}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut heads = true;
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        modules.insert(std::mem::take(&mut word));
                        heads = true;
                    }
                    ':' if depth == 0 => heads = false,
                    c if depth == 0 && heads && !c.is_whitespace() => word.push(c),
                    _ => {}
                }
            }
            modules.insert(word);
        } else {
            modules.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules.remove("");
    modules
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n{}", broken.join("\n"));
}

#[test]
fn a_module_imports_only_what_stands_above_it() {
    let mut broken = Vec::new();
    for source in sources() {
        let here = module(&source.path);
        if ROOTS.contains(&here) {
            continue;
        }
        let Some(own) = layer(here) else {
            broken.push(format!("{} is in no layer", source.path));
            continue;
        };
        for there in imports(&source.code).iter().filter(|there| *there != here) {
            match layer(there) {
                Some(other) if other < own => {}
                Some(_) => broken.push(format!("{} imports {there}", source.path)),
                // An item of the crate's root.
                None => broken.push(format!("{} imports {there}, which is in no layer", source.path)),
            }
        }
    }
    assert_none(&broken, "imports go one way (LAYERS), so that there is no circle between modules");
}

/// What pure code may take from the standard library, and from crates.
const PURE_STD: [&str; 24] = [
    "array",
    "borrow",
    "cell",
    "cmp",
    "collections",
    "convert",
    "error",
    "f64",
    "fmt",
    "hash",
    "iter",
    "marker",
    "mem",
    "num",
    "ops",
    "path",
    "ptr",
    "rc",
    "result",
    "slice",
    "str",
    "string",
    "sync",
    "time",
];
/// `rand` and `rand_chacha` as they are here: without the system's random numbers, from a seed alone.
const PURE_CRATES: [&str; 11] =
    ["indexmap", "rand", "rand_chacha", "regex", "serde", "serde_json", "sha2", "statrs", "strsim", "thiserror", "ryu"];

/// What code takes from elsewhere: `std::fs` of a path, `tokio` of an import.
fn foreign(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("std::") {
        let rest = &code[at + "std::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                found.extend(list.split('}').next().unwrap().split(',').map(|one| format!("std::{}", word(one.trim()))))
            }
            None => drop(found.insert(format!("std::{}", word(rest)))),
        }
    }
    let heads = code.lines().filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("use "));
    found.extend(heads.map(word).filter(|head| !["crate", "super", "self", "std", ""].contains(&head.as_str())));
    // Crates that need no import to be named.
    for name in ["tokio", "reqwest", "nix", "rand", "chrono", "mio", "tracing"] {
        if code.contains(&format!(" {name}::")) || code.contains(&format!("({name}::")) {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn model_plan_search_and_analyse_are_pure() {
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| ["model", "stats", "plan", "search", "analyse"].contains(&module(&source.path)))
    {
        let own =
            source.code.lines().filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("mod "));
        let own: Vec<&str> = own.map(|rest| rest.trim_end_matches(';')).collect();
        // Of `std::time` only lengths.
        let clocks = ["Instant", "SystemTime"].into_iter().filter(|clock| source.code.contains(clock));
        broken.extend(clocks.map(|clock| format!("{} uses {clock}", source.path)));
        for name in foreign(&source.code) {
            let pure = match name.strip_prefix("std::") {
                Some(part) => PURE_STD.contains(&part),
                None => PURE_CRATES.contains(&name.as_str()) || own.contains(&name.as_str()),
            };
            if !pure {
                broken.push(format!("{} uses {name}", source.path));
            }
        }
    }
    assert_none(&broken, "model, plan, search and analyse touch no file, clock, process or network");
}

/// Who may write to the standard streams beside `ui`, and why.
const PRINTS: &[(&str, &str)] = &[
    ("src/ui/", "it is the printer"),
    ("src/sim/", "plays vLLM, whose output it prints"),
    ("src/process/guard.rs", "its standard output is the report pipe to the orchestrator"),
    ("src/commands/run/detach.rs", "its standard output is the pipe to the waiting parent"),
    ("src/commands/status.rs", "asks whether standard output is a terminal, to draw in place"),
    ("src/commands/format.rs", "asks whether anybody still reads standard output"),
    ("src/main.rs", "asks whether the streams are terminals, gives stderr to tracing, shows clap's errors"),
];

#[test]
fn only_ui_prints() {
    let words = ["println!", "print!", "eprintln!", "eprint!", "stdout()", "stderr()", "dbg!"];
    let mut broken = Vec::new();
    for source in sources() {
        if PRINTS.iter().any(|(path, _)| source.path.starts_with(path)) {
            continue;
        }
        for line in source.code.lines() {
            if words.iter().any(|word| line.contains(word)) {
                broken.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    assert_none(&broken, "only ui prints");
}

/// Who may write files beside `record::atomic`, and why no secret gets into them.
const WRITES: &[(&str, &str)] = &[
    ("src/commands/run/contained.rs", "a program in the cache, which must run as it is written"),
    (
        "src/record/",
        "atomic files and the journal pass through `safe`; the lock holds what this program knows of itself",
    ),
    ("src/process/", "the guard redacts its log; records of live groups hold names and numbers"),
    ("src/sim/", "plays vLLM, whose output is redacted by its guard"),
    ("src/execute/launch.rs", "the copy of a script passes through `safe`"),
    ("src/execute/script.rs", "a script has no secret in it, and must be run as it is"),
    ("src/execute/failure.rs", "puts a client's result through `safe`"),
    ("src/commands/load/files.rs", "rows and appended results pass through `safe`"),
    ("src/commands/load/scenarios.rs", "appends rows of files that passed through `safe`"),
    ("src/commands/load/telemetry.rs", "numbers of devices"),
    ("src/commands/backup", "copies files of a run as they are"),
    ("src/commands/clean.rs", "removes"),
    ("src/commands/run/detach.rs", "standard output and error of a run, which pass through `ui`"),
    ("src/preflight/ask.rs", "help texts of vLLM"),
    ("src/dashboard/token.rs", "the dashboard's token, which is there to be read by its user"),
    ("src/telemetry/host.rs", "an empty file, to see whether one can be written"),
];

#[test]
fn files_are_written_by_those_who_keep_secrets_out() {
    let words = [
        "fs::write(",
        "File::create",
        "create_new(",
        ".append(true)",
        "Writer::from_path",
        "NamedTempFile",
        "tempfile_in(",
    ];
    let mut broken = Vec::new();
    for source in sources() {
        if WRITES.iter().any(|(path, _)| source.path.starts_with(path)) {
            continue;
        }
        for line in source.code.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
            broken.push(format!("{}: {}", source.path, line.trim()));
        }
    }
    assert_none(&broken, "what is written passes through `safe`: use record::atomic or SafeWriter");
}

/// Who may read the environment beside `config`, and why.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("src/config/environment.rs", "it is the reader"),
    ("src/sim/", "plays another program, which has its own environment"),
];

#[test]
fn only_config_reads_the_environment() {
    let words = ["env::var", "env::args", "env::current_dir", "env::temp_dir", "env::home_dir", "env::set_"];
    let mut broken = Vec::new();
    for source in sources() {
        if ENVIRONMENT.iter().any(|(path, _)| source.path.starts_with(path)) {
            continue;
        }
        for line in source.code.lines().filter(|line| words.iter().any(|word| line.contains(word))) {
            broken.push(format!("{}: {}", source.path, line.trim()));
        }
    }
    assert_none(&broken, "only config reads the environment");
}

/// Who may start programs beside `process`, and why.
const SPAWNS: &[(&str, &str)] = &[
    ("src/process/", "it is the one that owns what it starts"),
    ("src/sim/", "plays vLLM, which starts its engine"),
    ("src/telemetry/", "asks short-lived tools, through `run_limited`"),
    ("src/commands/run/contained.rs", "asks the runtime of containers, through `run_limited`"),
    ("src/execute/evidence/", "asks py-spy and dmesg, through `run_unless` and `run_limited`"),
    ("src/execute/slurm/tools.rs", "calls Slurm's programs, through `run_limited`"),
    ("src/commands/run/detach.rs", "starts itself once more"),
    ("src/commands/run/engine.rs", "asks a login shell, through `run_limited`"),
    ("src/notify/", "starts the user's command, through `run_limited`"),
    ("src/commands/run/nodes.rs", "asks Slurm for the address of a node, through `run_limited`"),
    ("src/preflight/ask.rs", "asks vLLM for its help texts, through `run_limited`"),
    ("src/commands/check/mod.rs", "asks a login shell, through `run_limited`"),
];

#[test]
fn only_process_starts_programs() {
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|source| !SPAWNS.iter().any(|(path, _)| source.path.starts_with(path)))
        .filter(|source| source.code.contains("process::Command") || source.code.contains("process::{Command"))
        .map(|source| source.path)
        .collect();
    assert_none(&broken, "only process starts programs");
}

#[test]
fn only_main_exits() {
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path != "src/main.rs" && source.code.contains("process::exit("))
        .map(|source| source.path)
        .collect();
    assert_none(&broken, "below main nothing ends the process");
}

#[test]
fn only_layout_knows_the_names_on_disk() {
    let names = [
        "\"manifest.json\"",
        "\"journal.jsonl\"",
        "\"summary.txt\"",
        "\"detailed_analysis.txt\"",
        "\"raw_results.json\"",
        "\"results_summary.csv\"",
        "_results.json\"",
        "_failure.json\"",
        "_server.log\"",
        "_benchmark.log\"",
    ];
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.path != "src/record/layout.rs") {
        for line in source.code.lines().filter(|line| names.iter().any(|name| line.contains(name))) {
            broken.push(format!("{}: {}", source.path, line.trim()));
        }
    }
    assert_none(&broken, "only record::layout knows file names");
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let code = "use crate::plan::Flags;\nuse crate::{config, execute::{Event, Phase}, record};\nlet x = crate::ui::Ui;";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["config", "execute", "plan", "record", "ui"]);
}
