//! The token: 128 random bits in a file of this user's private directory. It stays from one call to the next, so that a link, and a
//! scraper that reads the file, go on working.

use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::process::registry;

/// Its file in the private directory.
const FILE: &str = "dashboard.token";
/// Bytes of it.
const BYTES: usize = 16;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("could not keep the dashboard's token in `{}`", path.display())]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What opens the dashboard.
#[derive(Clone)]
pub struct Token {
    text: String,
    path: PathBuf,
}

/// The value is in no message by accident.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Token {
    /// This user's token; made where there is none.
    ///
    /// # Errors
    /// When its file cannot be read or written, or others could read it.
    pub fn of_user() -> Result<Self, TokenError> {
        let home = registry::home()
            .map_err(|error| TokenError { path: PathBuf::from(FILE), source: io::Error::other(error.to_string()) })?;
        Self::in_folder(&home)
    }

    fn in_folder(folder: &Path) -> Result<Self, TokenError> {
        let path = folder.join(FILE);
        let token = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
            read => read,
        };
        match token {
            Ok(text) => Ok(Self { text, path }),
            Err(source) => Err(TokenError { path, source }),
        }
    }

    /// The token itself.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a token that nobody else can have read or written.
fn read(path: &Path) -> io::Result<String> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        let why = "it is no file that only this user can read: remove it, and a new one is made";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text)?;
    let text = text.trim();
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token: remove it, and a new one is made"));
    }
    Ok(text.to_owned())
}

/// Makes one. Of two calls at the same moment one makes it, and the other reads that.
fn make(path: &Path) -> io::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Whole or not at all, of mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{text}")?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(text),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(error) => Err(error.error),
    }
}

/// Whether two texts are the same; how long it takes tells nothing of where they differ.
pub(super) fn same(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(Sha256::digest);
    let differing = a.iter().zip(b.iter()).fold(0, |seen, (a, b)| seen | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_only_its_user_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::in_folder(dir.path()).unwrap();
        assert_eq!(token.text().len(), 32);
        assert_eq!(Token::in_folder(dir.path()).unwrap().text(), token.text());
        let mode = std::fs::metadata(token.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{token:?}").contains(token.text()));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Token::in_folder(other.path()).unwrap().text(), token.text());
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_a_link_or_no_token_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::in_folder(dir.path()).unwrap();
        std::fs::set_permissions(token.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::in_folder(dir.path()).is_err());
        std::fs::set_permissions(token.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(token.path(), "short\n").unwrap();
        assert!(Token::in_folder(dir.path()).is_err());
        std::fs::remove_file(token.path()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", token.path()).unwrap();
        assert!(Token::in_folder(dir.path()).is_err());
    }

    #[test]
    fn texts_are_compared_whole() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd") && !same("abc", "ab") && !same("", "a"));
    }
}
