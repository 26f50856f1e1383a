//! Locks on devices across runs and users of a machine: one file per device in a folder that all can write to, held by `flock`.
//!
//! Files have mode 0644 and are opened for reading alone, so that everybody can lock what somebody else has made. Who holds one is told
//! by `/proc/locks`; beside the file lies the holder's own note, for what `/proc` does not tell: the run, and the holder in another PID
//! namespace, which `/proc/locks` leaves out.
//!
//! The servers of a run inherit its locks: when the run is killed, a device stays locked until the last process on it has ended.

use std::fmt;
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::device_holder::{DeviceHolder, Signature, command_of, is_gone, user_of};
use super::lock_file::{LockError, Share, open_existing, take};
use super::{boot_id, pid_namespace, procfs};
use crate::bounded;
use crate::model::{CORES, ProcessId, parse_cores};

/// Where the locks are, unless the user names another folder.
pub const DEVICE_LOCKS: &str = "/tmp/vllm-bench-devices";
/// Mode of that folder: everybody may make files, and remove only his own.
const SHARED: u32 = 0o1777;

/// The folder of the locks.
#[derive(Debug, Clone)]
pub struct DeviceLocks {
    dir: PathBuf,
    /// Before each name: a folder that several machines share has the locks of each.
    boot: String,
}

