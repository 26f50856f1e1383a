//! Numbers and names as the commands around a run show them.

use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset, Local, Offset, Utc};
use chrono_tz::Tz;

use crate::error::Error;
use crate::fold::{fold, width};
use crate::safe::is_harmful;
use crate::words;
pub use crate::words::{counted as count, duration as seconds, shell as word};

/// `1.5 GB`: decimal units, as disks are sold.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `2026-02-25 14:30:00 +02:00`: a moment as a wall clock in that zone shows it, with its offset.
pub fn moment(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// What tells the stamps of logs, which are this machine's, from the times of a run, of which `at` is one; `None` where they are the same.
pub fn log_times(at: DateTime<FixedOffset>) -> Option<String> {
    between_clocks(at.with_timezone(&Local).offset().fix(), *at.offset())
}

fn between_clocks(machine: FixedOffset, run: FixedOffset) -> Option<String> {
    let ahead = run.local_minus_utc() - machine.local_minus_utc();
    let minutes = ahead.abs() / 60;
    let far = match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    };
    let which = if ahead > 0 { "behind" } else { "ahead of" };
    (minutes > 0).then(|| format!("stamps in logs are {far} {which} the times of this run ({machine} and {run})"))
}

/// Text from outside on one line: control characters and direction overrides become spaces.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).collect()
}

/// At most `width` columns; what is too long loses its end.
pub fn cut_end(text: &str, width: usize) -> String {
    words::cut_end(&plain(text), width)
}

/// At most `width` columns; what is too long loses its middle, because names differ at their ends.
pub fn cut_middle(text: &str, width: usize) -> String {
    words::cut_middle(&plain(text), width)
}

/// Parts side by side, on as many lines as they need: none is wider than `columns`, as far as words, paths and commands allow.
pub fn packed<'p>(parts: impl IntoIterator<Item = &'p str>, gap: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if width(line) + gap.len() + width(part) <= columns => {
                line.push_str(gap);
                line.push_str(part);
            }
            _ => lines.extend(fold(part, columns).lines().map(|line| line.trim_end().to_owned())),
        }
    }
    lines
}

/// A path as the user would write it from `from`.
pub fn path(path: &Path, from: &Path) -> String {
    let shown = match path.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("."),
        Ok(rest) => Path::new(".").join(rest),
        Err(_) => path.to_owned(),
    };
    plain(&shown.to_string_lossy())
}

/// The command that goes on with a run, as one would type it here.
pub fn resume(run: &Path, environment: &crate::config::Environment) -> String {
    let here = environment.working_directory();
    let path = run.strip_prefix(here).unwrap_or(run).to_string_lossy().into_owned();
    format!("vllm-bench run --resume {}", word(&path))
}

/// A user's name, or the number where it has none.
pub fn user(uid: u32) -> String {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// Whether nobody reads standard output any more (`vllm-bench logs | head`): a command that follows something ends.
pub fn stdout_is_gone() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL))
}

/// `3%`, `0.03`.
pub fn percent(flag: &str, text: &str) -> Result<f64, Error> {
    let number = match text.trim().strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|number| number / 100.0),
        None => text.trim().parse::<f64>(),
    };
    number.ok().filter(|number| (0.0..1.0).contains(number)).ok_or_else(|| Error::Usage {
        message: format!(
            "invalid value `{}` for `{flag}`: expected a part below 1, such as `3%` or `0.03`",
            text.escape_debug()
        ),
        hint: format!("write `{flag} 3%`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(
            [0, 999, 1000, 999_949, 999_950, 1_500_000_000, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 GB", "18446.7 PB"]
        );
        assert_eq!(
            [-1.0, 0.4, 59.9, 60.0, 3599.0, 3600.0, 90_000.0, f64::NAN, f64::INFINITY].map(seconds),
            ["0 s", "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 d 1 h", "0 s", "0 s"]
        );
    }

    #[test]
    fn times_have_their_offset_and_those_of_logs_are_told_apart() {
        let at = DateTime::parse_from_rfc3339("2026-02-25T12:30:00Z").unwrap().to_utc();
        assert_eq!(moment(at, chrono_tz::Asia::Jerusalem), "2026-02-25 14:30:00 +02:00");
        let offset = |minutes: i32| FixedOffset::east_opt(minutes * 60).unwrap();
        let told = "stamps in logs are 2 h behind the times of this run (+00:00 and +02:00)";
        assert_eq!(between_clocks(offset(0), offset(120)).as_deref(), Some(told));
        let told = "stamps in logs are 5 h 30 min ahead of the times of this run (+05:30 and +00:00)";
        assert_eq!(between_clocks(offset(330), offset(0)).as_deref(), Some(told));
        assert_eq!(between_clocks(offset(60), offset(60)), None);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(cut_middle("openai_gpt-oss-20b_tp2_quant-none_eager-true", 21), "openai_gpt…eager-true");
        assert_eq!(cut_end("a\nb\u{1b}[31mc", 20), "a b [31mc");
        assert_eq!(cut_end("模型模型模型", 7), "模型模…");
    }
}
