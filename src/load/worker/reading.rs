//! From what is ready on a socket to what became of its request. All sockets are read before anything is looked at.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::arrival::Arrival;
use super::super::connection::{Got, InFlight};
use super::super::sample::{Failure, FailureClass, Sample};
use super::super::session::GaveUp;
use super::super::wire::Progress;
use super::judge::judge;
use super::{ARENA, MOST_READ, Piece, What, Worker};

impl Worker<'_> {
    /// Reads a socket into the arena from `from` on; hands back where the next one begins.
    pub(super) fn read(&mut self, slot: usize, closed: bool, mut from: usize) -> usize {
        if ARENA - from < MOST_READ {
            self.parse();
            from = 0;
        }
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return from };
        let to = from + MOST_READ;
        let got = connection.read(&mut self.arena[from..to], &mut self.control);
        let read = self.clock.now();
        let serial = connection.serial;
        let what = match got {
            Ok(Got::Nothing) => return from,
            Ok(Got::End) => What::End,
            Err(error) => What::Failed(error),
            Ok(Got::Bytes(count, stamp)) => {
                if count == MOST_READ || closed {
                    self.again.push(slot);
                }
                let at = match stamp {
                    Some(stamp) => self.clock.arrival(stamp, connection.last_arrival, read),
                    None => {
                        if self.shared.spec.kernel_clock {
                            self.shared.clock_failed.store(true, Ordering::Relaxed);
                        }
                        read
                    }
                };
                connection.last_arrival = at;
                self.pieces.push(Piece { slot, serial, what: What::Bytes { from, to: from + count }, at });
                return from + count;
            }
        };
        self.pieces.push(Piece { slot, serial, what, at: read });
        from
    }

    /// Looks at what was read.
    pub(super) fn parse(&mut self) {
        let mut pieces = std::mem::take(&mut self.pieces);
        for Piece { slot, serial, what, at } in pieces.drain(..) {
            // A slot may have gone to another connection since.
            if self.connections.get(slot).and_then(Option::as_ref).is_none_or(|connection| connection.serial != serial)
            {
                continue;
            }
            match what {
                What::Bytes { from, to } => self.bytes(slot, from, to, at),
                What::End => self.end(slot, at),
                What::Failed(error) => self.broken(slot, error, at),
            }
        }
        self.pieces = pieces;
        self.shared.live.moves(self.moved);
    }

    fn bytes(&mut self, slot: usize, from: usize, to: usize, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        connection.established = true;
        let decrypted = match connection.decrypt(&self.arena[from..to]) {
            Ok(decrypted) => decrypted,
            Err(error) => return self.fail(slot, FailureClass::Connect, format!("TLS: {error}")),
        };
        if connection.wants_write() && connection.write().is_err() {
            return self.end(slot, at);
        }
        let (bytes, goodbye) = match &decrypted {
            Some((content, goodbye)) => (&content[..], *goodbye),
            None => (&self.arena[from..to], false),
        };
        let Some(flight) = &mut connection.flight else {
            // Nobody asked: a server that speaks out of turn, or the goodbye of TLS.
            if !bytes.is_empty() || goodbye {
                self.close(slot);
            }
            return;
        };
        if !bytes.is_empty() {
            let heard = at;
            let at = self.shared.spec.timing.arrival(at, flight.started);
            let tokens = flight.exchange.reply().events;
            let progress = flight.exchange.push(bytes, at);
            if flight.exchange.reply().events != tokens {
                flight.heard = heard;
                self.moved = self.moved.max(heard);
            }
            match progress {
                Ok(Progress::More) => {}
                Ok(Progress::Complete { keep_alive }) => return self.complete(slot, keep_alive, at),
                Err(broken) => return self.fail(slot, FailureClass::Malformed, broken.to_string()),
            }
        }
        if goodbye {
            self.end(slot, at);
        }
    }

    /// The server closed the connection.
    fn end(&mut self, slot: usize, at: u64) {
        let Some(flight) = self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|c| c.flight.as_mut())
        else {
            return self.close(slot);
        };
        if flight.reused && !flight.exchange.has_begun() {
            return self.send_again(slot);
        }
        match flight.exchange.closed(at) {
            Ok(true) => self.complete(slot, false, at),
            Ok(false) if flight.exchange.reply().done => self.complete(slot, false, at),
            Ok(false) => {
                let seen = flight.exchange.reply().events;
                let detail = match flight.exchange.has_begun() {
                    true => {
                        format!("the server closed the connection after {seen} tokens, before the end of its answer")
                    }
                    false => "the server closed the connection without an answer".to_owned(),
                };
                self.fail(slot, FailureClass::StreamBroken, detail);
            }
            Err(broken) => self.fail(slot, FailureClass::Malformed, broken.to_string()),
        }
    }

    /// Reading or writing failed.
    pub(super) fn broken(&mut self, slot: usize, error: io::Error, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let established = connection.established;
        let Some(flight) = connection.flight.as_mut() else { return self.close(slot) };
        if flight.reused && !flight.exchange.has_begun() {
            return self.send_again(slot);
        }
        let _ = at;
        let seen = flight.exchange.reply().events;
        if established {
            return self.fail(slot, FailureClass::StreamBroken, format!("{error}, after {seen} tokens"));
        }
        self.refused();
        self.fail(slot, FailureClass::Connect, error.to_string());
    }

    fn complete(&mut self, slot: usize, keep_alive: bool, at: u64) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(flight) = connection.flight.take() else { return };
        if keep_alive {
            self.idle.push(slot);
        } else {
            self.close(slot);
        }
        let failure = judge(&flight, self.shared.spec.form.stream);
        self.finish(flight, failure, at);
    }

    pub(super) fn fail(&mut self, slot: usize, class: FailureClass, detail: String) {
        let flight =
            self.connections.get_mut(slot).and_then(Option::as_mut).and_then(|connection| connection.flight.take());
        self.close(slot);
        if let Some(flight) = flight {
            let now = self.clock.now();
            // What the server said before says more.
            let told = || {
                let refused = flight.exchange.refusal().map(|words| (FailureClass::HttpStatus, words));
                let error = flight.exchange.reply().error.clone();
                refused.or_else(|| error.map(|words| (FailureClass::InStreamError, words)))
            };
            let told = if class == FailureClass::Cancelled { None } else { told() };
            let (class, detail) = told.unwrap_or((class, detail));
            let failure = Failure::new(class, detail);
            self.finish(flight, Some(failure), now);
        }
    }

    /// A request is over.
    pub(super) fn finish(&mut self, flight: InFlight, failure: Option<Failure>, at: u64) {
        let shared = self.shared;
        self.ended += 1;
        self.moved = self.moved.max(self.clock.now());
        let reply = flight.exchange.into_reply();
        let live = &shared.live;
        let ended = shared.spec.timing.end(flight.started, reply.last, at);
        if failure.is_some() {
            let failed = live.failed.fetch_add(1, Ordering::Relaxed) + 1;
            if shared.spec.max_failures.is_some_and(|most| failed >= most) {
                shared.give_up(GaveUp::TooManyFailures);
            }
        } else if let Some(first) = reply.first {
            live.ttft_sum_us.fetch_add(first.saturating_sub(flight.started) / 1000, Ordering::Relaxed);
            live.ttft_count.fetch_add(1, Ordering::Relaxed);
        }
        live.tokens
            .fetch_add(if failure.is_none() { reply.output_tokens().0 } else { reply.events }, Ordering::Relaxed);
        self.active -= 1;
        live.active.fetch_sub(1, Ordering::AcqRel);
        self.samples.push(Sample {
            index: flight.index,
            due: flight.due,
            started: flight.started,
            connected: flight.connected,
            ended,
            prompt_len: flight.prompt_len,
            output_len: flight.output_len,
            n: flight.n,
            reply,
            failure,
        });
        let done = live.done.fetch_add(1, Ordering::AcqRel) + 1;
        if shared.spec.arrival == Arrival::Burst && done == shared.allowed.load(Ordering::Acquire) {
            shared.allowed.fetch_add(shared.spec.max_concurrency.unwrap_or(u64::MAX / 2), Ordering::AcqRel);
            for waker in shared.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = waker.wake();
            }
        }
    }
}
