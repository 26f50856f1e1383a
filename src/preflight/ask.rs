//! Asks a vLLM for its flags, once per path and version: each of the two help texts takes ten seconds.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Known;
use crate::telemetry::{Patience, run_patiently};

/// How long vLLM may take to say what it knows, and how long it may do nothing meanwhile: its import takes ten seconds, and
/// minutes on a busy machine.
pub const PATIENCE: Patience = Patience { idle: Duration::from_secs(60), most: Duration::from_secs(900) };

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

macro_rules! recorded {
    ($($version:literal)*) => {
        impl Help {
            /// The releases whose help texts were recorded from installed ones, the oldest first.
            pub const RECORDED: &[&str] = &[$($version),*];

            /// The flags of a recorded release; `None` for another one.
            pub fn recorded(version: &str) -> Option<Self> {
                let (serve, bench) = match version {
                    $($version => (
                        include_str!(concat!("fixtures/serve-", $version, ".txt")),
                        include_str!(concat!("fixtures/bench-", $version, ".txt")),
                    ),)*
                    _ => return None,
                };
                Some(Self { serve: Known::parse(serve)?, bench: Known::parse(bench)?, from_cache: true })
            }
        }
    };
}

recorded!("0.10.2" "0.14.1" "0.15.0" "0.32.0");

