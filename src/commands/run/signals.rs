//! What a signal means to a run.
//!
//! SIGINT, SIGTERM, SIGHUP and SIGQUIT: the first stops in order (SIGTERM to the server, grace, proof, record); the second kills
//! the groups at once; the third leaves, and the guards finish the work. `vllm-bench stop --after-current` sends
//! SIGUSR1, `stop --now` SIGUSR2. One of them that was ignored at the start (`nohup`) stays ignored.
//!
//! To a task of a cluster, SIGUSR1 says that its time limit is near, and SIGUSR2 that it is to end after the experiment under way. The front
//! of a run on a cluster leaves at the first signal: its jobs go on.

use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::error::Error;
use crate::execute::Recorder;
use crate::model::Event;
use crate::process::{StopLevel, StopSender, signals};

use super::recorder::RunRecorder;

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The orchestrator of a run on this machine.
    Run,
    /// The front of a run on a cluster.
    Front,
    /// A task on a cluster.
    Task,
}

/// The number of the signal that comes before the time limit of a job.
pub const TIME_LIMIT_NEAR: u8 = 10;

/// Listens to signals for the life of a run.
#[derive(Debug, Clone)]
pub struct Signals {
    shared: Arc<Mutex<Shared>>,
    leave: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Number of the first signal.
    first: Option<u8>,
    recorder: Option<RunRecorder>,
    /// How many came.
    count: u32,
    /// Names of signals that came before there was a recorder.
    unrecorded: Vec<&'static str>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen(stop: StopSender, role: Role) -> Result<Self, Error> {
        let kinds = [
            (Signal::SIGINT, 2, "SIGINT"),
            (Signal::SIGTERM, 15, "SIGTERM"),
            (Signal::SIGHUP, 1, "SIGHUP"),
            (Signal::SIGQUIT, 3, "SIGQUIT"),
            (
                Signal::SIGUSR1,
                TIME_LIMIT_NEAR,
                if role == Role::Task { "the time limit is near" } else { "stop --after-current" },
            ),
            (Signal::SIGUSR2, 12, if role == Role::Task { "stop --after-current" } else { "stop --now" }),
        ];
        let (leave_sender, leave) = watch::channel(false);
        let leave_sender = Arc::new(leave_sender);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let orderly = Arc::new(Mutex::new(0u32));
        for (kind, number, name) in kinds {
            let stream = signals::Signals::of(kind)?;
            let (stop, shared, orderly) = (stop.clone(), Arc::clone(&shared), Arc::clone(&orderly));
            let leave = Arc::clone(&leave_sender);
            tokio::spawn(listen_to(stream, move || {
                note(&shared, number, name);
                match (number, role) {
                    (TIME_LIMIT_NEAR, Role::Task) => stop.raise(StopLevel::Drain),
                    (12, Role::Task) | (TIME_LIMIT_NEAR, Role::Run | Role::Front) => {
                        stop.raise(StopLevel::AfterCurrent)
                    }
                    (12, Role::Run | Role::Front) => stop.raise(StopLevel::Kill),
                    _ => {
                        let count = orderly.lock().map_or(1, |mut count| {
                            *count += 1;
                            *count
                        });
                        stop.raise(if count == 1 { StopLevel::Drain } else { StopLevel::Kill });
                        if count >= 3 {
                            leave.send_replace(true);
                        }
                    }
                }
            }));
        }
        Ok(Self { shared, leave })
    }

    /// From now on signals are recorded as events.
    pub fn record_into(&self, recorder: &RunRecorder) {
        let Ok(mut shared) = self.shared.lock() else { return };
        for name in std::mem::take(&mut shared.unrecorded) {
            let _ = recorder.event(&Event::StopRequested { by: name.to_owned() });
        }
        shared.recorder = Some(recorder.clone());
    }

    /// The number of the first signal, if one came.
    pub fn first(&self) -> Option<u8> {
        self.shared.lock().ok()?.first
    }

    /// How many signals have come.
    pub fn count(&self) -> u32 {
        self.shared.lock().map_or(0, |shared| shared.count)
    }

    /// Waits for the third signal; returns the number of the first.
    pub async fn leave(&self) -> u8 {
        let mut leave = self.leave.clone();
        if leave.wait_for(|leave| *leave).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.first().unwrap_or(15)
    }
}

async fn listen_to(mut stream: signals::Signals, mut on_signal: impl FnMut()) {
    loop {
        stream.next().await;
        on_signal();
    }
}

fn note(shared: &Mutex<Shared>, number: u8, name: &'static str) {
    let Ok(mut shared) = shared.lock() else { return };
    shared.first.get_or_insert(number);
    shared.count += 1;
    match &shared.recorder {
        Some(recorder) => drop(recorder.event(&Event::StopRequested { by: name.to_owned() })),
        None => shared.unrecorded.push(name),
    }
}
