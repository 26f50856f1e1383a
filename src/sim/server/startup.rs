//! The start of a server: its phases, how long they take, and what they log.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use nix::sys::signal::Signal;
use tokio::net::TcpSocket;

use super::process::{self, Ids};
use super::{Launch, VERSION, failure};
use crate::sim::fault::Fault;
use crate::sim::flags::QUANTIZATIONS;
use crate::sim::log::{Source, thousands};
use crate::sim::model::{DoesNotFit, gib};

/// The start failed; the exit code.
pub type Start<T> = Result<T, u8>;

/// Phases before there is an engine: import, the socket (bound, not listening: vLLM answers nothing before it has started), the
/// configuration.
pub async fn api_server(launch: &Launch) -> Start<TcpSocket> {
    let log = &launch.log;
    let notice = format!(
        "SIMULATED vLLM {VERSION} by vllm-bench: no model is loaded, every number is made up by a model of the time it would take."
    );
    log.line(&Source::Bare, "WARNING", "sim.rs:1", &notice);
    if launch.has(&Fault::GarbageLog) {
        log.raw(&failure::garbage());
    }
    launch.sleep(9.0).await;
    log.info(
        &Source::Bare,
        "importing.py:44",
        "Triton is installed but 0 active driver(s) found (expected 1). Disabling Triton to prevent runtime errors.",
    );
    log.info(
        &Source::Bare,
        "importing.py:68",
        "Triton not installed or not compatible; certain GPU-related functions will not be available.",
    );
    log.info(&launch.api, "api_server.py:1272", &format!("vLLM API server version {VERSION} (SIMULATED)"));
    log.info(&launch.api, "utils.py:263", &format!("non-default args: {}", launch.config.non_default_args()));
    for fault in &launch.faults {
        if let Fault::ExitAtStart { code } = fault {
            return Err(*code);
        }
    }
    if launch.has(&Fault::PortTaken) {
        return Err(failure::port_taken(launch));
    }
    let socket = bind(launch).map_err(|error| match error.raw_os_error() {
        Some(code) if code == nix::errno::Errno::EADDRINUSE as i32 => failure::port_taken(launch),
        _ => failure::api_server(launch, "", &format!("OSError: {error}")),
    })?;
    launch.sleep(1.5).await;
    configuration(launch)?;
    Ok(socket)
}

