//! stub until the module lands
/// A vLLM process of this machine.
#[derive(Debug, Clone)]
pub struct VllmProcess {
    /// pid
    pub pid: i32,
    /// uid
    pub uid: u32,
    /// argv
    pub argv: Vec<String>,
    /// title
    pub title: String,
    /// group
    pub group_token: Option<String>,
}
/// stub
pub fn vllm_processes() -> Vec<VllmProcess> {
    Vec::new()
}
