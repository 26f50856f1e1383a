//! Logs of several backends and releases, shortened, each with the cause that it shows and the line that shows it.
//!
//! The lines that show failures are those that vLLM printed in public issue threads (the rows of the table name them); the
//! lines around them are filled in from logs of that release. `ready-cpu-0.14.1` is a whole log of our own.

use super::{Finding, diagnose, render_text};
use crate::model::{Cause, Ending};

macro_rules! log {
    ($name:literal) => {
        ($name, include_bytes!(concat!("fixtures/", $name, ".log")).as_slice())
    };
}

struct Expected {
    log: (&'static str, &'static [u8]),
    ending: Option<Ending>,
    cause: Option<Cause>,
    /// The line of the first evidence; 0: none.
    line: u64,
    /// Words of the first advice.
    advice: &'static str,
}

const EXITED: Option<Ending> = Some(Ending::Exited(1));

const fn case(
    log: (&'static str, &'static [u8]),
    ending: Option<Ending>,
    cause: Option<Cause>,
    line: u64,
    advice: &'static str,
) -> Expected {
    Expected { log, ending, cause, line, advice }
}

#[rustfmt::skip]
const LOGS: &[Expected] = &[
    case(log!("ready-cpu-0.14.1"), Some(Ending::Stopped), None, 0, ""),
    case(log!("ready-cpu-0.14.1"), None, None, 0, ""),
    case(log!("ready-cuda-0.11-tp2"), Some(Ending::Exited(0)), None, 0, ""),
    case(log!("oom-xpu-profile"), EXITED, Some(Cause::OutOfDeviceMemory), 13, "not simply a full device"),
    case(log!("level-zero-resources-xpu"), EXITED, Some(Cause::LevelZero), 5, "--gpu-memory-utilization"),
    case(log!("device-lost-xpu"), EXITED, Some(Cause::LevelZero), 7, "setvars.sh"),
    case(log!("oneccl-xpu-0.8"), EXITED, Some(Cause::LevelZero), 6, "/dev/dri"),
    case(log!("oom-cuda-0.6"), EXITED, Some(Cause::OutOfDeviceMemory), 7, "312.31 MiB free"),
    case(log!("oom-rocm-lemonade"), EXITED, Some(Cause::OutOfDeviceMemory), 3, "18.55 GiB free"),
    case(log!("free-memory-cuda-0.9"), EXITED, Some(Cause::OutOfDeviceMemory), 3, "holds 15.9 of 47.4 GiB"),
    case(log!("free-memory-xpu-0.21"), EXITED, Some(Cause::OutOfDeviceMemory), 3, "holds 9.8 of 28.6 GiB"),
    case(log!("kv-cache-cpu-0.11"), EXITED, Some(Cause::KvCacheTooSmall), 6, "--max-model-len 37376"),
    case(log!("kv-cache-xpu-0.2x"), EXITED, Some(Cause::KvCacheTooSmall), 4, "--max-model-len 99648"),
    case(log!("no-cache-blocks-cuda-0.11-py313"), EXITED, Some(Cause::KvCacheTooSmall), 7, "--max-model-len"),
    case(log!("port-0.14"), EXITED, Some(Cause::PortInUse), 8, "--port auto"),
    case(log!("flag-0.19"), Some(Ending::Exited(2)), Some(Cause::InvalidFlag), 4, "--temperature"),
    case(log!("flag-after-old-attempt"), Some(Ending::Exited(2)), Some(Cause::InvalidFlag), 5, "--max-model-len"),
    case(log!("max-model-len-0.10"), EXITED, Some(Cause::InvalidFlag), 6, "--max-model-len 512"),
    case(log!("quantization-mxfp4"), EXITED, Some(Cause::UnsupportedQuantization), 5, "already quantized with mxfp4"),
    case(log!("quantization-rocm-0.8.5"), EXITED, Some(Cause::UnsupportedQuantization), 8, "gptq_bitblas"),
    case(log!("dtype-t4"), EXITED, Some(Cause::UnsupportedDtype), 5, "--dtype half"),
    case(log!("world-size-0.12"), EXITED, Some(Cause::NotEnoughDevices), 3, "--tensor-parallel-size 4"),
    case(log!("numa-cpu-tp2"), EXITED, Some(Cause::NotEnoughDevices), 4, "NUMA node per rank"),
    case(log!("gpu-count-rocm-0.7"), EXITED, Some(Cause::NotEnoughDevices), 3, "--tensor-parallel-size 1"),
    case(log!("gated-0.6"), EXITED, Some(Cause::ModelGated), 9, "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct"),
    case(log!("not-found-0.15"), EXITED, Some(Cause::ModelNotFound), 3, "Qwen/Qwen3.5-27B-AWQ"),
    case(log!("path-missing-0.8"), EXITED, Some(Cause::ModelNotFound), 5, "`/models`"),
    case(log!("path-missing-0.14"), EXITED, Some(Cause::ModelNotFound), 6, "`/models/nope`"),
    case(log!("network-spark-0.16"), EXITED, Some(Cause::Network), 2, "proxy"),
    case(log!("architecture-0.7"), EXITED, Some(Cause::UnsupportedModel), 2, "newer vLLM"),
    case(log!("shm-nccl"), EXITED, Some(Cause::SharedMemory), 2, "--shm-size"),
    case(log!("killed-engine-0.9"), EXITED, Some(Cause::KilledBySystem), 4, "dmesg"),
    case(log!("segfault-0.20"), EXITED, Some(Cause::Crashed), 2, "--enforce-eager"),
    case(log!("died-in-benchmark-xpu"), EXITED, Some(Cause::EngineCoreFailed), 4, "traceback"),
    case(log!("compile-cuda-0.9"), EXITED, Some(Cause::EngineCoreFailed), 4, "C++ compiler"),
    case(log!("unknown-engine-failure"), EXITED, Some(Cause::EngineCoreFailed), 4, "traceback"),
    case(log!("libsycl-missing"), EXITED, Some(Cause::VllmMissing), 6, "setvars.sh"),
    case(log!("slurm-time-limit"), Some(Ending::Signaled(15)), Some(Cause::KilledBySystem), 4, "time limit"),
    case(log!("retry-then-oom"), EXITED, Some(Cause::OutOfDeviceMemory), 4, "1.10 GiB free"),
    case(log!("garbage-bytes"), EXITED, Some(Cause::KvCacheTooSmall), 3, "--max-model-len"),
];