impl DeviceLocks {
    /// The locks in this folder, which is made where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, is a link or no folder, or others could replace the locks in it.
    pub fn at(dir: &Path) -> Result<Self, LockError> {
        let wrong = |problem: &dyn fmt::Display| LockError::new(dir, problem);
        match std::fs::DirBuilder::new().mode(SHARED).create(dir) {
            // Whatever umask says.
            Ok(()) => std::fs::set_permissions(dir, Permissions::from_mode(SHARED)).map_err(|error| wrong(&error))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(wrong(&error)),
        }
        let meta = std::fs::symlink_metadata(dir).map_err(|error| wrong(&error))?;
        if meta.is_symlink() {
            return Err(wrong(&"it is a link"));
        }
        if !meta.is_dir() {
            return Err(wrong(&"it is no folder"));
        }
        let mode = meta.mode() & 0o7777;
        let mine = meta.uid() == nix::unistd::geteuid().as_raw();
        if dir == Path::new(DEVICE_LOCKS) && mine && mode != SHARED {
            // Somebody's umask, or a crash between making it and this: the other users must be able to lock, too.
            std::fs::set_permissions(dir, Permissions::from_mode(SHARED)).map_err(|error| wrong(&error))?;
        } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            let owner = user_of(meta.uid());
            return Err(wrong(&format!(
                "its mode is {mode:04o}, so that others could replace the locks of a run; it belongs to {owner}, who can say \
                 `chmod 1777 {}`",
                dir.display()
            )));
        }
        Ok(Self { dir: dir.to_owned(), boot: boot_prefix() })
    }

    /// Whether anybody holds a device of this machine by locks in this folder. Nothing is made.
    pub fn any_held(dir: &Path) -> bool {
        let boot = boot_prefix();
        let Ok(entries) = std::fs::read_dir(dir) else { return false };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut locks = names.filter(|name| name.starts_with(&format!("{boot}-")) && name.ends_with(".lock"));
        locks.any(|name| {
            let path = dir.join(name);
            let is_held = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
            !procfs::lock_holders(&path).is_empty() || open_existing(&path).is_ok_and(is_held)
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Locks all of these devices, or none: then who holds which.
    ///
    /// # Errors
    /// When a file cannot be made or locked for another reason.
    pub fn take(
        &self,
        addresses: &[String],
        mut signature: Signature,
    ) -> Result<Result<HeldDevices, Vec<DeviceHolder>>, LockError> {
        let mut files = Vec::new();
        let mut holders: Vec<DeviceHolder> = Vec::new();
        let mut wanted: Vec<(String, Share, &String)> = Vec::new();
        for address in addresses {
            wanted.extend(names(address).into_iter().map(|(name, share)| (name, share, address)));
        }
        // Everybody in the same order: of two that want the same at once, one gets all of it.
        wanted.sort_by(|one, other| one.0.cmp(&other.0));
        for (name, share, address) in wanted {
            let path = self.path(&name);
            match take(&path, share)? {
                Some(file) => files.push(file),
                None if holders.iter().any(|holder| holder.device == *address) => {}
                None => holders.push(self.holder_of(address, &path)),
            }
        }
        if !holders.is_empty() {
            return Ok(Err(holders));
        }
        self.remove_stale_notes();
        signature.devices = addresses.to_vec();
        let held = HeldDevices { files, note: self.note(&signature), signature };
        held.write_note();
        Ok(Ok(held))
    }

    /// Who holds a device now; `None` where nobody does. Makes no file.
    pub fn holder(&self, address: &str) -> Option<DeviceHolder> {
        names(address).into_iter().find_map(|(name, share)| {
            let path = self.path(&name);
            let file = open_existing(&path).ok()?;
            let listed = !procfs::lock_holders(&path).is_empty();
            let is_held = match share {
                // Other tiles of the card share it.
                Share::WithOthers => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
                Share::Alone => listed || matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            };
            is_held.then(|| self.holder_of(address, &path))
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}.lock", self.boot))
    }

    /// One note for each process: its own name, so that nobody has to write to the file of another user.
    fn note(&self, signature: &Signature) -> PathBuf {
        let ProcessId { pid, start_time } = signature.process;
        let namespace: String = signature.pid_namespace.chars().filter(char::is_ascii_digit).collect();
        self.dir.join(format!("{}-{pid}-{start_time}-{namespace}.json", self.boot))
    }

    /// Removes notes of this user's processes of this namespace that are gone: a killed one leaves its own.
    fn remove_stale_notes(&self) {
        let (me, here) = (nix::unistd::geteuid().as_raw(), pid_namespace());
        let stale = self
            .notes()
            .into_iter()
            .filter(|(note, uid)| *uid == me && note.pid_namespace == here && !note.process.is_alive());
        for (note, _) in stale {
            let _ = std::fs::remove_file(self.note(&note));
        }
    }

    /// Who holds the lock of this path, by what the kernel and its note say.
    fn holder_of(&self, address: &str, path: &Path) -> DeviceHolder {
        let notes = self.notes();
        let here = pid_namespace();
        let names_it = |note: &Signature| note.devices.iter().any(|device| device == address);
        // Where the kernel's table does not tell (a sandbox), a note does whose writer lives.
        let by_note = || {
            let lives = |note: &Signature| {
                note.pid_namespace == here
                    && names_it(note)
                    && note.process.is_alive()
                    && note.process != ProcessId::current()
            };
            let writer = |(note, uid): &&(Signature, u32)| lives(note) && procfs::uid(note.process.pid) == Some(*uid);
            notes.iter().rev().find(writer).map(|(note, _)| note.process.pid)
        };
        let pid = procfs::lock_holders(path).into_iter().find(|pid| *pid > 0).or_else(by_note);
        let by_pid = |pid: i32| {
            let alive = ProcessId::of(pid);
            notes.iter().find(|(note, _)| {
                note.pid_namespace == here && note.process.pid == pid && alive.is_none_or(|alive| alive == note.process)
            })
        };
        // Of a process that cannot be seen only a note tells; of several the newest.
        let unseen = || notes.iter().rev().find(|(note, _)| note.pid_namespace != here && names_it(note));
        let note = match pid {
            Some(pid) => by_pid(pid),
            None => unseen(),
        };
        let uid = pid.and_then(procfs::uid).or(note.map(|(_, uid)| *uid));
        DeviceHolder {
            device: address.to_owned(),
            pid,
            user: uid.map(user_of),
            since: note.map(|(note, _)| note.since.clone()),
            command: pid
                .and_then(command_of)
                .or(note.map(|(note, _)| note.command.clone()))
                .filter(|line| !line.is_empty()),
            run: note.and_then(|(note, _)| note.run.clone()),
            is_gone: pid.is_some_and(is_gone),
            is_mine: uid == Some(nix::unistd::geteuid().as_raw()),
        }
    }

    /// All notes of this boot with the users who wrote them, the oldest first. Whoever wrote one may say anything in it: its user is
    /// taken from the file.
    fn notes(&self) -> Vec<(Signature, u32)> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let mut notes: Vec<_> = entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.starts_with(&format!("{}-", self.boot)) && name.ends_with(".json")
            })
            .filter_map(|entry| {
                let meta = std::fs::symlink_metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
                let note = serde_json::from_slice(&bounded::read(&entry.path(), bounded::NOTE).ok()?).ok()?;
                Some((meta.mtime(), meta.uid(), note))
            })
            .collect();
        notes.sort_by_key(|(written, ..)| *written);
        notes.into_iter().map(|(_, uid, note): (i64, u32, Signature)| (note, uid)).collect()
    }
}

