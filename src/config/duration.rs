//! Durations as users write them.

use std::time::Duration;

use crate::execute::StartLimit;

/// Reads `300`, `300s`, `5m`, `1.5h`, `250ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "" | "s" | "sec" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number = number.trim_end();
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let seconds = number.parse::<f64>().ok()? * factor;
    // A year is more than any sweep may wait.
    (seconds > 0.0 && seconds <= 366.0 * 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

/// Reads the limit of a start: a duration, and with a `+` behind it one that a start which makes progress may outlive.
pub fn parse_start_limit(text: &str) -> Option<StartLimit> {
    let text = text.trim();
    let (duration, extends) = text.strip_suffix('+').map_or((text, false), |duration| (duration, true));
    parse_duration(duration).map(|limit| StartLimit { limit, extends })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_makes_a_limit_that_progress_extends() {
        let limit = |seconds, extends| Some(StartLimit { limit: Duration::from_secs(seconds), extends });
        assert_eq!(parse_start_limit("300s"), limit(300, false));
        assert_eq!(parse_start_limit(" 5m+ "), limit(300, true));
        assert_eq!((parse_start_limit("+"), parse_start_limit("5m++"), parse_start_limit("+5m")), (None, None, None));
    }

    #[test]
    fn every_spelling_is_read() {
        for (text, ms) in
            [("300", 300_000), ("300s", 300_000), ("5m", 300_000), ("1.5h", 5_400_000), ("250ms", 250), (" 2 s ", 2000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-3", "0", "1e9", "nan", "inf", "5 minutes", "3s4", "99999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