#[test]
fn every_log_shows_its_cause_its_line_and_a_next_step() {
    let mut wrong = Vec::new();
    for expected in LOGS {
        let (name, log) = expected.log;
        let finding = diagnose(log, expected.ending);
        let line = finding.evidence.first().map_or(0, |seen| seen.line);
        let advised = finding.advice.join("\n").contains(expected.advice);
        if finding.cause != expected.cause || line != expected.line || !advised {
            wrong.push(format!(
                "{name}: line {line}, `{}` advised: {advised}\n{}",
                expected.advice,
                render_text(&finding)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_most_exact_advice_comes_first() {
    for name in ["kv-cache-cpu-0.11", "max-model-len-0.10", "world-size-0.12", "flag-0.19"] {
        let expected = LOGS.iter().find(|expected| expected.log.0 == name).expect("it is in the table");
        let finding = diagnose(expected.log.1, expected.ending);
        assert!(finding.advice[0].contains(expected.advice), "{name}: {:#?}", finding.advice);
    }
}

#[test]
fn what_the_log_also_shows_is_named() {
    let also = |name: &str| -> Finding {
        let expected = LOGS.iter().find(|expected| expected.log.0 == name).expect("it is in the table");
        diagnose(expected.log.1, expected.ending)
    };
    assert_eq!(also("retry-then-oom").also, [Cause::Network]);
    assert_eq!(also("oom-xpu-profile").also, []);
    assert_eq!(also("network-spark-0.16").also, [Cause::ModelNotFound]);
}

#[test]
fn a_report_reads_well() {
    let finding = diagnose(include_bytes!("fixtures/kv-cache-cpu-0.11.log"), EXITED);
    assert_eq!(
        render_text(&finding),
        "cause: kv-cache-too-small
  no room for the KV cache: ValueError: To serve at least one request with the models's max seq len (40960), (4.38 GiB KV cache is needed, which is larger than the available KV cache memory (4.00 GiB). Based on the availa…
evidence:
  line 6: (EngineCore_DP0 pid=64528) ERROR 11-18 13:44:09 [core.py:842] ValueError: To serve at least one request with the models's max seq len (40960), (4.38 GiB KV cache is needed, which is larger than the available KV cache memory (4.00 GiB). Based on the available memory, the estimated maximum model length is 37376. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing…
  line 3: (EngineCore_DP0 pid=64528) ERROR 11-18 13:44:09 [core.py:842] EngineCore failed to start.
  line 7: (APIServer pid=64500) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
what to do:
  - use `--max-model-len 37376` or lower: that is what the memory left over holds
  - or make room: one request needs 4.38 GiB per device and 4.00 GiB are left; raise `--gpu-memory-utilization` or `--tensor-parallel-size`, or quantize the weights
  - lower `--max-model-len`
  - raise `--gpu-memory-utilization` or `--tensor-parallel-size`, or quantize the weights
"
    );
}

/// Whole logs of the CPU build, run for real.
#[test]
fn real_logs_name_their_cause_and_what_helps() {
    macro_rules! real {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/real_vllm/logs/", $name, ".log")).as_slice()
        };
    }
    let cases: [(&str, &[u8], Cause, &str, &str); 5] = [
        (
            "fp8",
            real!("fp8_cpu_unsupported_0.32"),
            Cause::UnsupportedQuantization,
            "static_scaled_fp8_quant",
            "no fp8 kernel",
        ),
        (
            "weights",
            real!("weights_truncated_0.32"),
            Cause::ModelIncomplete,
            "incomplete metadata",
            "fetch the model again",
        ),
        ("tokenizer", real!("tokenizer_missing_0.32"), Cause::ModelIncomplete, "reply_label_ids", "tokenizer.json"),
        (
            "worker",
            real!("worker_killed_serving_0.32"),
            Cause::EngineCoreFailed,
            "Worker proc VllmWorker-0",
            "OOM killer",
        ),
        ("kv", real!("kv_cache_too_small"), Cause::KvCacheTooSmall, "KV cache is needed", "VLLM_CPU_KVCACHE_SPACE=2"),
    ];
    for (name, log, cause, evidence, advice) in cases {
        let found = diagnose(log, EXITED);
        assert_eq!(found.cause, Some(cause), "{name}: {found:?}");
        assert!(found.evidence[0].text.contains(evidence), "{name}: {found:?}");
        let all = found.advice.join("\n");
        assert!(all.contains(advice), "{name}: {all}");
        assert!(name != "kv" || !all.contains("gpu-memory"), "{name}: {all}");
    }
    assert_eq!(diagnose(real!("ok_eager_0.32"), Some(Ending::Stopped)).cause, None);
}

#[test]
fn a_worker_that_a_signal_ended_is_told_with_the_signal() {
    let log = |code: &str| {
        format!(
            "(EngineCore pid=7) ERROR 11-28 17:21:54 [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly (exit code: {code}), shutting down executor.\n(EngineCore pid=7) ERROR 11-28 17:21:54 [core.py:1512] RuntimeError: cancelled\n"
        )
    };
    for (code, cause, signal) in
        [("-9", Cause::KilledBySystem, "SIGKILL"), ("-4", Cause::Crashed, "SIGILL"), ("-11", Cause::Crashed, "SIGSEGV")]
    {
        let found = diagnose(log(code).as_bytes(), EXITED);
        assert_eq!(found.cause, Some(cause), "{found:?}");
        assert!(found.summary.contains(&format!("exit code: {code}, {signal}")), "{}", found.summary);
        assert!(!found.summary.contains("cancelled"), "{}", found.summary);
    }
}
