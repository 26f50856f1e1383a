//! Every row is held to the real lines that it was made from, and every look-alike to meaning nothing.

use super::*;
use crate::diagnose::diagnose;
use crate::diagnose::line::parse;
use crate::model::{Ending, StartPhase};

/// How an ending must be for a line of this rank to count.
fn ending_for(row: &Row) -> Option<Ending> {
    (row.rank == Rank::Hint).then_some(Ending::TimedOut { phase: StartPhase::Profiling, seconds: 300 })
}

fn found(row: &Row, log: &str) -> Vec<Cause> {
    let finding = diagnose(log.as_bytes(), ending_for(row));
    finding.cause.into_iter().chain(finding.also).collect()
}

fn first(row: &Row, log: &str) -> Option<Cause> {
    let all = found(row, log);
    match row.rank {
        // A hint does not name the cause of a timeout, it accompanies it.
        Rank::Hint => all.contains(&row.cause).then_some(row.cause),
        Rank::Root | Rank::Likely | Rank::Device | Rank::Process | Rank::Consequence => all.first().copied(),
    }
}

#[test]
fn every_row_is_whole() {
    for row in rows() {
        assert!(!row.examples.is_empty() && !row.source.is_empty(), "{} needs examples and their source", row.pattern);
        assert!(row.cause.is_server(), "{}", row.pattern);
        assert!(!(row.fatal && row.any_level), "{}: a fatal line is an error", row.pattern);
        let pattern = crate::diagnose::compile(row.pattern);
        for example in row.examples {
            assert!(example.contains(row.needle), "`{}` is not in `{example}`", row.needle);
            assert!(pattern.is_match(example.as_bytes()), "`{}` does not match `{example}`", row.pattern);
            assert!(!example.contains('\n'));
        }
    }
}

#[test]
fn every_example_alone_names_its_rows_cause() {
    for row in rows() {
        for example in row.examples {
            assert_eq!(first(row, example), Some(row.cause), "`{example}` alone");
            assert_eq!(first(row, &format!("{example}\r\n")), Some(row.cause), "`{example}` with CRLF");
        }
    }
}

#[test]
fn every_example_in_an_engines_log_before_the_usual_end_names_its_rows_cause() {
    const END: &str = "\u{1b}[0;36m(APIServer pid=3070)\u{1b}[0;0m RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n";
    for row in rows() {
        // Shells, argparse and schedulers print without vLLM's prefixes: those rows are anchored.
        let prefix = if row.pattern.starts_with('^') && !row.pattern.starts_with("^ ") {
            ""
        } else {
            "\u{1b}[0;36m(EngineCore_DP0 pid=1)\u{1b}[0;0m ERROR 11-22 06:13:38 [core.py:97] "
        };
        for example in row.examples {
            // uvicorn's level stands inside the example.
            let prefix =
                if example.starts_with("ERROR:") { "\u{1b}[0;36m(APIServer pid=3070)\u{1b}[0;0m " } else { prefix };
            let log = format!("INFO 11-22 06:13:30 [importing.py:44] Triton is not there\n{prefix}{example}\n{END}");
            if row.rank == Rank::Hint {
                assert!(found(row, &log).contains(&row.cause), "{log}");
            } else {
                assert_eq!(first(row, &log), Some(row.cause), "{log}");
            }
        }
    }
}

#[test]
fn every_fatal_row_is_fatal_to_a_starting_server() {
    for row in rows().iter().filter(|row| row.fatal) {
        for example in row.examples {
            let mut tracker = crate::diagnose::PhaseTracker::new();
            tracker.feed(format!("{example}\n").as_bytes());
            assert!(tracker.fatal().is_some(), "`{example}`");
        }
    }
}

#[test]
fn root_causes_that_matter_most_are_all_there() {
    for cause in Cause::ALL.into_iter().filter(|cause| cause.is_server() && *cause != Cause::StartupTimeout) {
        assert!(rows().iter().any(|row| row.cause == cause), "no row for {cause}");
    }
}

