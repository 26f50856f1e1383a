//! What a block runs on: the port of its servers, with the lock that keeps other runs off it, and in a run with lanes what it has of
//! the machine ([`super::lanes`]). Where something ran is recorded, and never part of an identity.

use std::path::PathBuf;

use crate::model::Placement;
use crate::process::registry;
use crate::record::{self, Holder, Lock};

use super::lanes::Binding;
use super::{Error, port};

/// The first port that is tried where the run chooses.
const FIRST_PORT: u16 = 8000;

/// The port of one server after the other, and what they are bound to.
#[derive(Debug)]
pub struct Lease {
    /// What the block has of the machine.
    pub(super) binding: Binding,
    /// Whether another port is taken where somebody took this one.
    chooses: bool,
    /// The first that is tried then.
    first: u16,
    port: u16,
    lock: Lock,
    holder: Holder,
}

/// A port that is locked, and not signed yet.
#[derive(Debug)]
pub struct LockedPort {
    chooses: bool,
    first: u16,
    port: u16,
    lock: Lock,
}

impl LockedPort {
    /// Locks a port: this one, or with `None` the first free one from 8000 on.
    ///
    /// # Errors
    /// When it is taken or locked, or none is free.
    pub fn take(fixed: Option<u16>) -> Result<Self, Error> {
        let chooses = fixed.is_none();
        let (port, lock) = match fixed {
            Some(port) => match Lock::take(&lock_path(port)?)? {
                Ok(lock) => (port::require_free(port)?, lock),
                Err(holder) => {
                    let holder = Box::new(holder.unwrap_or_else(Holder::unknown));
                    return Err(record::Error::PortLocked { port, holder }.into());
                }
            },
            None => free_from(FIRST_PORT)?,
        };
        Ok(Self { chooses, first: FIRST_PORT, port, lock })
    }

    /// Locks the first free port from this one on: another one may be taken later.
    ///
    /// # Errors
    /// When none is free.
    pub fn take_from(first: u16) -> Result<Self, Error> {
        let (port, lock) = free_from(first)?;
        Ok(Self { chooses: true, first, port, lock })
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says who holds it.
    ///
    /// # Errors
    /// When the lock's file cannot be written.
    pub fn signed(mut self, holder: Holder) -> Result<Lease, Error> {
        self.lock.sign(&lock_path(self.port)?, &holder)?;
        Ok(Lease {
            binding: Binding::default(),
            chooses: self.chooses,
            first: self.first,
            port: self.port,
            lock: self.lock,
            holder,
        })
    }
}

impl Lease {
    /// The same, where a scheduler has given out these devices.
    #[must_use]
    pub fn placed(mut self, placement: Placement) -> Self {
        self.binding.placement = Some(placement);
        self
    }

    /// Whether another port is chosen where this one is taken.
    pub fn chooses_ports(&self) -> bool {
        self.chooses
    }

    /// The port of the next server: where the run chooses another one, when somebody took the last one meanwhile.
    pub fn next_port(&mut self) -> u16 {
        if self.chooses
            && port::is_taken(self.port)
            && let Ok(LockedPort { port, lock, .. }) = LockedPort::take_from(self.first)
        {
            (self.port, self.lock) = (port, lock);
            // Unsigned, the lock holds as well; only its message to others is poorer.
            if let Ok(path) = lock_path(port) {
                let _ = self.lock.sign(&path, &self.holder);
            }
        }
        self.port
    }
}

/// The first free port from this one on, locked.
fn free_from(first: u16) -> Result<(u16, Lock), Error> {
    port::find_free(first, |port| Lock::take(&lock_path(port).ok()?).ok()?.ok())
}

pub(super) fn lock_path(port: u16) -> Result<PathBuf, Error> {
    Ok(registry::home()?.join(format!("port-{port}.lock")))
}
