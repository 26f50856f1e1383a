//! Where facts are read from: the root of the file system, the folders of the vendor tools, the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::tool::{ToolError, ToolOutput, run_limited};

/// Environment variables as they were given to this program (by `config`).
pub type Environment = BTreeMap<String, String>;

/// Folders in which vendors put their tools without telling PATH.
const VENDOR_DIRS: [&str; 6] =
    ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/opt/rocm/bin", "/usr/lib/wsl/lib", "/usr/local/nvidia/bin"];

/// Variables that narrow what a vendor's tool shows. Tools run without them: indices then always mean the whole machine, and
/// the narrowing is applied here, once.
pub const DEVICE_MASKS: [&str; 7] = [
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "SYCL_DEVICE_FILTER",
];

/// The place that facts are read from. [`Probe::of_machine`] is the real one; tests point `root` at a fixture tree.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Stands for `/`: `/proc`, `/sys`, `/dev` and `/etc` are read below it.
    pub root: PathBuf,
    /// Folders (not below `root`) in which vendor tools are sought, in this order.
    pub path_dirs: Vec<PathBuf>,
    /// The environment in which a server would start; tools get it too, without the device masks.
    pub environment: Environment,
    /// How long one call of a vendor tool may take.
    pub command_limit: Duration,
    /// Whether somebody measures on devices of this machine: then `xpu-smi`, which disturbs cards that work, is not run.
    pub quiet: bool,
}

impl Probe {
    /// The machine this program runs on, with tools sought on the PATH of `environment` and then where vendors put them.
    pub fn of_machine(environment: Environment) -> Self {
        let on_path = environment.get("PATH").map(String::as_str).unwrap_or_default();
        let mut path_dirs: Vec<PathBuf> = std::env::split_paths(on_path).filter(|dir| dir.is_absolute()).collect();
        for dir in VENDOR_DIRS.map(PathBuf::from) {
            if !path_dirs.contains(&dir) {
                path_dirs.push(dir);
            }
        }
        Self { root: PathBuf::from("/"), path_dirs, environment, command_limit: Duration::from_secs(20), quiet: false }
    }

    /// An absolute path of the machine, below the root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The trimmed text of a file; `None` when it is missing, unreadable, not text or empty.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        read_text(&self.at(path))
    }

    /// A variable that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The first executable file of this name in [`Probe::path_dirs`].
    pub fn find_tool(&self, name: &str) -> Option<PathBuf> {
        self.path_dirs
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
    }

    /// As [`Probe::find_tool`], for one that disturbs devices that work.
    pub(super) fn find_disturbing_tool(&self, name: &str) -> Option<PathBuf> {
        self.find_tool(name).filter(|_| !self.quiet)
    }

    /// Runs a vendor tool within [`Probe::command_limit`].
    pub(super) fn run_tool(&self, tool: &Path, arguments: &[&str]) -> Result<ToolOutput, ToolError> {
        let mut command = Command::new(tool);
        command.args(arguments).env_clear().envs(&self.environment).env("PATH", self.search_path()).env("LC_ALL", "C");
        for mask in DEVICE_MASKS {
            command.env_remove(mask);
        }
        run_limited(command, self.command_limit)
    }

    /// Runs a tool and gives its standard output, or a sentence that says why there is none.
    pub(super) fn answer(&self, tool: &Path, arguments: &[&str]) -> Result<String, String> {
        let shown = format!("{} {}", tool.display(), arguments.join(" "));
        let output = self.run_tool(tool, arguments).map_err(|error| error_chain(&error))?;
        if output.status.success() {
            return Ok(output.text());
        }
        let complaint = output.complaint().unwrap_or_else(|| "it said nothing".to_owned());
        Err(format!("`{shown}` failed ({}): {complaint}", output.status))
    }

    fn search_path(&self) -> OsString {
        std::env::join_paths(&self.path_dirs).unwrap_or_default()
    }
}

/// The trimmed text of a file; `None` when there is none.
pub(super) fn read_text(path: &Path) -> Option<String> {
    let bytes = crate::bounded::read(path, crate::bounded::TEXT).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// A whole number in a file of its own, as sysfs gives it.
pub(super) fn read_number(path: &Path) -> Option<u64> {
    read_text(path)?.parse().ok()
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let tree = Tree::new();
        assert_eq!(tree.probe().at("/proc/meminfo"), tree.path().join("proc/meminfo"));
    }

    #[test]
    fn tools_are_sought_on_path_first_and_never_relative() {
        let environment = Environment::from([("PATH".to_owned(), "/opt/x:bin::/usr/bin".to_owned())]);
        let dirs = Probe::of_machine(environment).path_dirs;
        assert_eq!(dirs[..2], [PathBuf::from("/opt/x"), PathBuf::from("/usr/bin")]);
        assert_eq!(dirs.iter().filter(|dir| dir.as_path() == Path::new("/usr/bin")).count(), 1);
        assert!(dirs.iter().all(|dir| dir.is_absolute()));
    }

    #[test]
    fn tools_run_with_the_given_environment_but_no_mask() {
        let tree = Tree::new();
        let tool = tree.tool("xpu-smi", "echo \"[$ZE_AFFINITY_MASK][$MARK]\"");
        let mut probe = tree.probe();
        probe.environment = Environment::from([
            ("ZE_AFFINITY_MASK".to_owned(), "1".to_owned()),
            ("MARK".to_owned(), "here".to_owned()),
        ]);
        assert_eq!(probe.answer(&tool, &[]).unwrap(), "[][here]\n");
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let tree = Tree::new();
        let tool = tree.tool("nvidia-smi", "echo 'no driver' >&2; exit 9");
        let sentence = tree.probe().answer(&tool, &["-L"]).unwrap_err();
        assert!(sentence.contains("-L` failed (exit status: 9): no driver"), "{sentence}");
    }

    #[test]
    fn a_file_without_execute_permission_is_no_tool() {
        let tree = Tree::new();
        tree.file("bin/rocm-smi", "#!/bin/sh\n");
        assert_eq!(tree.probe().find_tool("rocm-smi"), None);
    }
}
