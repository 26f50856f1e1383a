//! Durations as users write them.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
