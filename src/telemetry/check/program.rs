//! Which program this is: vLLM ships one that is called `vllm-bench`, too.

use std::path::PathBuf;

use serde_json::json;

use super::CheckLine;

/// What is known of this program.
#[derive(Debug, Clone, Default)]
pub struct ProgramFacts {
    /// Its file.
    pub own: PathBuf,
    /// Its version.
    pub version: &'static str,
    /// What `vllm-bench` starts, by PATH; links followed.
    pub on_path: Option<PathBuf>,
    /// Whether it can load no library of a vendor: it was linked statically.
    pub is_static: bool,
}

/// Which `vllm-bench` runs, and what it can load.
pub fn program(facts: &ProgramFacts) -> CheckLine {
    const NAME: &str = "program";
    let ProgramFacts { own, version, on_path, is_static } = facts;
    let data = json!({ "path": own, "version": version, "on_path": on_path, "static": is_static });
    let this = format!("vllm-bench {version} at {}", own.display());
    if let Some(other) = on_path.as_ref().filter(|other| *other != own) {
        let message = format!("{this}; `vllm-bench` alone starts {}", other.display());
        let next = format!(
            "vLLM ships a program of this name: where a hint says `vllm-bench`, write `{}`",
            crate::words::quoted(&own.to_string_lossy())
        );
        return CheckLine::warning(NAME, message, next, data);
    }
    if *is_static {
        let message = format!("{this}, linked statically: NVML is not available");
        let next = "what NVIDIA devices report while they work is recorded by the other build (glibc 2.28 or newer), which loads NVML";
        return CheckLine::warning(NAME, message, next, data);
    }
    CheckLine::ok(NAME, this, data)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn another_program_of_the_name_is_told() {
        let own = PathBuf::from("/venv/bin/vllm-bench-sweep");
        let facts = ProgramFacts { own: own.clone(), version: "0.1.0", ..ProgramFacts::default() };
        assert_eq!(program(&facts).level, Level::Ok);
        assert_eq!(program(&ProgramFacts { on_path: Some(own), ..facts.clone() }).level, Level::Ok);
        let other = program(&ProgramFacts { on_path: Some("/venv/bin/vllm-bench".into()), ..facts.clone() });
        assert!(other.message.ends_with("`vllm-bench` alone starts /venv/bin/vllm-bench"), "{}", other.message);
        assert!(other.next_step.unwrap().contains("write `/venv/bin/vllm-bench-sweep`"));
        let fixed = program(&ProgramFacts { is_static: true, ..facts });
        assert!(fixed.message.contains("NVML is not available"), "{}", fixed.message);
    }
}