/// Lines of healthy servers that use the words of failure.
const BENIGN: &[&str] = &[
    "INFO 11-22 06:13:30 [importing.py:68] Triton not installed or not compatible; certain GPU-related functions will not be available.",
    "(APIServer pid=3070) INFO 11-22 06:13:32 [utils.py:263] non-default args: {'model_tag': 'tiny', 'quantization': 'fp8', 'dtype': 'bfloat16', 'port': 8000}",
    "(APIServer pid=3070) WARNING 11-22 06:13:32 [system_utils.py:262] Found ulimit of 20000 and failed to automatically increase with error current limit exceeds maximum limit. This can cause fd limit errors like `OSError: [Errno 24] Too many open files`. Consider increasing with ulimit -n",
    "WARNING 09-04 10:11:12 [cuda.py:100] PYTORCH_CUDA_ALLOC_CONF is set; CUDA out of memory. Tried to allocate errors may be hidden",
    "INFO 04-01 08:19:23 model_runner.py:795] CUDA graphs can take additional 1~3 GiB memory per GPU. If you are running out of memory, consider decreasing `gpu_memory_utilization` or enforcing eager mode.",
    "(EngineCore_DP0 pid=77352) INFO 10-22 09:43:49 [shm_broadcast.py:466] No available shared memory broadcast block found in 60 seconds. This typically happens when some processes are hanging or doing some time-consuming work (e.g. compilation).",
    "/usr/local/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects to clean up at shutdown",
    "  warnings.warn('resource_tracker: There appear to be %d '",
    "/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects to clean up at shutdown",
    "INFO 12-01 10:00:00 [utils.py:700] Port 29500 is already in use, trying port 29501",
    "[W socket.cpp:464] [c10d] The server socket cannot be initialized on [::]:29500 (errno: 97 - Address family not supported by protocol).",
    "WARNING 11-07 06:28:48 _logger.py:68] Failed to import from vllm._C with ModuleNotFoundError(\"No module named 'vllm._C'\")",
    "WARNING 08-27 13:59:59 _custom_ops.py:15] Failed to import from vllm._C with ImportError('libcudart.so.12: cannot open shared object file: No such file or directory')",
    "[WARNING] Failed to create Level Zero tracer: 2013265921",
    "2026:07:17-12:29:00:(  532) |CCL_WARN| topology recognition shows PCIe connection between devices. If this is not correct, you can disable topology recognition, with CCL_TOPO_FABRIC_VERTEX_CONNECTION_CHECK=0.",
    "2025:03:13-10:36:27:(  636) |CCL_WARN| pidfd is not supported, fallbacks to drmfd exchange mode",
    "DEBUG 04-11 13:14:38 [__init__.py:129] HPU platform is not available because habana_frameworks is not found.",
    "DEBUG 03-04 01:26:26 [__init__.py:73] Exception happens when checking CUDA platform: NVML Shared Library Not Found",
    "export http_proxy=http://proxy.example:911 https_proxy=http://proxy.example:911 no_proxy=localhost,127.0.0.1,0.0.0.0",
    "WARNING 05-10 10:22:58 [config.py:3074] fp8 quantization is not fully optimized yet. The speed can be slower than non-quantized models.",
    "WARNING 05-22 17:49:21 [config.py:3074] Your Tesla P100-PCIE-16GB device (with compute capability 6.0) doesn't support torch.bfloat16. Falling back to torch.float16 for compatibility.",
    "WARNING 04-10 22:41:05 [argparse_utils.py:191] With `vllm serve`, you should provide the model as a positional argument or in a config file instead of via the `--model` option. The `--model` option will be removed in v0.13.",
    "If this is a private repository, make sure to pass a token having permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`",
    "If you are trying to access a private or gated repo, make sure you are authenticated.",
    "NCCL INFO cuMem host allocations do not appear to be working; falling back to a /dev/shm/ based implementation.",
    "node1:149:149 [3] NCCL INFO comm 0x1c8ac350 rank 2 nranks 4 - Init COMPLETE",
    "    raise ValueError(\"No available memory for the cache blocks. \"",
    "                     \"Try increasing `gpu_memory_utilization` when \"",
    "(APIServer pid=223598)     raise RuntimeError(\"Engine core initialization failed. \"",
    "[Gloo] Rank 0 is connected to 0 peer ranks. Expected number of connected peer ranks is : 0",
    "(APIServer pid=1) INFO:     127.0.0.1:44136 - \"GET /health HTTP/1.1\" 200 OK",
    "Killed time: 3 s",
    "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.02s/it]",
    "(EngineCore_DP0 pid=3093) INFO 11-22 06:13:39 [kv_cache_utils.py:1305] GPU KV cache size: 2,097,152 tokens",
];

#[test]
fn look_alikes_mean_nothing() {
    for line in BENIGN {
        let finding = diagnose(line.as_bytes(), None);
        assert_eq!(finding.cause, None, "`{line}` gave {finding:#?}");
        let mut tracker = crate::diagnose::PhaseTracker::new();
        tracker.feed(format!("{line}\n").as_bytes());
        assert_eq!(tracker.fatal(), None, "`{line}`");
    }
    let all = BENIGN.join("\n");
    assert_eq!(diagnose(all.as_bytes(), None).cause, None);
    assert_eq!(diagnose(all.as_bytes(), Some(Ending::Stopped)).cause, None);
}

/// Errors of requests in a server that runs on.
const REQUEST_ERRORS: &[&str] = &[
    "(APIServer pid=1) ERROR 10-20 03:20:50 [serving_chat.py:236] Error in preprocessing prompt inputs",
    "(APIServer pid=1) ERROR 10-20 03:20:50 [serving_chat.py:236] ValueError: This model's maximum context length is 2048 tokens. However, you requested 4096 tokens.",
    "(APIServer pid=1) ERROR 10-20 03:20:50 [serving_engine.py:100] Error with model error=ErrorInfo(message='The model `foo` does not exist.', type='NotFoundError', param=None, code=404)",
    "(APIServer pid=1) ValueError: The decoder prompt (length 44) is longer than the maximum model length of 16.",
    "(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for ChatCompletionRequest",
    "(APIServer pid=1)   Value error, max_tokens must be at least 1 [type=value_error, input_value={}]",
    "(APIServer pid=1) urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='example.org', port=443): Max retries exceeded with url: /image.png",
];

#[test]
fn errors_of_requests_are_not_failures_of_a_running_server() {
    let mut log = String::from("(APIServer pid=1) INFO:     Application startup complete.\n");
    for line in REQUEST_ERRORS {
        log.push_str(line);
        log.push('\n');
    }
    for ending in [None, Some(Ending::Stopped), Some(Ending::Exited(0))] {
        assert_eq!(diagnose(log.as_bytes(), ending).cause, None, "{ending:?}");
    }
}

#[test]
fn one_line_belongs_to_one_row() {
    let line = parse(b"RuntimeError: level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)");
    let row = &TABLE.rows()[TABLE.find(line).unwrap()];
    assert_eq!(row.cause, Cause::OutOfDeviceMemory, "memory before the stack that reports it");
}
