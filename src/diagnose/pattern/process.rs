//! Rows on processes: shared memory, killed, crashed, engine failures, hangs.

use super::{Rank, Row};
use crate::model::Cause::{Crashed, EngineCoreFailed, Hung, KilledBySystem, SharedMemory};

const COMPILE: &[&str] = &[
    "compiling the model failed: install a C++ compiler (`g++`) in the container, or use `--enforce-eager`",
    "a stale compile cache shows the same: remove `~/.cache/vllm/torch_compile_cache`",
];

const ILLEGAL_INSTRUCTION: &[&str] = &[
    "this build uses instructions that the processor does not have (the CPU build wants AVX-512 or AVX2): use a build for this processor",
];

const WORKER: &[&str] = &[
    "read the traceback of the worker above; where it said nothing, something ended it: look into `dmesg` for the OOM killer",
];

pub(super) const ROWS: &[Row] = &[
    // --- shared memory ---------------------------------------------------------------------------------------------------
    Row::new(SharedMemory, "shared memory segment", r"Error while (?:creating|attaching to) shared memory segment").seen(
        "NCCL, CUDA and ROCm with tp > 1 (vllm#14537, #18831; MiniMax-AI/MiniMax-01#42)",
        &["NCCL WARN Error while creating shared memory segment /dev/shm/nccl-EoOvZr (size 7340384)", "Error while creating shared memory segment /dev/shm/nccl-EoOvZr (size 7340384)"],
    ),
    Row::new(SharedMemory, "failed to extend /dev/shm", r"failed to extend /dev/shm/\S+ to \d+ bytes").seen(
        "NCCL 2.2x (pytorch/ci-infra#490)",
        &["misc/shmutils.cc:88 NCCL WARN Error: failed to extend /dev/shm/nccl-WU88OE to 9637892 bytes, error: No space left on device (28)"],
    ),
    Row::new(SharedMemory, "posix_fallocate", r"posix_fallocate failed ?: No space left").seen("NCCL (NVIDIA/nccl#290, #525)", &["gpu2-ru7:2143:2561 [1] include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device"]),
    Row::new(SharedMemory, "unable to open shared memory object", r"unable to open shared memory object <").seen("torch", &["RuntimeError: unable to open shared memory object </torch_52868_1950128645> in read-write mode"]),
    Row::new(SharedMemory, "Bus error", r"(?:Fatal Python error: |signal: |^|\d )Bus error").rank(Rank::Likely).seen(
        "any backend, a container with 64 MB of shared memory",
        &["Fatal Python error: Bus error", "ERROR: DataLoader worker (pid 431) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory."],
    ),
    Row::new(SharedMemory, "No such file or directory: '/psm_", r"FileNotFoundError: \[Errno 2\] No such file or directory: '/psm_").rank(Rank::Process).seen(
        "V1 engine with tp > 1 when one rank could not map the message queue",
        &["FileNotFoundError: [Errno 2] No such file or directory: '/psm_1aa432c1'"],
    ),
    // --- killed ----------------------------------------------------------------------------------------------------------
    Row::new(KilledBySystem, "TIME LIMIT", r"DUE TO TIME LIMIT")
        .advice(&["the scheduler's time limit ended the job: ask for more time, or split the sweep (`--resume` goes on)"])
        .seen("Slurm", &["slurmstepd: error: *** JOB 494583 ON node17 CANCELLED AT 2024-04-20T09:09:37 DUE TO TIME LIMIT ***"]),
    Row::new(KilledBySystem, "kill event", r"oom[-_]kill event")
        .advice(&["the job ran out of main memory: ask the scheduler for more (`--mem`)"])
        .seen("Slurm", &["slurmstepd: error: Detected 1 oom_kill event in StepId=11300781.0. Some of the step tasks have been OOM Killed."]),
    Row::new(KilledBySystem, "Out of memory: Killed process", r"Out of memory: Killed process \d+").seen("the kernel", &["Out of memory: Killed process 12345 (VLLM::EngineCor) total-vm:123456kB"]),
    Row::new(KilledBySystem, "killed due to the node running low on memory", r"killed due to the node running low on memory").seen("Ray (vllm#1765)", &["Task was killed due to the node running low on memory."]),
    Row::new(KilledBySystem, "worker died (-9)", r"worker died \(-9\)").rank(Rank::Device).seen("CPU build 0.8 (vllm#15800)", &["ChildProcessError: worker died (-9)"]),
    Row::new(KilledBySystem, "died, exit code: ", r"Worker \w+ pid \d+ died, exit code: -9\b").rank(Rank::Device).seen(
        "vLLM 0.5 to 0.8, V0 engine (vllm#15295 shows -15)",
        &["Worker VllmWorkerProcess pid 1867860 died, exit code: -9"],
    ),
    Row::new(KilledBySystem, "died unexpectedly (exit code: ", r"Worker proc \S+ died unexpectedly \(exit code: -9\)").rank(Rank::Device).seen(
        "V1 engine, 0.20 to current, every backend with worker processes",
        &["Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor."],
    ),
    Row::new(Crashed, "died unexpectedly (exit code: ", r"Worker proc \S+ died unexpectedly \(exit code: -4\)")
        .rank(Rank::Device)
        .advice(ILLEGAL_INSTRUCTION)
        .seen("vLLM 0.32, CPU build", &["Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down executor."]),
    Row::new(Crashed, "died unexpectedly (exit code: ", r"Worker proc \S+ died unexpectedly \(exit code: -(?:6|7|8|11)\)").rank(Rank::Device).seen(
        "V1 engine, 0.20 to current",
        &["Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor."],
    ),
    Row::new(EngineCoreFailed, "died unexpectedly", r"Worker proc \S+ died unexpectedly").rank(Rank::Process).advice(WORKER).seen(
        "V1 engine, 0.8 to current (older ones give no exit code); 0.32 says `None` where the worker was killed and not yet waited for",
        &[
            "Worker proc VllmWorker-0 died unexpectedly, shutting down executor.",
            "Worker proc VllmWorker-0 died unexpectedly (exit code: None), shutting down executor.",
        ],
    ),
    Row::new(KilledBySystem, "Failed core proc(s)", r"Failed core proc\(s\): \{[^}]*: -9\b").rank(Rank::Process).fatal().seen(
        "V1 engine, 0.9 to current; no root cause above means that the kernel ended it",
        &["RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_0': -9}"],
    ),
    Row::new(KilledBySystem, "Killed", r"^(?:\S+: line \d+: +\d+ Killed(?: |$)|Killed$)").rank(Rank::Process).seen("a shell (vllm#17980)", &["Killed", "/tmp/run.sh: line 12: 12345 Killed                  vllm serve"]),
    // --- crashed ---------------------------------------------------------------------------------------------------------
    Row::new(Crashed, "Segfault encountered", r"!!!!!!! Segfault encountered !!!!!!!").rank(Rank::Device).seen("torch's handler (vllm#27868)", &["!!!!!!! Segfault encountered !!!!!!!"]),
    Row::new(Crashed, "Fatal Python error: ", r"Fatal Python error: (?:Segmentation fault|Aborted|Floating[- ]point|Illegal instruction)").rank(Rank::Device).seen(
        "any backend (vllm#3053, #17242; ipex-llm#13158)",
        &["Fatal Python error: Segmentation fault", "Fatal Python error: Aborted"],
    ),
    Row::new(Crashed, "(): invalid pointer", r"(?:realloc|free|munmap_chunk)\(\): invalid pointer").rank(Rank::Device).seen("glibc (datalab-to/surya#543)", &["realloc(): invalid pointer"]),
    Row::new(Crashed, "double free or corruption", r"double free or corruption").rank(Rank::Device).seen("glibc", &["double free or corruption (!prev)"]),
    Row::new(Crashed, "Illegal instruction", r"Illegal instruction")
        .rank(Rank::Device)
        .advice(ILLEGAL_INSTRUCTION)
        .seen("CPU build on older processors", &["Illegal instruction (core dumped)"]),
    Row::new(Crashed, "(core dumped)", r"(?:Segmentation fault|Aborted|Floating point exception) +\(core dumped\)").rank(Rank::Process).seen("a shell (vllm#6011)", &["Segmentation fault (core dumped)", "Aborted (core dumped)"]),
    Row::new(Crashed, "Failed core proc(s)", r"Failed core proc\(s\): \{[^}]*: -(?:4|6|7|8|11)\b").rank(Rank::Process).fatal().seen(
        "V1 engine, 0.9 to current (datalab-to/surya#543)",
        &["RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -11}"],
    ),
    // --- compile ---------------------------------------------------------------------------------------------------------
    Row::new(EngineCoreFailed, "torch._inductor.exc.", r"torch\._inductor\.exc\.\w+: ").rank(Rank::Device).advice(COMPILE).seen(
        "torch.compile, all backends, 0.8 to current (vllm#19656)",
        &["torch._inductor.exc.InductorError: CalledProcessError: Command '['/usr/bin/gcc', '/tmp/tmp23j1qrsv/main.c', '-O3']' returned non-zero exit status 1.", "torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')"],
    ),
    Row::new(EngineCoreFailed, "BackendCompilerFailed", r"BackendCompilerFailed: backend=").rank(Rank::Device).advice(COMPILE).seen(
        "torch.compile in torch 2.1 to 2.6",
        &["torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:"],
    ),
    Row::new(EngineCoreFailed, "Failed to find C compiler", r"Failed to find C compiler").rank(Rank::Device).advice(COMPILE).seen(
        "Triton, all GPU backends",
        &["RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl."],
    ),
    // --- hangs -----------------------------------------------------------------------------------------------------------
    Row::new(Hung, "Watchdog caught collective operation timeout", r"Watchdog caught collective operation timeout").rank(Rank::Process).seen(
        "torch's NCCL and RCCL process groups",
        &["[E1218 20:27:21.426415540 ProcessGroupNCCL.cpp:629] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST, NumelIn=131072000, NumelOut=131072000, Timeout(ms)=600000) ran for 600081 milliseconds before timing out."],
    ),
    Row::new(Hung, "RPC call to ", r"TimeoutError: RPC call to \w+ timed out").rank(Rank::Process).seen(
        "V1 engine with tp > 1, 0.9 to current (vllm#37250)",
        &["TimeoutError: RPC call to sample_tokens timed out.", "TimeoutError: RPC call to execute_model timed out."],
    ),
    Row::new(Hung, "No available shared memory broadcast block found", r"No available shared memory broadcast block found in \d+ second")
        .rank(Rank::Hint)
        .any_level()
        .advice(&["a rank does not take part: it compiles for long, or it waits for a device or another rank; `VLLM_LOGGING_LEVEL=DEBUG` (`--env`) shows which"])
        .seen(
            "V1 engine with tp > 1, 0.8 to current, XPU too (vllm#27313, #46611; intel/llm-scaler#235)",
            &["No available shared memory broadcast block found in 60 seconds. This typically happens when some processes are hanging or doing some time-consuming work (e.g. compilation, weight/kv cache quantization)."],
        ),
    // --- consequences ----------------------------------------------------------------------------------------------------
    Row::new(EngineCoreFailed, "Engine core initialization failed", r"Engine core initialization failed\.").rank(Rank::Consequence).fatal().seen(
        "V1 engine, 0.8 to current, all backends (vllm#17939, #26898)",
        &["RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}"],
    ),
    Row::new(EngineCoreFailed, "EngineCore failed to start", r"EngineCore failed to start\.").rank(Rank::Consequence).fatal().seen("V1 engine, 0.8 to current, all backends", &["EngineCore failed to start."]),
    Row::new(EngineCoreFailed, "Engine process failed to start", r"RuntimeError: Engine process failed to start").rank(Rank::Consequence).fatal().seen(
        "V0 engine, 0.6 to 0.9 (vllm#6783)",
        &["RuntimeError: Engine process failed to start. See stack trace for the root cause."],
    ),
    Row::new(EngineCoreFailed, "WorkerProc ", r"WorkerProc (?:initialization failed|failed to start|hit an exception)").rank(Rank::Consequence).seen(
        "V1 engine with tp > 1, 0.8 to current (vllm#18455, #30021, #34643)",
        &["Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.", "WorkerProc failed to start.", "WorkerProc hit an exception."],
    ),
    Row::new(EngineCoreFailed, "died unexpectedly", r"(?:Worker proc \S+|[Ee]ngine core proc \S+) died unexpectedly").rank(Rank::Consequence).seen(
        "V1 engine, 0.8 to current (vllm#20657; intel/llm-scaler#154)",
        &["Worker proc VllmWorker-3 died unexpectedly, shutting down executor.", "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client."],
    ),
    Row::new(EngineCoreFailed, "Got fatal signal from worker processes", r"Got fatal signal from worker processes, shutting down").rank(Rank::Consequence).fatal().seen(
        "V1 engine 0.7 and 0.8 (vllm#17980)",
        &["Got fatal signal from worker processes, shutting down. See stack trace above for root cause issue."],
    ),
    Row::new(EngineCoreFailed, "EngineCore ", r"EngineCore (?:encountered a fatal error|hit an exception)").rank(Rank::Consequence).seen(
        "V1 engine, 0.7 to current (vllm#14574; intel/llm-scaler#154)",
        &["EngineCore encountered a fatal error.", "EngineCore hit an exception: Traceback (most recent call last):"],
    ),
    Row::new(EngineCoreFailed, "EngineDeadError", r"EngineDeadError").rank(Rank::Consequence).seen(
        "V1 engine (vllm#27194) and V0 engine (vllm#8194)",
        &[
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            "vllm.engine.async_llm_engine.AsyncEngineDeadError: Background loop has errored already.",
        ],
    ),
];
