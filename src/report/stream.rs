//! Whole files or none, for what is too large to be built in memory first.

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::record::{Error, layout};

/// As [`crate::record::atomic::write`], with a function that writes the content.
///
/// # Errors
/// When a step fails; the temporary file is removed.
pub(super) fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let attempt = || {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(layout::TEMPORARY_PREFIX).tempfile_in(dir)?;
        let mut out = BufWriter::with_capacity(1 << 16, file.as_file_mut());
        content(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(dir)?.sync_all()
    };
    attempt().map_err(Error::write(path))
}
