//! A copy of the process environment: the one place where it is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::safe;

/// The environment of this process, as it was at the start.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    vars: BTreeMap<String, String>,
    working_directory: PathBuf,
    command_line: Vec<String>,
}

impl Environment {
    /// The words of the command line, before anything is read from them.
    pub fn words() -> impl Iterator<Item = std::ffi::OsString> {
        std::env::args_os()
    }

    /// Reads it. Names or values that are not UTF-8 are left out: none of ours is.
    pub fn read() -> Self {
        let vars =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self {
            vars,
            working_directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            command_line: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        }
    }

    /// An environment made by hand, for tests.
    pub fn of(vars: &[(&str, &str)], working_directory: &Path) -> Self {
        Self {
            vars: vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            working_directory: working_directory.to_owned(),
            command_line: Vec::new(),
        }
    }

    /// One variable; an empty one counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where this program may keep what it can make again: `$XDG_CACHE_HOME/vllm-bench`, else `~/.cache/vllm-bench`, else
    /// below `/tmp`.
    pub fn cache_dir(&self) -> PathBuf {
        let base = self.get("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || self.get("HOME").map(|home| Path::new(home).join(".cache"));
        base.or_else(home).unwrap_or_else(|| PathBuf::from("/tmp")).join("vllm-bench")
    }

    /// The same with some variables more, or others in their place.
    pub fn with(&self, vars: &[(String, String)]) -> Self {
        let mut environment = self.clone();
        environment.vars.extend(vars.iter().cloned());
        environment
    }

    /// The same without our own settings.
    #[must_use]
    pub fn without_settings(&self) -> Self {
        let mut bare = self.clone();
        bare.vars.retain(|name, _| !name.starts_with("VLLM_BENCH_"));
        bare
    }

    /// All variables.
    pub fn vars(&self) -> &BTreeMap<String, String> {
        &self.vars
    }

    /// Names of our own settings. They are none of vLLM's: it warns of `VLLM_` variables that it does not know.
    pub fn own_variables(&self) -> Vec<String> {
        self.vars.keys().filter(|name| name.starts_with("VLLM_BENCH_")).cloned().collect()
    }

    /// Sees to it that no secret that is known here is written or shown: those of variables and of the command line, of a `.env`
    /// file in the working directory, and the hub's token, which vLLM reads from its file.
    pub fn learn_secrets(&self) {
        safe::learn(self.vars.iter().flat_map(|(name, value)| safe::in_variable(name, value)));
        safe::learn(safe::in_words(&self.command_line));
        if let Some(text) = small_file(&self.working_directory.join(".env")) {
            safe::learn(safe::in_text(&text));
        }
        let home = self.get("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = self.get("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(Path::new(self.get("HOME")?).join(".cache")))?.join("huggingface"))
        });
        let token = self.get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
        safe::learn(token.and_then(|path| small_file(&path)).map(|text| text.trim().to_owned()));
    }

    /// The program and its arguments as called; may hold secrets.
    pub fn command_line(&self) -> &[String] {
        &self.command_line
    }

    /// The directory in which the program was called.
    pub fn working_directory(&self) -> &Path {
        &self.working_directory
    }

    /// Makes a path absolute, as seen from where the program was called. Nothing later depends on a current directory.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut absolute = PathBuf::new();
        for part in self.working_directory.join(path).components() {
            match part {
                std::path::Component::CurDir => {}
                part => absolute.push(part),
            }
        }
        absolute
    }

    /// The first executable file of this name on PATH.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.get("PATH")?
            .split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| self.absolute(dir).join(name))
            .find(|path| is_executable(path))
    }
}

/// The text of a regular file of at most 64 KiB; `None` for anything else.
fn small_file(path: &Path) -> Option<String> {
    let small = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= 64 << 10);
    if small { std::fs::read_to_string(path).ok() } else { None }
}

/// Whether this is a file that may be executed.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}