fn bind(launch: &Launch) -> io::Result<TcpSocket> {
    let host = launch.config.host.as_deref().unwrap_or("0.0.0.0");
    let address: SocketAddr = (host.trim_matches(['[', ']']), launch.config.port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address for {host}")))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Both, as vLLM does: so two servers of one user can share a port without a word.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn configuration(launch: &Launch) -> Start<()> {
    let (config, deployment, arch) = (&launch.config, &launch.config.deployment, &launch.cost.architecture);
    for fault in &launch.faults {
        match fault {
            Fault::ModelNotFound => return Err(failure::model_not_found(launch)),
            Fault::GatedModel => return Err(failure::gated_model(launch)),
            Fault::Network => return Err(failure::network(launch)),
            Fault::QuantizationUnsupported => return Err(failure::quantization_unsupported(launch)),
            Fault::TooManyDevices => return Err(failure::too_many_devices(launch, (deployment.tp / 2).max(1))),
            _ => {}
        }
    }
    if let Some(method) = deployment.quantization.as_deref().filter(|method| !QUANTIZATIONS.contains(method)) {
        return Err(failure::unknown_quantization(launch, method));
    }
    launch.log.info(&launch.api, "model.py:530", &format!("Resolved architecture: {}", arch.class));
    if config.max_model_len > arch.max_position {
        return Err(failure::context_too_long(launch, arch.max_position));
    }
    if arch.heads % deployment.tp != 0 {
        let error = format!(
            "Total number of attention heads ({}) must be divisible by tensor parallel size ({}).",
            arch.heads, deployment.tp
        );
        return Err(failure::validation(launch, "VllmConfig", &error));
    }
    let of_ray = super::ranks::ray_head(config).is_some();
    if !of_ray && deployment.tp * deployment.pp * deployment.dp > launch.settings.devices.saturating_mul(config.nodes) {
        return Err(failure::too_many_devices(launch, launch.settings.devices));
    }
    let (log, api) = (&launch.log, &launch.api);
    log.info(api, "model.py:1545", &format!("Using max model len {}", config.max_model_len));
    let batched = deployment.max_num_batched_tokens;
    log.info(api, "scheduler.py:229", &format!("Chunked prefill is enabled with max_num_batched_tokens={batched}."));
    log.info(api, "vllm.py:630", "Asynchronous scheduling is enabled.");
    if deployment.eager {
        log.line(api, "WARNING", "vllm.py:665", "Enforce eager set, overriding optimization level to -O0");
    }
    Ok(())
}

/// The phases of the engine: processes, weights, profile, compilation, cache, graphs.
pub async fn engine(launch: &Launch, ids: Ids) -> Start<()> {
    let log = &launch.log;
    launch.sleep(6.0).await;
    let (config, deployment) = (&launch.config, &launch.config.deployment);
    let quantization = deployment.quantization.as_deref().unwrap_or("None");
    log.info(
        &launch.engine(ids),
        "core.py:97",
        &format!(
            "Initializing a V1 LLM engine (v{VERSION}) with config: model={model}, speculative_config=None, tokenizer={model}, \
             dtype=torch.bfloat16, max_seq_len={}, tensor_parallel_size={}, pipeline_parallel_size={}, data_parallel_size={}, \
             quantization={quantization}, enforce_eager={}, kv_cache_dtype=auto, device_config=xpu, simulated=True, seed={}, \
             served_model_name={}",
            config.max_model_len,
            deployment.tp,
            deployment.pp,
            deployment.dp,
            if deployment.eager { "True" } else { "False" },
            config.seed,
            config.served.join(","),
            model = crate::sim::flags::python(&config.model),
        ),
    );
    if launch.has(&Fault::SharedMemory) {
        return Err(failure::shared_memory(launch, ids));
    }
    if launch.has(&Fault::DtypeUnsupported) {
        return Err(failure::dtype_unsupported(launch, ids));
    }
    let worker = launch.worker(ids);
    for rank in 0..deployment.tp {
        let line = format!(
            "world_size={} rank={rank} local_rank={rank} distributed_init_method=tcp://127.0.0.1:47129 backend=xccl",
            deployment.tp
        );
        log.info(&worker, "parallel_state.py:1214", &line);
    }
    launch.sleep(1.0).await;
    load(launch, ids, &worker).await?;
    memory(launch, ids, &worker).await?;
    graphs(launch, &worker).await;
    let seconds = 4.0 + launch.cost.compile_seconds() + launch.cost.capture_seconds();
    log.info(
        &launch.engine(ids),
        "core.py:273",
        &format!("init engine (profile, create kv cache, warmup model) took {seconds:.2} seconds"),
    );
    Ok(())
}

async fn load(launch: &Launch, ids: Ids, worker: &Source) -> Start<()> {
    let (log, seconds) = (&launch.log, launch.cost.load_seconds());
    log.info(worker, "gpu_model_runner.py:3562", &format!("Starting to load model {}...", launch.config.model));
    if launch.has(&Fault::HangLoading { busy: true }) {
        ids.compute();
    }
    if launch.faults.iter().any(|fault| matches!(fault, Fault::HangLoading { .. })) {
        std::future::pending::<()>().await;
    }
    let shards = (launch.cost.checkpoint_bytes() / 4.6e9).ceil().max(1.0) as u64;
    let too_large = matches!(launch.cost.fits(launch.config.max_model_len), Err(DoesNotFit::Weights { .. }));
    let out_of_memory = launch.has(&Fault::OutOfMemory) || too_large;
    let killed = launch.faults.iter().find_map(|fault| match fault {
        Fault::OomKilled { engine_only } => Some(*engine_only),
        _ => None,
    });
    for shard in 0..=shards {
        let percent = 100 * shard / shards;
        log.plain(worker, &format!("\rLoading safetensors checkpoint shards: {percent:>3}% Completed | {shard}/{shards} [{:02}:{:02}<?, ?it/s]", shard * seconds as u64 / shards / 60, shard * seconds as u64 / shards % 60));
        if shard >= shards / 2 && out_of_memory {
            return Err(failure::out_of_memory(launch, ids));
        }
        match killed {
            Some(true) if shard >= shards / 2 => {
                ids.kill();
                // The death is noticed elsewhere and ends the start.
                std::future::pending::<()>().await;
            }
            Some(false) if shard >= shards / 2 => {
                ids.kill();
                process::die_by(Signal::SIGKILL);
            }
            _ => {}
        }
        if shard < shards {
            launch.sleep(seconds / shards as f64).await;
        }
    }
    log.plain(worker, "\n");
    log.info(worker, "default_loader.py:291", &format!("Loading weights took {seconds:.2} seconds"));
    let text = format!(
        "Model loading took {:.4} GiB memory and {:.6} seconds",
        gib(launch.cost.weight_bytes()),
        seconds + 0.7
    );
    log.info(worker, "gpu_model_runner.py:3659", &text);
    Ok(())
}

async fn memory(launch: &Launch, ids: Ids, worker: &Source) -> Start<()> {
    let (log, cost) = (&launch.log, &launch.cost);
    if launch.has(&Fault::LevelZero) {
        launch.sleep(2.0).await;
        return Err(failure::level_zero(launch, ids));
    }
    let compile = cost.compile_seconds();
    if compile > 0.0 {
        log.info(worker, "backends.py:644", "Using cache directory: /root/.cache/vllm/torch_compile_cache/simulated/rank_0_0/backbone for vLLM's torch.compile");
        launch.sleep(compile * 0.3).await;
        log.info(worker, "backends.py:704", &format!("Dynamo bytecode transform time: {:.2} s", compile * 0.3));
        launch.sleep(compile * 0.7).await;
        log.info(
            worker,
            "backends.py:261",
            &format!(
                "Compiling a graph for compile range (1, {}) takes {:.2} s",
                launch.config.deployment.max_num_batched_tokens,
                compile * 0.7
            ),
        );
        log.info(worker, "monitor.py:34", &format!("torch.compile takes {compile:.2} s in total"));
    }
    launch.sleep(4.0).await;
    if let Some(small) = launch.faults.iter().find_map(|fault| match fault {
        Fault::KvCache { small } => Some(*small),
        _ => None,
    }) {
        let needed = f64::from(launch.config.max_model_len) * cost.kv_bytes_per_token();
        let why = if small {
            DoesNotFit::CacheTooSmall { needed, available: needed * 0.6, longest: launch.config.max_model_len / 5 * 3 }
        } else {
            DoesNotFit::NoCacheBlocks { available: -1.5e9 }
        };
        return Err(failure::kv_cache(launch, ids, why));
    }
    if let Err(why) = cost.fits(launch.config.max_model_len) {
        return Err(failure::kv_cache(launch, ids, why));
    }
    log.info(worker, "gpu_worker.py:358", &format!("Available KV cache memory: {:.2} GiB", gib(cost.kv_cache_bytes())));
    let (engine, tokens) = (launch.engine(ids), cost.kv_cache_tokens());
    log.info(&engine, "kv_cache_utils.py:1305", &format!("GPU KV cache size: {} tokens", thousands(tokens)));
    let longest = launch.config.max_model_len;
    let times = tokens as f64 / f64::from(longest.max(1));
    log.info(
        &engine,
        "kv_cache_utils.py:1310",
        &format!("Maximum concurrency for {} tokens per request: {times:.2}x", thousands(u64::from(longest))),
    );
    Ok(())
}

async fn graphs(launch: &Launch, worker: &Source) {
    let seconds = launch.cost.capture_seconds();
    if seconds == 0.0 {
        return;
    }
    const SIZES: u32 = 35;
    for kind in ["mixed prefill-decode, PIECEWISE", "decode, FULL"] {
        for done in [0, 9, 18, 27, SIZES] {
            let bar = format!(
                "\rCapturing CUDA graphs ({kind}): {:>3}%|{:<10}| {done}/{SIZES} [00:00<00:00, 11.41it/s]",
                100 * done / SIZES,
                "#".repeat((done * 10 / SIZES) as usize)
            );
            launch.log.plain(worker, &bar);
            if done < SIZES {
                launch.sleep(seconds / 8.0).await;
            }
        }
    }
    launch.log.info(
        worker,
        "gpu_model_runner.py:4587",
        &format!("Graph capturing finished in {seconds:.0} secs, took 0.30 GiB"),
    );
}

/// The last lines before requests are answered.
pub fn started(launch: &Launch) {
    let (log, api) = (&launch.log, &launch.api);
    log.info(api, "api_server.py:1014", "Supported tasks: ['generate']");
    log.info(api, "serving_chat.py:182", "Warming up chat template processing...");
    log.info(api, "serving_chat.py:218", "Chat template warmup completed in 14.2ms");
    let host = launch.config.host.as_deref().unwrap_or("0.0.0.0");
    log.info(
        api,
        "api_server.py:1346",
        &format!("Starting vLLM API server 0 on http://{host}:{} (SIMULATED)", launch.config.port),
    );
    log.info(api, "launcher.py:38", "Available routes are:");
    for (route, methods) in [
        ("/health", "GET"),
        ("/metrics", "GET"),
        ("/version", "GET"),
        ("/tokenize", "POST"),
        ("/detokenize", "POST"),
        ("/reset_prefix_cache", "POST"),
        ("/v1/models", "GET"),
        ("/v1/completions", "POST"),
        ("/v1/chat/completions", "POST"),
    ] {
        log.info(api, "launcher.py:46", &format!("Route: {route}, Methods: {methods}"));
    }
    let pid = std::process::id();
    log.plain(api, &format!("INFO:     Started server process [{pid}]\nINFO:     Waiting for application startup.\nINFO:     Application startup complete."));
}
