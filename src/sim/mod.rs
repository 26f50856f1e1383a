//! stub until the module lands
#[derive(Debug, Clone, PartialEq)]
pub struct SimSettings;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct SettingError;
impl SimSettings {
    pub fn from_lookup(_l: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        Ok(Self)
    }
    pub fn to_env(&self) -> Vec<(String, String)> {
        vec![]
    }
}
pub fn main(_args: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