impl Help {
    /// The flags of vLLM 0.14.1, which the simulated vLLM plays.
    pub fn of_0_14_1() -> Option<Self> {
        Self::recorded("0.14.1")
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
/// build cannot be loaded without, in a login shell where `login`; `env` is added to the environment. Blocks for some seconds
/// unless the answer is in `cache_dir` already; `tell` says from time to time what is waited for.
///
/// # Errors
/// When the program cannot be run or lists no flags.
pub fn ask(
    program: &Path,
    shell: Option<Shell<'_>>,
    env: &[(String, String)],
    version: Option<&str>,
    cache_dir: &Path,
    tell: impl Fn(&str),
) -> Result<Help, Error> {
    let key = key(program, version);
    let path = cache_dir.join(format!("{key}.json"));
    if let Some(kept) = read(&path, &key) {
        return Ok(Help { serve: kept.serve, bench: kept.bench, from_cache: true });
    }
    let (serve, bench) = std::thread::scope(|scope| {
        let serve = scope.spawn(|| help(program, shell, &["serve"], env, |_| {}));
        let bench = help(program, shell, &["bench", "serve"], env, tell);
        (serve.join(), bench)
    });
    let gone = |_| Error::Run { command: "vllm serve --help=all".to_owned(), reason: "the thread died".to_owned() };
    let kept = Kept { key, serve: serve.map_err(gone)??, bench: bench? };
    write(&path, &kept);
    Ok(Help { serve: kept.serve, bench: kept.bench, from_cache: false })
}

/// Sources the first argument, in a login shell as the launch scripts do it, then runs the rest.
const IN_ONEAPI: &str = r#"source "$1" --force >/dev/null 2>&1; shift; exec "$@""#;

/// oneAPI's environment, and the shell in which it is set.
#[derive(Debug, Clone, Copy)]
pub struct Shell<'a> {
    /// Its script.
    pub setvars: &'a Path,
    /// Whether the shell is a login shell.
    pub login: bool,
}

/// `--help=all` lists all flags since 0.11; before that it finds none, and plain `--help` lists them.
fn help(
    program: &Path,
    shell: Option<Shell<'_>>,
    words: &[&str],
    env: &[(String, String)],
    tell: impl Fn(&str),
) -> Result<Known, Error> {
    let shown = |flag: &str| format!("{} {} {flag}", program.display(), words.join(" "));
    for flag in ["--help=all", "--help"] {
        let mut command = match shell {
            Some(Shell { setvars, login }) => {
                let mut shell = Command::new("bash");
                shell.args(login.then_some("--login"));
                shell.args(["-c", IN_ONEAPI, "vllm-bench"]).args([setvars, program]);
                shell
            }
            None => Command::new(program),
        };
        command.args(words).arg(flag).envs(env.iter().map(|(name, value)| (name, value)));
        // Wide enough that no list of choices is broken.
        command.env("COLUMNS", "1000");
        let waiting = |waited: Duration| {
            tell(&format!("waiting for `{}` for {} s: it still works", shown(flag), waited.as_secs()));
        };
        let output = run_patiently(command, PATIENCE, waiting)
            .map_err(|error| Error::Run { command: shown(flag), reason: error.to_string() })?;
        if let Some(known) = Known::parse(&String::from_utf8_lossy(&output.stdout)) {
            return Ok(known);
        }
        if !output.status.success() {
            let last = output.complaint().unwrap_or_else(|| "it said nothing".into());
            return Err(Error::Run {
                command: shown(flag),
                reason: format!("it ended with {}: {last}", output.status),
            });
        }
    }
    Err(Error::NoFlags { command: shown("--help=all") })
}

/// The program's path, its version, and when and how large it was written: a reinstalled vLLM is asked again.
fn key(program: &Path, version: Option<&str>) -> String {
    let path = std::fs::canonicalize(program).unwrap_or_else(|_| program.to_owned());
    let (size, time) = std::fs::metadata(&path).map_or((0, 0), |meta| {
        let time = meta.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        (meta.len(), time.map_or(0, |at| at.as_nanos()))
    });
    let text = format!("3\n{}\n{version:?}\n{size}\n{time}", path.display());
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path, key: &str) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&crate::bounded::read(path, crate::bounded::TEXT).ok()?).ok()?;
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
    fn program(dir: &Path, text: &str) -> std::path::PathBuf {
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
        let asked = |version: &str| ask(&vllm, None, &[], Some(version), &cache, |_| {}).unwrap();
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
        let help =
            ask(&vllm, Some(Shell { setvars: &setvars, login: true }), &[], None, &dir.path().join("cache"), |_| {})
                .unwrap();
        assert_eq!(help.serve.flags[0].names, ["a-flag"]);
    }

    #[test]
    fn an_old_vllm_that_does_not_know_help_all_is_asked_for_its_plain_help() {
        let dir = tempfile::tempdir().unwrap();
        let vllm = dir.path().join("vllm");
        // As 0.10.2 answers: what matches `all`, or nothing.
        let script = "#!/bin/sh\ncase \"$*\" in *=all*) echo \"No group or parameter matching 'all'\";; *) echo '  --a-flag X  text';; esac\n";
        std::fs::write(&vllm, script).unwrap();
        std::fs::set_permissions(&vllm, std::fs::Permissions::from_mode(0o755)).unwrap();
        let help = ask(&vllm, None, &[], None, &dir.path().join("cache"), |_| {}).unwrap();
        assert_eq!(help.serve.flags[0].names, ["a-flag"]);
        assert_eq!(help.bench.flags[0].names, ["a-flag"]);
    }

    #[test]
    fn a_vllm_that_crashes_is_told_with_its_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let vllm = dir.path().join("vllm");
        std::fs::write(&vllm, "#!/bin/sh\necho 'ModuleNotFoundError: no torch' >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&vllm, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = ask(&vllm, None, &[], None, &dir.path().join("cache"), |_| {}).unwrap_err().to_string();
        assert!(error.ends_with("it ended with exit status: 1: ModuleNotFoundError: no torch"), "{error}");
    }

    #[test]
    fn a_program_without_flags_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let vllm = program(dir.path(), "nothing here");
        assert!(matches!(ask(&vllm, None, &[], None, dir.path(), |_| {}), Err(Error::NoFlags { .. })));
        assert!(matches!(ask(Path::new("/nowhere/vllm"), None, &[], None, dir.path(), |_| {}), Err(Error::Run { .. })));
    }
}
