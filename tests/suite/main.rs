//! The program as its users call it, on the simulated vLLM. One test program for all of it: it is linked once, and its tests, which
//! mostly wait for processes, run beside each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by where it panics")]

mod support;

mod against;
mod analysis;
mod architecture;
mod broken;
mod cli;
mod cluster;
mod containers;
mod dashboard;
mod decide;
mod devices;
mod disk;
mod documents;
mod examples;
mod faults;
mod files;
mod follow;
mod history;
mod lanes;
mod load;
mod locks;
mod login;
mod mlflow;
mod names;
mod noise;
mod notify;
mod optimization;
mod ownership;
mod plots;
mod preflight;
mod push;
mod releases;
mod report;
mod resume;
mod reuse;
mod rules;
mod secrets;
mod slurm;
mod sources;
mod stall;
mod until;
mod watchdog;
