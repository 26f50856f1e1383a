//! The key `slurm`: what a cluster is asked for, and how a task comes to run there.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema;
use crate::config::tree::Raw;

/// How Slurm runs a sweep (`executor: slurm`).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Slurm {
    /// `--partition` of `sbatch`.
    #[schemars(with = "Option<String>")]
    pub partition: Option<Raw>,
    /// `--qos`.
    #[schemars(with = "Option<String>")]
    pub qos: Option<Raw>,
    /// `--account`.
    #[schemars(with = "Option<String>")]
    pub account: Option<Raw>,
    /// `--reservation`.
    #[schemars(with = "Option<String>")]
    pub reservation: Option<Raw>,
    /// Time limit of one task, as Slurm writes it: minutes, `HH:MM:SS`, `D-HH:MM`.
    #[schemars(with = "Option<schema::Word>")]
    pub time: Option<Raw>,
    /// So long before its time limit a task ends in order, with its results safe.
    #[schemars(with = "Option<schema::DurationText>")]
    pub stop_before: Option<Raw>,
    /// At most so many tasks of one shape of resources run at once.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub workers: Option<Raw>,
    /// Deal the measurements of one shape of resources to at most so many tasks; without it, each server start is a task.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub tasks: Option<Raw>,
    /// Nodes of one task.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub nodes_per_task: Option<Raw>,
    /// Cores for each GPU.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub cpus_per_gpu: Option<Raw>,
    /// Cores of each node of a task; wins over `cpus-per-gpu`.
    #[schemars(with = "Option<schema::AtLeastOne>")]
    pub cpus_per_task: Option<Raw>,
    /// Memory for each core, as Slurm writes it: `22G`.
    #[schemars(with = "Option<schema::Word>")]
    pub mem_per_cpu: Option<Raw>,
    /// How GPUs are asked for: `gres` (`--gres=gpu:N`), `gpus-per-node`, or `none`.
    #[schemars(with = "Option<schema::GpuRequest>")]
    pub gpus: Option<Raw>,
    /// The type of the GPUs, where a cluster has several: `a100`.
    #[schemars(with = "Option<String>")]
    pub gpu_type: Option<Raw>,
    /// Lines of the batch script before the task begins: modules, `source …/setvars.sh`.
    #[schemars(with = "Option<schema::Words>")]
    pub prelude: Option<Raw>,
    /// A file that the batch script sources before the task begins.
    #[schemars(with = "Option<String>")]
    pub prelude_file: Option<Raw>,
    /// What stands before the task's command line: `srun --container-image=…`, `apptainer exec --nv image.sif`.
    #[schemars(with = "Option<String>")]
    pub container: Option<Raw>,
    /// This program on the nodes; without it, the path that it has here.
    #[schemars(with = "Option<String>")]
    pub program: Option<Raw>,
    /// `--export`: `ALL` (the default), `NONE`, or names of variables. Names of secrets that the plan needs are added.
    #[schemars(with = "Option<String>")]
    pub export: Option<Raw>,
    /// Whether Slurm may start a task again whose node failed or which was preempted.
    #[schemars(with = "Option<bool>")]
    pub requeue: Option<Raw>,
    /// A task that Slurm does not know any more, and that has not said how it ended, is given up after so long.
    #[schemars(with = "Option<schema::DurationText>")]
    pub patience: Option<Raw>,
    /// Any other option of `sbatch`: `{constraint: h100, exclusive: true, exclude: "n1,n2"}`.
    #[schemars(with = "Option<schema::SbatchOptions>")]
    pub sbatch: Option<Raw>,
}
