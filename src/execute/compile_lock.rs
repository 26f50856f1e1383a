//! One server at a time fills the compile cache for a configuration.
//!
//! vLLM keeps what torch.compile made below `VLLM_CACHE_ROOT/torch_compile_cache`, in a folder named after a hash of its configuration,
//! and writes it file by file. Two servers that fill one folder at the same time (tasks of a cluster with a shared home, lanes of one
//! machine) damage it for each other and for those that come later. So the first start of a configuration holds a lock of the kernel
//! until it is ready; those that come later find it compiled and wait for nobody. A start that fails leaves it to the next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use super::{Emitter, Job, UnitContext};
use crate::model::{Context, Experiment, Identity, ProcessId, ServerConfig};
use crate::process::Stop;
use crate::record::{self, Holder, Lock, layout};

/// How often a lock that another start holds is tried.
const EVERY: Duration = Duration::from_secs(1);

/// Flags that are no part of vLLM's hash (`compute_hash` of its configurations in 0.10.2 to 0.15.0): configurations that differ in
/// nothing else fill the same folder.
const NOT_COMPILED: [&str; 22] = [
    "host",
    "served-model-name",
    "gpu-memory-utilization",
    "num-gpu-blocks-override",
    "enable-prefix-caching",
    "no-enable-prefix-caching",
    "prefix-caching-hash-algo",
    "swap-space",
    "seed",
    "tokenizer",
    "tokenizer-mode",
    "tokenizer-revision",
    "chat-template",
    "uvicorn-log-level",
    "disable-uvicorn-access-log",
    "enable-log-requests",
    "no-enable-log-requests",
    "disable-log-stats",
    "max-log-len",
    "stream-interval",
    "scheduling-policy",
    "enable-server-load-tracking",
];

/// From here on `max-num-seqs` changes no size of a graph: the largest is 512, for twice as many sequences.
const MOST_SEQUENCES: u64 = 256;

/// Held while a server compiles; dropped = freed.
#[derive(Debug)]
pub(super) struct CompileLock {
    _lock: Lock,
    marker: PathBuf,
}

impl CompileLock {
    /// Waits until this start may fill the cache. `None` where nothing is compiled or shared, where it was compiled before, where a stop
    /// ends the wait, and where no lock can be had: that is said, and the start goes on without.
    pub async fn take(job: &Job, context: &UnitContext, emit: &Emitter, stop: &mut Stop) -> Option<Self> {
        let folder = context.compile_locks.as_ref()?;
        let experiment = &job.experiment;
        if experiment.axes.enforce_eager {
            return None;
        }
        let folder = match experiment.server.env.get("VLLM_CACHE_ROOT") {
            Some(root) => layout::compile_locks(Path::new(root)),
            None => folder.clone(),
        };
        let key = key(experiment, context.vllm_version.as_deref());
        let marker = layout::compiled(&folder, &key);
        let path = layout::compile_lock(&folder, &key);
        let mut told = false;
        loop {
            if marker.exists() {
                return None;
            }
            let taken = {
                let (folder, path) = (folder.clone(), path.clone());
                tokio::task::spawn_blocking(move || {
                    std::fs::create_dir_all(&folder).map_err(record::Error::write(&folder))?;
                    Lock::take(&path)
                })
                .await
            };
            let holder = match taken {
                Ok(Ok(Ok(mut lock))) => {
                    // Unsigned, it holds as well; only its message to others is poorer.
                    let _ = lock.sign(&path, &me(job, context));
                    // It may have been compiled between the look and the lock.
                    return (!marker.exists()).then_some(Self { _lock: lock, marker });
                }
                Ok(Ok(Err(holder))) => holder.unwrap_or_else(Holder::unknown),
                Ok(Err(error)) => {
                    emit.say(format!("the compile cache is not protected against other starts: {error}"));
                    return None;
                }
                Err(_) => return None,
            };
            if !told {
                told = true;
                emit.say(format!(
                    "`{}` waits for another start of the same configuration to fill the compile cache ({holder})",
                    experiment.name
                ));
            }
            stop.cuts_short(sleep(EVERY)).await?;
        }
    }

    /// The server is ready: what it needs is compiled.
    pub fn filled(self) {
        // Without it, the next start takes the lock again, and finds everything compiled.
        let _ = record::atomic::write(&self.marker, b"\n");
    }
}

fn me(job: &Job, context: &UnitContext) -> Holder {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    Holder { process: ProcessId::current(), user, since: job.started.clone(), run: context.run.clone() }
}

/// A name for all configurations that vLLM compiles alike.
fn key(experiment: &Experiment, version: Option<&str>) -> String {
    let mut server: ServerConfig = experiment.server.clone();
    for flag in NOT_COMPILED {
        server.flags.remove(flag);
    }
    let sequences = server.flags.get_text("max-num-seqs").and_then(|text| text.parse::<u64>().ok());
    if let Some(sequences) = sequences {
        server.flags.text("max-num-seqs", sequences.min(MOST_SEQUENCES));
    }
    let context = Context { vllm_version: version.map(str::to_owned), ..Context::default() };
    Identity::of_server(experiment.engine, &server, &context).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Engine;
    use crate::plan::fixture::axis;
    use crate::plan::{Group, Sweep, expand};

    fn key_of(flags: &[(&str, &str)]) -> String {
        let mut serve = vec![axis("model", "m"), axis("max-model-len", "2048")];
        serve.extend(flags.iter().map(|(name, value)| axis(name, value)));
        let sweep = Sweep { groups: vec![Group { serve, ..Group::default() }], ..Sweep::new(Engine::Vllm) };
        key(&expand(&sweep).experiments[0], Some("0.14.1"))
    }

    #[test]
    fn configurations_that_vllm_compiles_alike_share_a_lock_and_others_do_not() {
        let base = key_of(&[("max-num-seqs", "256")]);
        for alike in
            [[("max-num-seqs", "4096"), ("gpu-memory-utilization", "0.95")], [("max-num-seqs", "512"), ("seed", "7")]]
        {
            assert_eq!(key_of(&alike), base, "{alike:?}");
        }
        for other in [
            [("max-num-seqs", "8")],
            [("dtype", "float16")],
            [("max-num-batched-tokens", "4096")],
            [("tensor-parallel-size", "2")],
        ] {
            assert_ne!(key_of(&other), base, "{other:?}");
        }
    }
}
