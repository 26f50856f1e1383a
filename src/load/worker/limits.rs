//! Limits of time: of a request, of silence, of the whole workload.

use std::sync::PoisonError;
use std::time::Duration;

use super::super::sample::FailureClass;
use super::super::session::{ALONE, GaveUp};
use super::{REFUSAL, Worker, nanos};

impl Worker<'_> {
    pub(super) fn check_limits(&mut self, now: u64) {
        let limits = self.shared.spec.limits;
        if limits.total.is_some_and(|total| now >= nanos(total)) {
            return self.shared.give_up(GaveUp::TimeIsUp);
        }
        self.end_refusals(now);
        if limits.request.is_none() && limits.stall.is_none() {
            return;
        }
        if limits.stall.is_some_and(|limit| self.is_hung(limit, now)) {
            return self.shared.give_up(GaveUp::Hung);
        }
        for slot in 0..self.connections.len() {
            let Some(flight) = self.connections[slot].as_ref().and_then(|connection| connection.flight.as_ref()) else {
                continue;
            };
            let began = self.shared.spec.timing.limited_from(flight.started, flight.heard);
            let too_long = limits.request.filter(|limit| now.saturating_sub(began) > nanos(*limit));
            let silent = limits.stall.map(|limit| limit.saturating_mul(ALONE)).filter(|limit| {
                flight.exchange.reply().first.is_some() && now.saturating_sub(flight.heard) > nanos(*limit)
            });
            let tokens = flight.exchange.reply().events;
            let detail = match (too_long, silent) {
                (Some(limit), _) => {
                    format!("no end after {} s ({tokens} tokens): --request-timeout", limit.as_secs_f64())
                }
                (_, Some(limit)) => {
                    let limit = limit.as_secs_f64();
                    format!("no further token for {limit} s after {tokens} tokens: {ALONE} times --stall-timeout")
                }
                _ => continue,
            };
            self.fail(slot, FailureClass::Timeout, detail);
        }
    }

    /// A refused request is over, whether its body ends or not.
    fn end_refusals(&mut self, now: u64) {
        for slot in 0..self.connections.len() {
            let flight = self.connections[slot].as_ref().and_then(|connection| connection.flight.as_ref());
            let Some(exchange) = flight.map(|flight| &flight.exchange) else { continue };
            let is_late = exchange.reply().first_byte.is_some_and(|first| now.saturating_sub(first) > nanos(REFUSAL));
            if is_late && let Some(detail) = exchange.refusal() {
                self.fail(slot, FailureClass::HttpStatus, detail);
            }
        }
    }

    /// Whether a request of this worker has waited for the limit, and nothing has moved meanwhile: no token of any request,
    /// nor the counters of the server where it has some.
    fn is_hung(&self, limit: Duration, now: u64) -> bool {
        let Some(still_since) = self.shared.live.still_since(self.shared.spec.form.stream) else { return false };
        let flights = self.connections.iter().filter_map(|slot| slot.as_ref()?.flight.as_ref());
        let waits = flights.filter(|flight| flight.exchange.refusal().is_none()).map(|flight| flight.sent).min();
        waits.is_some_and(|sent| now.saturating_sub(sent.max(still_since)) > nanos(limit))
    }

    pub(super) fn give_up_all(&mut self) {
        let why = *self.shared.gave_up.lock().unwrap_or_else(PoisonError::into_inner);
        let (class, detail) = match why {
            Some(GaveUp::TimeIsUp) => {
                (FailureClass::Timeout, "under way at the limit of the whole workload".to_owned())
            }
            Some(GaveUp::Hung) => {
                let limit = self.shared.spec.limits.stall.unwrap_or_default().as_secs_f64();
                (FailureClass::Timeout, format!("no token of any request for {limit} s: --stall-timeout"))
            }
            Some(GaveUp::ServerGone | GaveUp::TooManyFailures) | None => {
                (FailureClass::Cancelled, "under way when the workload was ended".to_owned())
            }
        };
        for slot in 0..self.connections.len() {
            if self.connections[slot].as_ref().is_some_and(|connection| connection.flight.is_some()) {
                self.fail(slot, class, detail.clone());
            }
        }
    }
}
