//! Fixture trees for the tests: files, links and small shell scripts that stand for vendor tools.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Environment, Probe};

/// A temporary folder that plays `/`, with its own `bin` for tools.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Tools are found in this tree's `bin` only; `/bin` and `/usr/bin` are not searched.
    pub(crate) fn probe(&self) -> Probe {
        Probe {
            root: self.path().to_owned(),
            path_dirs: vec![self.path().join("bin")],
            environment: Environment::new(),
            command_limit: Duration::from_secs(60),
            quiet: false,
        }
    }

    pub(crate) fn probe_with(&self, variables: &[(&str, &str)]) -> Probe {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Probe { environment, ..self.probe() }
    }

    pub(crate) fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// An executable shell script in `bin`.
    pub(crate) fn tool(&self, name: &str, script: &str) -> PathBuf {
        let path = self.file(&format!("bin/{name}"), &format!("#!/bin/sh\nPATH=/bin:/usr/bin\n{script}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A tool that prints `text`, whatever it is asked.
    pub(crate) fn tool_that_prints(&self, name: &str, text: &str) -> PathBuf {
        self.tool(name, &format!("cat <<'TEXT'\n{text}\nTEXT"))
    }

    /// A render node with its sysfs folder, and the device node unless `hidden`.
    pub(crate) fn render_node(&self, minor: u32, ids: (&str, &str), driver: &str, pci: &str) {
        let device = format!("sys/class/drm/renderD{minor}/device");
        self.file(&format!("{device}/vendor"), &format!("{}\n", ids.0));
        self.file(&format!("{device}/device"), &format!("{}\n", ids.1));
        self.file(&format!("{device}/uevent"), &format!("DRIVER={driver}\nPCI_SLOT_NAME={pci}\n"));
        self.file(&format!("dev/dri/renderD{minor}"), "");
    }

    /// A process: comm, arguments, uid and parent; descriptors are added with [`Tree::descriptor`].
    pub(crate) fn process(&self, pid: i32, comm: &str, argv: &[&str], uid: u32, parent: i32) {
        self.file(&format!("proc/{pid}/comm"), &format!("{comm}\n"));
        self.file(&format!("proc/{pid}/cmdline"), &argv.iter().map(|word| format!("{word}\0")).collect::<String>());
        self.file(
            &format!("proc/{pid}/status"),
            &format!("Name:\t{comm}\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
        );
        std::fs::create_dir_all(self.path().join(format!("proc/{pid}/fd"))).unwrap();
    }

    /// An open descriptor of a process, with its fdinfo.
    pub(crate) fn descriptor(&self, pid: i32, number: u32, target: &str, fdinfo: &str) {
        self.link(&format!("proc/{pid}/fd/{number}"), target);
        self.file(&format!("proc/{pid}/fdinfo/{number}"), fdinfo);
    }
}