/// Devices that this process holds; dropped = freed, once all that it started has ended too. The files stay: removing one would let two
/// processes hold "the" lock.
#[derive(Debug)]
pub struct HeldDevices {
    files: Vec<File>,
    note: PathBuf,
    signature: Signature,
}

impl HeldDevices {
    /// Addresses of the devices.
    pub fn addresses(&self) -> &[String] {
        &self.signature.devices
    }

    /// Lets all that this process starts from now on inherit the locks, and hold them as long as it lives.
    ///
    /// # Errors
    /// When the kernel does not let it.
    pub fn pass_on(&self) -> Result<(), LockError> {
        for file in &self.files {
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| LockError::new(&self.note, errno))?;
        }
        Ok(())
    }

    /// Says which run it is for.
    pub fn name_run(&mut self, run: &Path) {
        self.signature.run = Some(run.to_owned());
        self.write_note();
    }

    /// Without a note the locks hold as well; only what others are told is poorer.
    fn write_note(&self) {
        let write = || -> io::Result<()> {
            let dir = self.note.parent().unwrap_or(Path::new("/"));
            let file =
                tempfile::Builder::new().prefix(".tmp-").permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
            // Whatever umask says: it is for the other users.
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            serde_json::to_writer(file.as_file(), &self.signature)?;
            file.persist(&self.note).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "no note beside the locks of devices");
        }
    }
}

impl Drop for HeldDevices {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.note);
    }
}

