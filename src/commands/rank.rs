//! `__rank`: holds a rank of a server on this node, for the head on another.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Environment;
use crate::error::Error;
use crate::execute::{RankOrder, become_holder};
use crate::safe;

/// Starts the rank and holds it until it ends, or a signal says that it is to end.
///
/// # Errors
/// When it cannot be started, or what was seen of its end cannot be written.
pub async fn run(order: &Path, rank: u32, environment: &Environment) -> Result<u8, Error> {
    become_holder();
    let mut told_by_head = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let told = async {
        tokio::select! {
            _ = told_by_head.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    let order = RankOrder::read(order)?;
    environment.learn_secrets();
    Ok(order.hold(rank, safe::values(), told).await?)
}
