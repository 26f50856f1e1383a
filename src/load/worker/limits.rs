//! Limits of time: of a request, of silence, of the whole workload.

use std::sync::PoisonError;
use std::time::Duration;

use super::super::connection::InFlight;
use super::super::sample::FailureClass;
use super::super::session::{ALONE, GaveUp, Limits};
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
            if let Some(detail) = overdue(&limits, flight, began, now) {
                self.fail(slot, FailureClass::Timeout, detail);
            }
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

/// Why a request has no more time at `now`, if it has none; `began`: when the time of its own limit began.
fn overdue(limits: &Limits, flight: &InFlight, began: u64, now: u64) -> Option<String> {
    let reply = flight.exchange.reply();
    let tokens = reply.events;
    if let Some(limit) = limits.request.filter(|limit| now.saturating_sub(began) > nanos(*limit)) {
        return Some(format!("no end after {} s ({tokens} tokens): --request-timeout", limit.as_secs_f64()));
    }
    let alone = limits.stall?.saturating_mul(ALONE);
    let is_silent = reply.first.is_some() && now.saturating_sub(flight.heard) > nanos(alone);
    is_silent.then(|| {
        let alone = alone.as_secs_f64();
        format!("no further token for {alone} s after {tokens} tokens: {ALONE} times --stall-timeout")
    })
}

#[cfg(test)]
mod tests {
    use super::super::judge::tests::flight;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_request_has_its_own_limit_and_one_of_silence() {
        let limit = |request: Option<u64>, stall: Option<u64>| Limits {
            request: request.map(Duration::from_secs),
            stall: stall.map(Duration::from_secs),
            total: None,
        };
        let mut begun = flight(true);
        begun.exchange.push(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", 1).unwrap();
        let waiting = overdue(&limit(Some(10), Some(1)), &begun, 0, 10 * SECOND);
        assert_eq!(waiting, None, "no token yet: it may be queued");
        begun.exchange.push(b"data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\n", SECOND).unwrap();
        begun.heard = SECOND;
        for (limits, now, expected) in [
            (limit(None, None), 1000 * SECOND, None),
            (limit(Some(10), None), 10 * SECOND, None),
            (limit(Some(10), None), 10 * SECOND + 1, Some("no end after 10 s (1 tokens)")),
            (limit(None, Some(2)), 11 * SECOND, None),
            (limit(None, Some(2)), 11 * SECOND + 1, Some("no further token for 10 s after 1 tokens: 5 times")),
            (limit(Some(3), Some(1)), 9 * SECOND, Some("no end after 3 s")),
        ] {
            let found = overdue(&limits, &begun, 0, now);
            let fits = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(fits, "{limits:?} at {now}: {found:?}");
        }
        // Where the time of its limit begins anew with each token.
        assert_eq!(overdue(&limit(Some(10), None), &begun, SECOND, 11 * SECOND), None);
    }
}
