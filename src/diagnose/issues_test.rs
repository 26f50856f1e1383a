//! Logs rebuilt from public issue threads of 2024 to 2026 (structure and the lines that programs print; names and paths of people
//! replaced): XPU, CUDA, ROCm, CPU, Gaudi, TPU, Ascend. What is expected of each was decided before the program saw it.

use super::{diagnose, render_text};
use crate::model::Cause;

/// Log, where it was met, the causes that are right, a part of the advice that helps.
type Case = (&'static str, &'static [u8], &'static str, &'static [Cause], &'static str);

macro_rules! issue {
    ($name:literal, $source:literal, [$($cause:expr),+], $advice:literal) => {
        ($name, include_bytes!(concat!("fixtures/issues/", $name, ".log")).as_slice(), $source, &[$($cause),+], $advice)
    };
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    issue!("xpu-fp64", "vllm-xpu-kernels#92", [Cause::Crashed, Cause::EngineCoreFailed], "attention-backend"),
    issue!("lora-rank", "gpustack#5438", [Cause::InvalidFlag], "max-lora-rank=64"),
    issue!("tpu-module", "tpu-inference#771", [Cause::VllmMissing], "qwix"),
    issue!("tpu-types", "tpu-inference#3350", [Cause::EngineCoreFailed, Cause::Crashed], "raised in"),
    issue!("tpu-hbm-fragmented", "marin#2387", [Cause::OutOfDeviceMemory], "chips"),
    issue!("gaudi1-lazy", "HabanaAI/vllm-fork#776", [Cause::EngineCoreFailed, Cause::Crashed], "Gaudi"),
    issue!("gaudi-none-layers", "opea-project/GenAIExamples#2175", [Cause::EngineCoreFailed, Cause::Crashed, Cause::UnsupportedModel], "raised in"),
    issue!("gaudi-cache-not-found", "HabanaAI/vllm-fork#1474", [Cause::ModelNotFound, Cause::DiskFull, Cause::Crashed, Cause::EngineCoreFailed], "HF_H"),
    issue!("error-803", "vllm#33447", [Cause::VllmMissing, Cause::NotEnoughDevices], "driver"),
    issue!("ptxas-sm121a", "gpustack#4372", [Cause::VllmMissing, Cause::Crashed, Cause::EngineCoreFailed], "TRITON_PTXAS_PATH"),
    issue!("flashinfer-archs", "vllm#31740", [Cause::Crashed, Cause::EngineCoreFailed, Cause::VllmMissing], "device"),
    issue!("ld-lcuda", "vllm#12505", [Cause::VllmMissing, Cause::EngineCoreFailed], "library"),
    issue!("import-transformers", "vllm#40331", [Cause::VllmMissing], "transformers"),
    issue!("weights-bias", "vllm#40358", [Cause::UnsupportedModel, Cause::UnsupportedQuantization, Cause::ModelIncomplete], "newer vLLM"),
    issue!("weights-g-idx", "vllm#25029", [Cause::UnsupportedQuantization, Cause::UnsupportedModel], "newer vLLM"),
    issue!("openshift-home", "inference-benchmarker#30", [Cause::DiskFull, Cause::Crashed, Cause::ModelNotFound, Cause::EngineCoreFailed], "HF_HOME"),
    issue!("hip-fault", "vllm#28460", [Cause::Crashed], "CUDA_LAUNCH_BLOCKING"),
    issue!("waits-local-engine", "HAMi-core#261", [Cause::Hung, Cause::StartupTimeout], "NCCL_DEBUG"),
    issue!("docker-json-file", "own: Docker's json-file around a known line", [Cause::NotEnoughDevices], "no device is visible"),
    issue!("cpu-affinity", "vllm#10556", [Cause::InvalidFlag, Cause::NotEnoughDevices, Cause::Crashed, Cause::EngineCoreFailed], "OMP_THREADS_BIND"),
    issue!("rocm-mla-gluon", "vllm#51964", [Cause::Crashed, Cause::EngineCoreFailed, Cause::VllmMissing], "attention-backend"),
    issue!("ascend-w8a8-key", "vllm-ascend#10610", [Cause::UnsupportedModel, Cause::UnsupportedQuantization, Cause::ModelIncomplete], "newer vLLM"),
    issue!("rayserve-attr", "vllm#26080", [Cause::UnsupportedModel, Cause::EngineCoreFailed, Cause::Crashed, Cause::VllmMissing], "newer vLLM"),
    issue!("gb10-linear-attn-key", "vllm#36640", [Cause::EngineCoreFailed, Cause::UnsupportedModel, Cause::Crashed], "newer vLLM"),
    issue!("assert-shape", "vllm#24869", [Cause::UnsupportedModel, Cause::ModelIncomplete, Cause::EngineCoreFailed, Cause::UnsupportedQuantization], "newer vLLM"),
    issue!("ascend-acl", "vllm-ascend#4744", [Cause::EngineCoreFailed, Cause::Crashed, Cause::VllmMissing], "CANN"),
    issue!("omni-import", "vllm-omni#424", [Cause::VllmMissing], "vllm.attention"),
    issue!("ascend-aclnn", "vllm-ascend#13522", [Cause::EngineCoreFailed, Cause::Crashed], "CANN"),
    issue!("xpu-ur-backend", "llm-scaler#304", [Cause::LevelZero, Cause::OutOfDeviceMemory], "memory"),
    issue!("ray-placement", "vllm#13388", [Cause::NotEnoughDevices, Cause::Hung], "ray status"),
    issue!("nccl-unhandled-cuda", "vllm#20226", [Cause::EngineCoreFailed, Cause::Crashed], "NCCL_DEBUG"),
    issue!("car-graph-capture", "vllm#39288", [Cause::Crashed], "all-reduce"),
    issue!("trtllm-histogram", "vllm#39620", [Cause::EngineCoreFailed, Cause::Crashed], "newer vLLM"),
    issue!("cublas-execution", "vllm#6166", [Cause::Crashed, Cause::EngineCoreFailed], "CUDA_LAUNCH_BLOCKING"),
    issue!("grafana-mla-lse", "vllm#25102, the table of flashinfer#2032", [Cause::EngineCoreFailed, Cause::Crashed], "newer vLLM"),
    issue!("olmocr-kv", "the logger of allenai/olmocr#260 around a known line", [Cause::KvCacheTooSmall], "max-model-len"),
];

fn is_right(log: &[u8], causes: &[Cause], advice: &str) -> Result<(), String> {
    let finding = diagnose(log, None);
    let advised = finding.advice.join("\n").to_lowercase().contains(&advice.to_lowercase());
    if finding.cause.is_some_and(|cause| causes.contains(&cause)) && advised {
        return Ok(());
    }
    Err(format!("advice `{advice}`: {advised}\n{}", render_text(&finding)))
}

#[track_caller]
fn all_are_right(change: impl Fn(&str) -> Vec<u8>) {
    let mut wrong = Vec::new();
    for (name, log, source, causes, advice) in CASES {
        let log = String::from_utf8_lossy(log);
        if let Err(said) = is_right(&change(&log), causes, advice) {
            wrong.push(format!("{name} ({source}): {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

#[test]
fn every_log_shows_its_cause_and_what_helps() {
    all_are_right(|log| log.as_bytes().to_vec());
}

#[test]
fn what_carried_a_log_changes_nothing() {
    for carrier in [
        "2026-05-16T13:12:16.645427617Z stderr F ",
        "[pod/vllm-0/vllm] ",
        "Aug 19 18:34:27 host1 vllm[8727]: ",
        "2026-05-30 18:28:27.800 | ",
        "vllm-1  | ",
        "abcdefgh12345[error]",
        "(vllm-test, pid=2150) ",
        "0: ",
    ] {
        all_are_right(|log| {
            // Ray's prefix stands within what carries the log, never around it.
            let inner = carrier.starts_with('(') && log.starts_with("  |");
            let carrier = if inner { "" } else { carrier };
            log.lines().map(|line| format!("{carrier}{line}\n")).collect::<String>().into_bytes()
        });
    }
}

#[test]
fn records_frames_and_wide_characters_change_nothing() {
    all_are_right(|log| {
        let record =
            |line: &str| serde_json::json!({ "log": format!("{line}\n"), "stream": "stderr" }).to_string() + "\n";
        log.lines().map(record).collect::<String>().into_bytes()
    });
    all_are_right(|log| log.lines().map(|line| format!("│ {line:<120} │\n")).collect::<String>().into_bytes());
    all_are_right(|log| log.lines().map(|line| format!("{line}\\n\n")).collect::<String>().into_bytes());
    all_are_right(|log| log.encode_utf16().flat_map(u16::to_le_bytes).collect());
}

#[test]
fn a_console_that_shows_the_newest_line_first_changes_nothing() {
    let reversed = |log: &str| log.lines().rev().collect::<Vec<_>>().join("\n").into_bytes();
    let mut wrong = Vec::new();
    // A log that waits has no direction to tell.
    for (name, log, _, causes, advice) in CASES.iter().filter(|case| !case.3.contains(&Cause::Hung)) {
        // Which frame belongs to which exception is told only by a log that runs forward.
        let advice = if ["raised in", "newer vLLM"].contains(advice) { "" } else { advice };
        if let Err(said) = is_right(&reversed(&String::from_utf8_lossy(log)), causes, advice) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A healthy server's log shows nothing, whatever carries it.
#[test]
fn a_healthy_log_stays_healthy_in_every_carrier() {
    let log = include_str!("fixtures/ready-cpu-0.14.1.log");
    for carrier in
        ["2026-05-16T13:12:16.645427617Z stderr F ", "[pod/a/b] ", "Aug 19 18:34:27 h vllm[87]: ", "a | ", "0: "]
    {
        let carried: String = log.lines().map(|line| format!("{carrier}{line}\n")).collect();
        assert_eq!(diagnose(carried.as_bytes(), None).cause, None, "{carrier}");
    }
    let turned: Vec<&str> = log.lines().rev().collect();
    assert_eq!(diagnose(turned.join("\n").as_bytes(), None).cause, None);
}
