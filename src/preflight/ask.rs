//! Asks a vLLM for its flags, once per path and version: each of the two help texts takes ten seconds.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Known;
use crate::telemetry::run_limited;

/// How long a help text may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What a vLLM knows.
#[derive(Debug, Clone)]
pub struct Help {
    /// Flags of `vllm serve`.
    pub serve: Known,
    /// Flags of `vllm bench serve`.
    pub bench: Known,
    /// Whether it was asked in an earlier call.
    pub from_cache: bool,
}

impl Help {
    /// The flags of vLLM 0.14.1, which the simulated vLLM plays.
    pub fn of_0_14_1() -> Option<Self> {
        let serve = Known::parse(include_str!("fixtures/serve-0.14.1.txt"))?;
        let bench = Known::parse(include_str!("fixtures/bench-0.14.1.txt"))?;
        Some(Self { serve, bench, from_cache: true })
    }
}

/// Why a vLLM could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be run, or not within its limit.
    #[error("`{command}` could not be run: {reason}")]
    Run {
        /// Its command line.
        command: String,
        /// Why.
        reason: String,
    },
    /// It ran, and printed no list of flags.
    #[error("`{command}` listed no flags")]
    NoFlags {
        /// Its command line.
        command: String,
    },
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// What the answer is for: a file of another program is none of ours.
    key: String,
    serve: Known,
    bench: Known,
}

/// Asks for the flags of `vllm serve` and `vllm bench serve`. `setvars` is oneAPI's environment script, which vLLM's XPU
/// build cannot be loaded without; `env` is added to the environment. Blocks for some seconds unless the answer is in
/// `cache_dir` already.
///
/// # Errors
/// When the program cannot be run or lists no flags.
pub fn ask(
    program: &Path,
    setvars: Option<&Path>,
    env: &[(String, String)],
    version: Option<&str>,
    cache_dir: &Path,
) -> Result<Help, Error> {
    let key = key(program, version);
    let path = cache_dir.join(format!("{key}.json"));
    if let Some(kept) = read(&path, &key) {
        return Ok(Help { serve: kept.serve, bench: kept.bench, from_cache: true });
    }
    let one = |words: &[&str]| help(program, setvars, words, env);
    let (serve, bench) = std::thread::scope(|scope| {
        let serve = scope.spawn(|| one(&["serve", "--help=all"]));
        let bench = one(&["bench", "serve", "--help=all"]);
        (serve.join(), bench)
    });
    let gone = |_| Error::Run { command: "vllm serve --help=all".to_owned(), reason: "the thread died".to_owned() };
    let kept = Kept { key, serve: serve.map_err(gone)??, bench: bench? };
    write(&path, &kept);
    Ok(Help { serve: kept.serve, bench: kept.bench, from_cache: false })
}

/// Sources the first argument, in a login shell as the launch scripts do it, then runs the rest.
const IN_ONEAPI: &str = r#"source "$1" --force >/dev/null 2>&1; shift; exec "$@""#;

fn help(program: &Path, setvars: Option<&Path>, words: &[&str], env: &[(String, String)]) -> Result<Known, Error> {
    let shown = format!("{} {}", program.display(), words.join(" "));
    let mut command = match setvars {
        Some(setvars) => {
            let mut shell = Command::new("bash");
            shell.args(["--login", "-c", IN_ONEAPI, "vllm-bench"]).args([setvars, program]);
            shell
        }
        None => Command::new(program),
    };
    command.args(words).envs(env.iter().map(|(name, value)| (name, value)));
    // Wide enough that no list of choices is broken.
    command.env("COLUMNS", "1000");
    let output = run_limited(command, LIMIT)
        .map_err(|error| Error::Run { command: shown.clone(), reason: error.to_string() })?;
    Known::parse(&String::from_utf8_lossy(&output.stdout)).ok_or(Error::NoFlags { command: shown })
}

/// The program's path, its version, and when and how large it was written: a reinstalled vLLM is asked again.
fn key(program: &Path, version: Option<&str>) -> String {
    let path = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    let (size, time) = std::fs::metadata(&path).map_or((0, 0), |meta| {
        let time = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        (meta.len(), time.map_or(0, |at| at.as_nanos()))
    });
    let text = format!("2\n{}\n{version:?}\n{size}\n{time}", path.display());
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &PathBuf, key: &str) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (kept.key == key).then_some(kept)
}

/// A cache that cannot be written costs seconds, and nothing else.
fn write(path: &Path, kept: &Kept) {
    let Some(folder) = path.parent() else { return };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.persist(path)?;
        Ok(())
    };
    if let Err(error) = write() {
        tracing::debug!(%error, path = %path.display(), "the flags of vLLM could not be cached");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that prints a help text and counts its calls.
    fn program(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("vllm");
        let script = format!("#!/bin/sh\necho call >> '{0}/calls'\ncat <<'END'\n{text}\nEND\n", dir.display());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn calls(dir: &Path) -> usize {
        std::fs::read_to_string(dir.join("calls")).unwrap_or_default().lines().count()
    }

    #[test]
    fn vllm_is_asked_once_and_again_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let vllm = program(dir.path(), "usage:\n  --a-flag X  text");
        let asked = |version: &str| ask(&vllm, None, &[], Some(version), &cache).unwrap();
        assert!(!asked("1").from_cache);
        assert_eq!(asked("1").serve.flags[0].names, ["a-flag"]);
        assert!(asked("1").from_cache);
        assert_eq!(calls(dir.path()), 2);
        assert!(!asked("2").from_cache, "another version is asked anew");
        for entry in std::fs::read_dir(&cache).unwrap().flatten() {
            std::fs::write(entry.path(), "{\"key\":").unwrap();
        }
        assert!(!asked("1").from_cache, "a torn answer is none");
        assert!(asked("1").from_cache);
    }

    #[test]
    fn vllm_is_asked_in_the_environment_of_oneapi() {
        let dir = tempfile::tempdir().unwrap();
        let vllm = dir.path().join("vllm");
        std::fs::write(&vllm, "#!/bin/sh\necho \"  --$FROM_SETVARS X\"\n").unwrap();
        std::fs::set_permissions(&vllm, std::fs::Permissions::from_mode(0o755)).unwrap();
        let setvars = dir.path().join("set vars.sh");
        std::fs::write(&setvars, "echo ':: initializing oneAPI'\nexport FROM_SETVARS=a-flag\n").unwrap();
        let help = ask(&vllm, Some(&setvars), &[], None, &dir.path().join("cache")).unwrap();
        assert_eq!(help.serve.flags[0].names, ["a-flag"]);
    }

    #[test]
    fn a_program_without_flags_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let vllm = program(dir.path(), "nothing here");
        assert!(matches!(ask(&vllm, None, &[], None, dir.path()), Err(Error::NoFlags { .. })));
        assert!(matches!(ask(Path::new("/nowhere/vllm"), None, &[], None, dir.path()), Err(Error::Run { .. })));
    }
}
