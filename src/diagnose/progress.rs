//! How far a client is, as its own output says: vLLM's progress bar, or a line of the built-in client.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::compile;

/// ` 42%|████▏     | 42/100 [00:07<00:09,  6.0it/s]`, as tqdm draws it.
static BAR: LazyLock<Regex> = LazyLock::new(|| compile(r"%\|[^|\r\n]*\| *([0-9]{1,15})/([0-9]{1,15})"));
/// `120 of 1000 requests after 20 s: …`.
static LINE: LazyLock<Regex> = LazyLock::new(|| compile(r"\b([0-9]{1,15}) of ([0-9]{1,15}) requests after "));

/// Requests that are over, and all of them, by the end of a client's log; `None` where it does not say so.
pub fn requests_done(end: &[u8]) -> Option<(u64, u64)> {
    end.rsplit(|byte| matches!(byte, b'\n' | b'\r')).find_map(|piece| {
        let found = BAR.captures(piece).or_else(|| LINE.captures(piece))?;
        let number = |group: usize| std::str::from_utf8(&found[group]).ok()?.parse::<u64>().ok();
        number(1).zip(number(2)).filter(|(done, of)| done <= of)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_lines_say_how_far_it_is_and_other_numbers_do_not() {
        for (log, expected) in [
            (
                "Starting main benchmark run...\n\r  0%|          | 0/100 [00:00<?, ?it/s]\r 42%|\u{2588}   | 42/100 [00:07<00:09]",
                Some((42, 100)),
            ),
            ("\r 50%|#####     | 5/10\n", Some((5, 10))),
            ("120 of 1000 requests after 20 s: 6.0 requests/s, 8 under way\n", Some((120, 1000))),
            ("warming up: 8 requests\n12/100 of something | 7/9\n", None),
            (" 90%|####| 11/10\n", None),
            ("", None),
        ] {
            assert_eq!(requests_done(log.as_bytes()), expected, "{log:?}");
        }
    }
}
