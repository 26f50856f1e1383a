//! Stub, replaced by the helper's room.
use std::path::Path;
/// stub
pub struct Known;
/// stub
pub struct Help {
    /// s
    pub serve: Known,
    /// s
    pub bench: Known,
}
/// stub
pub struct Asked<'a> {
    /// s
    pub flag: &'a str,
    /// s
    pub values: &'a [String],
}
/// stub
pub struct Problem;
impl Problem {
    /// s
    pub fn is_warning(&self) -> bool {
        true
    }
}
impl std::fmt::Display for Problem {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
impl Known {
    /// s
    pub fn check(&self, _: &Asked<'_>) -> Option<Problem> {
        None
    }
}
/// stub
pub fn installed_version(_: &Path) -> Option<String> {
    None
}
/// stub
pub fn ask(_: &Path, _: &[String], _: &[(String, String)], _: Option<&str>, _: &Path) -> Result<Help, std::io::Error> {
    Ok(Help { serve: Known, bench: Known })
}
