//! What a complete answer is worth. Pure.

use super::super::connection::InFlight;
use super::super::sample::{Failure, FailureClass};
use super::super::wire::Reply;

/// What a complete answer is worth.
pub(super) fn judge(flight: &InFlight, stream: bool) -> Option<Failure> {
    let reply: &Reply = flight.exchange.reply();
    if let Some(refusal) = flight.exchange.refusal() {
        return Some(Failure::new(FailureClass::HttpStatus, refusal));
    }
    if let Some(error) = &reply.error {
        return Some(Failure::new(FailureClass::InStreamError, error.clone()));
    }
    let asked = flight.output_len.map(|length| length.saturating_mul(u64::from(flight.n)));
    if let Some(why) = reply.implausible_usage(asked, flight.body.len() as u64) {
        return Some(Failure::new(FailureClass::Malformed, why));
    }
    let is_counted = reply.usage.is_some_and(|usage| usage.completion_tokens.is_some());
    if reply.output_tokens().0 == 0 && (is_counted || reply.finished > 0) {
        return Some(Failure::new(FailureClass::NoToken, "the answer has no token"));
    }
    if stream && reply.first.is_none() {
        return Some(Failure::new(FailureClass::Malformed, flight.exchange.without_token()));
    }
    if !stream && reply.samples == 0 {
        return Some(Failure::new(FailureClass::Malformed, "the answer has no choices"));
    }
    if stream && !reply.done && reply.finished < reply.samples {
        let detail =
            format!("the stream ended after {} tokens without [DONE] and without a finish_reason", reply.events);
        return Some(Failure::new(FailureClass::StreamBroken, detail));
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::super::wire::{Exchange, Expect};
    use super::*;

    const TOKEN: &str = r#"{"choices":[{"index":0,"text":"a","finish_reason":null}]}"#;
    const END: &str = r#"{"choices":[{"index":0,"text":"b","finish_reason":"length"}]}"#;
    const EMPTY_END: &str = r#"{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#;
    const DONE: &str = "[DONE]";

    /// A request for four tokens, of which nothing has come.
    pub fn flight(stream: bool) -> InFlight {
        let expect = Expect { stream, told: None, samples: 1, tokens: Some(4), keep_text: false, keep_headers: false };
        InFlight {
            index: 0,
            due: None,
            started: 0,
            sent: 0,
            connected: None,
            prompt_len: None,
            output_len: Some(4),
            n: 1,
            exchange: Exchange::new(expect),
            heard: 0,
            body: b"{}"[..].into(),
            reused: false,
        }
    }

    /// What is said of it when this has come for it.
    fn answered(stream: bool, status: &str, body: &str) -> Option<(FailureClass, String)> {
        let mut flight = flight(stream);
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        flight.exchange.push(text.as_bytes(), 1).unwrap();
        judge(&flight, stream).map(|failure| (failure.class, failure.detail))
    }

    fn stream(events: &[&str]) -> Option<(FailureClass, String)> {
        answered(true, "200 OK", &events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>())
    }

    fn class(judged: Option<(FailureClass, String)>) -> Option<FailureClass> {
        judged.map(|(class, _)| class)
    }

    #[test]
    fn an_answer_with_tokens_and_an_end_is_good() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        for events in [&[TOKEN, END, DONE][..], &[TOKEN, END], &[TOKEN, DONE], &[TOKEN, END, usage, DONE]] {
            assert_eq!(stream(events), None, "{events:?}");
        }
        let whole = r#"{"choices":[{"index":0,"text":"ab","finish_reason":"stop"}]}"#;
        assert_eq!(answered(false, "200 OK", whole), None);
    }

    #[test]
    fn what_is_no_answer_is_told_by_its_class() {
        let much = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":900}}"#;
        for (judged, expected) in [
            (answered(true, "503 Busy", "later"), FailureClass::HttpStatus),
            (stream(&[TOKEN, r#"{"error":{"message":"boom"}}"#]), FailureClass::InStreamError),
            (stream(&[TOKEN, END, much, DONE]), FailureClass::Malformed),
            (stream(&[EMPTY_END, DONE]), FailureClass::NoToken),
            (stream(&[DONE]), FailureClass::Malformed),
            (stream(&[TOKEN, TOKEN]), FailureClass::StreamBroken),
            (answered(false, "200 OK", r#"{"choices":[]}"#), FailureClass::Malformed),
        ] {
            assert_eq!(class(judged), Some(expected));
        }
        let (_, detail) = stream(&[TOKEN, TOKEN]).unwrap();
        assert!(detail.contains("2 tokens without [DONE]"), "{detail}");
    }

    /// What the server says of a refusal comes before what is missing in it.
    #[test]
    fn the_server_s_words_come_first() {
        assert_eq!(answered(true, "400 Bad", "no such model").unwrap().1, "HTTP 400: no such model");
        let (_, detail) = stream(&[r#"{"error":{"message":"boom"}}"#]).unwrap();
        assert_eq!(detail, r#"{"message":"boom"}"#);
    }
}
