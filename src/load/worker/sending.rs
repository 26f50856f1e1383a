//! From a request to bytes on a connection: one at hand, or a new one.

use std::sync::atomic::Ordering;

use mio::{Interest, Token};

use super::super::connection::{Connection, InFlight};
use super::super::sample::{Failure, FailureClass};
use super::super::session::{GaveUp, Shared};
use super::{GONE, HOLD, Worker, nanos};

impl Worker<'_> {
    /// Sends a request on a connection at hand, or on a new one.
    pub(super) fn send(&mut self, mut flight: InFlight) {
        while let Some(slot) = self.idle.pop() {
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            flight.reused = true;
            write_request(self.shared, connection, &flight);
            if connection.write().is_err() {
                self.close(slot);
                continue;
            }
            connection.flight = Some(flight);
            return;
        }
        flight.reused = false;
        let spec = &self.shared.spec;
        let opened = Connection::open(spec.target.address, self.shared.tls.as_ref(), spec.kernel_clock).and_then(
            |mut connection| {
                let slot = self.vacant.pop().unwrap_or(self.connections.len());
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Err(error) = self.poll.registry().register(&mut connection.stream, Token(slot), interest) {
                    self.vacant.push(slot);
                    return Err(error);
                }
                Ok((slot, connection))
            },
        );
        match opened {
            Ok((slot, mut connection)) => {
                write_request(self.shared, &mut connection, &flight);
                let written = connection.write();
                connection.flight = Some(flight);
                self.opened += 1;
                connection.serial = self.opened;
                if slot == self.connections.len() {
                    self.connections.push(Some(connection));
                } else {
                    self.connections[slot] = Some(connection);
                }
                if let Err(error) = written {
                    self.refused();
                    self.fail(slot, FailureClass::Connect, error.to_string());
                }
            }
            Err(error) => {
                let detail = match error.raw_os_error() {
                    Some(code) if code == nix::errno::Errno::EMFILE as i32 => {
                        format!("{error}: raise the limit of open files (ulimit -n)")
                    }
                    _ => error.to_string(),
                };
                self.refused();
                self.finish(flight, Some(Failure::new(FailureClass::Connect, detail)), self.clock.now());
            }
        }
    }

    pub(super) fn writable(&mut self, slot: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        if !connection.established {
            match connection.stream.take_error() {
                Ok(Some(error)) | Err(error) => {
                    self.refused();
                    return self.fail(slot, FailureClass::Connect, error.to_string());
                }
                Ok(None) if connection.stream.peer_addr().is_err() => return,
                Ok(None) => {
                    connection.established = true;
                    self.shared.refused.store(0, Ordering::Relaxed);
                    if let Some(flight) = &mut connection.flight {
                        flight.connected = self.shared.spec.timing.connected(now, flight.started);
                    }
                }
            }
        }
        if connection.wants_write()
            && let Err(error) = connection.write()
        {
            self.broken(slot, error, now);
        }
    }

    /// The server closed a connection in the moment in which it was used again.
    pub(super) fn send_again(&mut self, slot: usize) {
        let flight =
            self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|connection| connection.flight.take());
        self.close(slot);
        if let Some(flight) = flight {
            self.send(flight);
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        if let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) {
            let _ = self.poll.registry().deregister(&mut connection.stream);
            self.idle.retain(|idle| *idle != slot);
            self.vacant.push(slot);
        }
    }

    /// A connection was refused: no hurry with the next one; and after a while the server is gone.
    pub(super) fn refused(&mut self) {
        let now = self.clock.now();
        self.hold_until = now + nanos(HOLD);
        let since = &self.shared.refused;
        let first = match since.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(first) => first,
        };
        if now.saturating_sub(first) > nanos(GONE) {
            self.shared.give_up(GaveUp::ServerGone);
        }
    }
}

fn write_request(shared: &Shared, connection: &mut Connection, flight: &InFlight) {
    let more = shared.spec.timing.headers(flight.index, flight.started);
    shared.writer.request(flight.index, &flight.body, &more, connection.outgoing());
}