/// What tells the locks of this machine, and of this boot, from others in the folder.
fn boot_prefix() -> String {
    boot_id().chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

/// The files of a device, in the order in which they are locked. Of a tile or partition the card comes first, shared with its other
/// tiles; of a core set there is one for each core, so that sets which overlap keep each other off.
fn names(address: &str) -> Vec<(String, Share)> {
    if let Some(cores) = address.strip_prefix(CORES).and_then(parse_cores) {
        return cores.into_iter().map(|core| (format!("core-{core}"), Share::Alone)).collect();
    }
    let own = (slug(address), Share::Alone);
    match address.split_once('/').filter(|(card, _)| !card.is_empty()) {
        Some((card, _)) => vec![(slug(card), Share::WithOthers), own],
        None => vec![own],
    }
}

/// An address as the name of a file.
fn slug(address: &str) -> String {
    let plain = |sign: char| if sign.is_ascii_alphanumeric() || matches!(sign, '-' | '.' | ':') { sign } else { '_' };
    address.chars().map(plain).take(100).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::lock_file::BETWEEN;
    use super::*;

    fn signature() -> Signature {
        Signature::new("now".to_owned())
    }

    fn taken(locks: &DeviceLocks, addresses: &[&str]) -> Result<HeldDevices, Vec<DeviceHolder>> {
        let addresses: Vec<String> = addresses.iter().map(|address| (*address).to_owned()).collect();
        locks.take(&addresses, signature()).unwrap()
    }

    fn locks() -> (tempfile::TempDir, DeviceLocks) {
        let dir = tempfile::tempdir().unwrap();
        let locks = DeviceLocks::at(&dir.path().join("locks")).unwrap();
        (dir, locks)
    }

    #[test]
    fn the_second_is_told_who_holds_which_device() {
        let (_dir, locks) = locks();
        let mut held = taken(&locks, &["0000:03:00.0", "0000:13:00.0"]).unwrap();
        held.name_run(Path::new("/r/20260225_1430"));
        let holders = taken(&locks, &["0000:13:00.0", "0000:23:00.0"]).unwrap_err();
        assert_eq!(holders.len(), 1, "{holders:?}");
        let holder = &holders[0];
        assert_eq!((holder.device.as_str(), holder.pid), ("0000:13:00.0", Some(ProcessId::current().pid)));
        assert_eq!(
            (holder.run.as_deref(), holder.since.as_deref()),
            (Some(Path::new("/r/20260225_1430")), Some("now"))
        );
        assert!(holder.command.is_some() && holder.user.is_some() && !holder.is_gone && holder.is_mine);
        assert_eq!(locks.holder("0000:13:00.0").as_ref(), Some(holder));
        assert_eq!(locks.holder("0000:23:00.0"), None, "nothing was kept by the one who was refused");
        assert!(DeviceLocks::any_held(locks.dir()) && !DeviceLocks::any_held(Path::new("/nonexistent")));
        drop(held);
        assert_eq!(locks.holder("0000:13:00.0"), None);
        assert!(!DeviceLocks::any_held(locks.dir()));
        let left: Vec<_> = std::fs::read_dir(locks.dir()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
    }

    #[test]
    fn sets_of_cores_keep_each_other_off_where_they_overlap() {
        let (_dir, locks) = locks();
        let _held = taken(&locks, &["cores:0-3"]).unwrap();
        let holders = taken(&locks, &["cores:3-5"]).unwrap_err();
        assert_eq!(holders.iter().map(|holder| holder.device.as_str()).collect::<Vec<_>>(), ["cores:3-5"]);
        assert!(locks.holder("cores:0-7").is_some() && locks.holder("cores:4-7").is_none());
        taken(&locks, &["cores:4-5"]).unwrap();
    }

    #[test]
    fn tiles_share_their_card_and_keep_it_from_those_who_want_all_of_it() {
        let (_dir, locks) = locks();
        let first = taken(&locks, &["0000:03:00.0/tile0"]).unwrap();
        let second = taken(&locks, &["0000:03:00.0/tile1"]).unwrap();
        assert!(taken(&locks, &["0000:03:00.0/tile1"]).is_err());
        assert!(taken(&locks, &["0000:03:00.0"]).is_err());
        drop((first, second));
        let _card = taken(&locks, &["0000:03:00.0"]).unwrap();
        assert!(taken(&locks, &["0000:03:00.0/tile0"]).is_err());
        assert!(locks.holder("0000:03:00.0/tile0").is_some());
    }

    #[test]
    fn what_a_run_has_started_holds_its_locks_until_it_ends() {
        let (_dir, locks) = locks();
        let held = taken(&locks, &["0000:03:00.0"]).unwrap();
        held.pass_on().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        drop(held);
        assert!(taken(&locks, &["0000:03:00.0"]).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests of this process start programs at the same time, which inherit the lock for a moment.
        let freed = (0..6000).any(|_| {
            std::thread::sleep(BETWEEN);
            taken(&locks, &["0000:03:00.0"]).is_ok()
        });
        assert!(freed);
    }

    #[test]
    fn files_can_be_locked_by_everybody_whatever_the_umask() {
        let (_dir, locks) = locks();
        let _held = taken(&locks, &["0000:03:00.0"]).unwrap();
        assert_eq!(std::fs::metadata(locks.dir()).unwrap().mode() & 0o7777, SHARED);
        for entry in std::fs::read_dir(locks.dir()).unwrap().flatten() {
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o644, "{:?}", entry.file_name());
        }
    }

    #[test]
    fn links_files_and_folders_that_others_can_change_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path, words: &str| {
            let error = DeviceLocks::at(path).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let (link, file, open) = (dir.path().join("link"), dir.path().join("file"), dir.path().join("open"));
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        refused(&link, "it is a link");
        std::fs::write(&file, "").unwrap();
        refused(&file, "it is no folder");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        refused(&open, "its mode is 0777");
        refused(&dir.path().join("none/below"), "No such file");
        refused(Path::new("/proc/none"), "No such file");
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let (dir, locks) = locks();
        let path = |address: &str| locks.path(&slug(address));
        std::os::unix::fs::symlink(dir.path().join("precious"), path("a")).unwrap();
        nix::unistd::mkfifo(&path("b"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("c")).unwrap();
        for address in ["a", "b", "c"] {
            assert!(locks.take(&[address.to_owned()], signature()).is_err(), "{address}");
            assert_eq!(locks.holder(address), None);
        }
        assert!(!dir.path().join("precious").exists());
    }

    #[test]
    fn many_that_want_overlapping_devices_get_them_one_after_the_other() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let (_dir, locks) = locks();
        let users = [const { AtomicU32::new(0) }; 3];
        let (wants, names) = ([[0, 1], [2, 1], [2, 0]], ["a", "b", "c"]);
        std::thread::scope(|scope| {
            for turn in 0..9 {
                let (locks, users, [one, other]) = (&locks, &users, wants[turn % 3]);
                scope.spawn(move || {
                    for _ in 0..5 {
                        let held = loop {
                            match taken(locks, &[names[one], names[other]]) {
                                Ok(held) => break held,
                                Err(holders) => assert!(!holders.is_empty()),
                            }
                        };
                        for device in [one, other] {
                            assert_eq!(users[device].fetch_add(1, Ordering::SeqCst), 0, "two have it");
                        }
                        std::thread::sleep(Duration::from_millis(1));
                        for device in [one, other] {
                            users[device].fetch_sub(1, Ordering::SeqCst);
                        }
                        drop(held);
                    }
                });
            }
        });
    }

    #[test]
    fn a_killed_run_s_note_is_removed_by_the_next() {
        let (_dir, locks) = locks();
        let dead = ProcessId { pid: ProcessId::current().pid, start_time: 1 };
        let stale = Signature { process: dead, ..signature() };
        let theirs = Signature { pid_namespace: "pid:[1]".into(), ..stale.clone() };
        for note in [&stale, &theirs] {
            std::fs::write(locks.note(note), serde_json::to_vec(note).unwrap()).unwrap();
        }
        let _held = taken(&locks, &["a"]).unwrap();
        assert!(!locks.note(&stale).exists());
        assert!(locks.note(&theirs).exists(), "its number means nothing here");
    }

    #[test]
    fn notes_that_lie_or_are_none_harm_nobody() {
        let (_dir, locks) = locks();
        let _held = taken(&locks, &["0000:03:00.0"]).unwrap();
        let boot = &locks.boot;
        for (name, text) in [("1-2-3", "{"), ("x", "[]"), ("7-7-7", r#"{"process":{"pid":7,"start_time":7}}"#)] {
            std::fs::write(locks.dir().join(format!("{boot}-{name}.json")), text).unwrap();
        }
        let mut lie = Signature { command: "rm -rf".into(), devices: vec!["0000:03:00.0".into()], ..signature() };
        lie.pid_namespace = "pid:[1]".into();
        std::fs::write(locks.dir().join(format!("{boot}-8-8-8.json")), serde_json::to_vec(&lie).unwrap()).unwrap();
        let holder = locks.holder("0000:03:00.0").unwrap();
        assert_eq!(holder.pid, Some(ProcessId::current().pid));
        assert_ne!(holder.command.as_deref(), Some("rm -rf"));
    }
}
