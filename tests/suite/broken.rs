//! Sweep files that are wrong: what is said about them, that nothing is started, and that nothing is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BIN: &str = env!("CARGO_BIN_EXE_vllm-bench");

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sweeps").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Calls the program in a directory that holds this file alone; nothing else may be there afterwards.
fn call(arguments: &[&str], file: Option<&Path>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let name = file.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned());
    if let (Some(file), Some(name)) = (file, &name) {
        fs::copy(file, dir.path().join(name)).unwrap();
    }
    let output = Command::new(BIN)
        .args(arguments)
        .args(&name)
        .current_dir(dir.path())
        .env_clear()
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() <= 1 && left.iter().all(|left| Some(left.to_str().unwrap()) == name.as_deref()), "{left:?}");
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_mistake_is_named_with_its_place_and_the_next_step() {
    let files = files("broken");
    assert!(files.len() >= 24);
    let mut said = String::new();
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let output = call(&["plan"], Some(file));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}\n{text}");
        assert!(output.stdout.is_empty(), "{name}");
        assert!(text.starts_with(&format!("error: {name}:")), "{name} is not named:\n{text}");
        assert!(text.contains("\nhint: "), "{name} has no next step:\n{text}");
        assert!(!text.contains("not_to_be_shown"), "{name} shows a secret:\n{text}");
        said.push_str(&format!("# {name}\n{text}\n"));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_run_of_a_broken_file_starts_nothing_either() {
    for file in files("broken").iter().take(3) {
        assert_eq!(call(&["run", "--engine", "sim"], Some(file)).status.code(), Some(2));
    }
}

#[test]
fn what_is_no_file_is_named() {
    let mut said = String::new();
    for arguments in [
        &["plan", "nothing-here.yaml"][..],
        &["plan", "."],
        &["plan", "--preset", "ful"],
        &["plan", "--preset", "none"],
    ] {
        let output = call(arguments, None);
        assert_eq!(output.status.code(), Some(2));
        said.push_str(&format!("$ {}\n{}\n", arguments.join(" "), stderr(&output)));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn what_is_odd_but_possible_is_a_warning() {
    let mut said = String::new();
    for file in files("odd") {
        let output = call(&["config", "show"], Some(&file));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{}\n{text}", file.display());
        assert!(!text.is_empty(), "{}", file.display());
        said.push_str(&format!("# {}\n{text}\n", file.file_name().unwrap().to_str().unwrap()));
    }
    insta::assert_snapshot!(said);
}
