//! Lines as vLLM prints them: its prefix with the process, its time stamp, its source position.

use std::io::Write;
use std::sync::Mutex;

/// Which process of vLLM a line comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A line without prefix.
    Bare,
    /// `(Name pid=N)`.
    Process {
        /// Its name in the log, such as `APIServer`.
        name: String,
        /// Its process id.
        pid: u32,
    },
}

/// Writes the log of a simulated vLLM. Errors of the stream are ignored: who reads the log may have gone.
pub struct Log {
    out: Mutex<Box<dyn Write + Send>>,
    colour: bool,
}

impl Log {
    /// A log on standard output; with colours unless `NO_COLOR` is set, as vLLM does even into files.
    pub fn stdout() -> Log {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Log { out: Mutex::new(Box::new(std::io::stdout())), colour }
    }

    /// A log without colours into a writer.
    pub fn into(out: impl Write + Send + 'static) -> Log {
        Log { out: Mutex::new(Box::new(out)), colour: false }
    }

    /// Writes bytes as they are; false when the stream is gone.
    pub fn raw(&self, bytes: &[u8]) -> bool {
        match self.out.lock() {
            Ok(mut out) => out.write_all(bytes).and_then(|()| out.flush()).is_ok(),
            Err(_) => false,
        }
    }

    fn prefix(&self, source: &Source) -> String {
        match source {
            Source::Bare => String::new(),
            Source::Process { name, pid } if self.colour => format!("\x1b[0;36m({name} pid={pid})\x1b[0;0m "),
            Source::Process { name, pid } => format!("({name} pid={pid}) "),
        }
    }

    /// Text of one or more lines, each with the prefix of its process.
    pub fn plain(&self, source: &Source, text: &str) {
        let prefix = self.prefix(source);
        let lines: String = text.lines().map(|line| format!("{prefix}{line}\n")).collect();
        self.raw(lines.as_bytes());
    }

    /// `LEVEL MM-DD HH:MM:SS [place] text`, for each line of the text.
    pub fn line(&self, source: &Source, level: &str, place: &str, text: &str) {
        let stamp = chrono::Local::now().format("%m-%d %H:%M:%S");
        let head = format!("{}{level} {stamp} [{place}] ", self.prefix(source));
        let lines: String = text.lines().map(|line| format!("{head}{line}\n")).collect();
        self.raw(lines.as_bytes());
    }

    /// An INFO line.
    pub fn info(&self, source: &Source, place: &str, text: &str) {
        self.line(source, "INFO", place, text);
    }
}

/// A whole number with a comma every three digits, as vLLM shows tokens.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_have_commas() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(2_097_152), "2,097,152");
        assert_eq!(thousands(100_000), "100,000");
    }
}
