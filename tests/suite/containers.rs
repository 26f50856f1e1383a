//! Servers in containers, on a strict stand-in for Docker: its daemon runs containers outside of every group of ours, as the real one
//! does. What podman itself does is seen by `scripts/container_test.py`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{BIN, Call, FIRST, Scene, assert_proof};

const FAKE: &str = include_str!("support/fake_docker.py");
const IMAGE: &str = "fake/vllm:1";

/// A daemon; ended with what it runs when it is dropped.
struct Docker<'s> {
    scene: &'s Scene,
    daemon: Child,
}

impl<'s> Docker<'s> {
    fn start(scene: &'s Scene) -> Self {
        let client = scene.program("bin/docker", FAKE);
        let mut command = Command::new(client);
        command.arg("daemon").arg(scene.path("docker.sock")).args([BIN, "sim-vllm"]);
        let mut daemon = command.current_dir("/").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { scene, daemon }
    }

    /// A sweep of one experiment in its image.
    fn sweep(&self) -> Call<'s> {
        self.scene
            .sweep()
            .set("--engine", ["vllm"])
            .without("--sim-speed")
            .set("--enforce-eager", ["true"])
            .set("--setvars", ["none"])
            .set("--container", [IMAGE])
            .set("--container-runtime", [self.scene.path("bin/docker").to_str().unwrap()])
            .also("--env", "VLLM_BENCH_SIM_SPEED=inf")
            .also("--env", "HF_TOKEN=hf_planted_token_of_a_test")
            .env("DOCKER_HOST", self.scene.path("docker.sock").to_str().unwrap())
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_sweep_in_containers_is_measured_and_leaves_none() {
    let scene = Scene::new();
    let docker = Docker::start(&scene);
    docker.sweep().exits(0);
    let run = scene.run();
    let script = std::fs::read_to_string(run.path(&format!("scripts/{FIRST}_server.sh"))).unwrap();
    assert!(script.contains("\"vllm-bench-$GUARDED_BY_VLLM_BENCH\"") && script.contains("--env HF_TOKEN"), "{script}");
    assert!(!script.contains("hf_planted"), "{script}");
    assert_proof(&run.events("torn-down")[0]["proof"]);
}

#[test]
fn a_killed_run_leaves_no_container_and_one_that_fails_says_why() {
    let scene = Scene::new();
    let docker = Docker::start(&scene);
    let mut live = docker.sweep().also("--env", "VLLM_BENCH_SIM_FAULT=benchmark-hangs").start();
    live.event(&["benchmark-launched", FIRST]);
    live.kill();
    scene.wait_until_nothing_is_left();

    docker
        .sweep()
        .set("--container", ["fake/vllm:2"])
        .exits(4)
        .says("No such image: fake/vllm:2")
        .says("docker pull fake/vllm:2");
}
