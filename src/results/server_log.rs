//! What vLLM's log says of its work: the mean of its lines about throughput. Read as a stream of bytes, only when asked for.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::analyse::{Row, RunTable};

/// A line beyond this is cut: none that is looked for is as long.
const LONGEST: usize = 1 << 16;

/// The metrics of a line. Between them vLLM may have others (`Preemptions: 3`, external and multi-modal caches).
static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"Avg generation throughput: [0-9.]+ tokens/s.*?Running: (\d+) reqs.*?Waiting: (\d+) reqs(?:.*?GPU KV cache usage: ([0-9.]+)%)?(?:.*?Prefix cache hit rate: ([0-9.]+)%)?").ok()
});

/// Keys of the four metrics, in the order of the line.
const KEYS: [&str; 4] = ["avg_running_reqs", "avg_waiting_reqs", "avg_gpu_kvc_usage", "avg_prefix_cache_hit_rate"];

/// Reads the logs of the servers for rows that do not have these metrics yet: the part that was written during the measurement. Of one
/// that served several measurements and whose parts nobody recorded nothing can be said.
pub fn add_server_logs(table: &mut RunTable) {
    let mut served: HashMap<PathBuf, usize> = HashMap::new();
    let log = |row: &Row| Some(row.about.directory.join(row.about.server_log.as_ref()?));
    for path in table.rows.iter().filter_map(log) {
        *served.entry(path).or_default() += 1;
    }
    for row in &mut table.rows {
        let span = row.about.server_log_span;
        let is_known = |path: &PathBuf| span.is_some() || served.get(path) == Some(&1);
        let Some(path) = log(row).filter(|path| row.is_valid() && is_known(path)) else { continue };
        for (key, value) in averages(&path, span) {
            row.about.further.insert_new(key, value);
        }
    }
}

/// The means of a log; nothing where it cannot be read or says nothing. Lines of an idle server do not count.
fn averages(path: &Path, span: Option<[u64; 2]>) -> BTreeMap<&'static str, f64> {
    let part = || {
        let mut file = crate::bounded::open(path)?;
        let [from, to] = span.unwrap_or([0, u64::MAX]);
        file.seek(SeekFrom::Start(from))?;
        Ok::<_, std::io::Error>(file.take(to.saturating_sub(from)))
    };
    part().map_or_else(|_| BTreeMap::new(), |part| averages_of(BufReader::with_capacity(1 << 16, part)))
}

#[expect(clippy::cast_precision_loss, reason = "lines of a log")]
fn averages_of(mut log: impl BufRead) -> BTreeMap<&'static str, f64> {
    let mut sums = [(0.0, 0usize); 4];
    let mut line = Vec::new();
    while let Ok(true) = next_line(&mut log, &mut line) {
        let Some(values) = metrics(&line) else { continue };
        for (sum, value) in sums.iter_mut().zip(values) {
            if let Some(value) = value {
                *sum = (sum.0 + value, sum.1 + 1);
            }
        }
    }
    let means = KEYS.into_iter().zip(sums).filter(|(_, (_, n))| *n > 0);
    means.map(|(key, (sum, n))| (key, sum / n as f64)).collect()
}

/// The next line, cut at [`LONGEST`]; `false` at the end.
fn next_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    loop {
        let buffer = log.fill_buf()?;
        if buffer.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(LONGEST.saturating_sub(line.len()))]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        log.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The metrics of one line; `None` where it is none, or the server was idle.
fn metrics(line: &[u8]) -> Option<[Option<f64>; 4]> {
    memchr::memmem::find(line, b"Running: ")?;
    let line = without_colours(line);
    let found = LINE.as_ref()?.captures(&line)?;
    let value = |group: usize| std::str::from_utf8(found.get(group)?.as_bytes()).ok()?.parse::<f64>().ok();
    let values = [value(1), value(2), value(3), value(4)];
    let busy = values[..2].iter().flatten().any(|value| *value > 0.0);
    busy.then_some(values)
}

/// The line without escape sequences, which may stand between a word and its number.
fn without_colours(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == 0x1b && bytes.next_if_eq(&b'[').is_some() {
            while bytes.next().is_some_and(|byte| !(b'@'..=b'~').contains(&byte)) {}
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::results::server_log::*;

    #[test]
    fn idle_lines_do_not_pull_the_averages_down() {
        let log: &[u8] = b"\x1b[0;36m(APIServer pid=3093)\x1b[0;0m INFO 11-22 06:13:39 [loggers.py:257] Engine 000: Avg prompt throughput: 10.5 tokens/s, \
            Avg generation throughput: 20.0 tokens/s, Running: 46 reqs, Waiting: 4 reqs, GPU KV cache usage: 30.5%, Prefix cache hit rate: 10.0%\n\
            \xff\xfe no text\n\
            (APIServer pid=3093) INFO Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, Running: 0 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.0%, Prefix cache hit rate: 10.0%\n\
            INFO Engine 000: Avg prompt throughput: 1.0 tokens/s, Avg generation throughput: 2.0 tokens/s, \x1b[1mRunning: \x1b[0m54 reqs, Waiting: 0 reqs, Preemptions: 3, GPU KV cache usage: 49.5%, Prefix cache hit rate: 20.0%, External prefix cache hit rate: 99.0%\n\
            INFO Engine 000: Avg prompt throughput: 1.0 tokens/s, Avg generation throughput: 2.0 tokens/s, Running: 50 reqs, Waiting: 2 reqs";
        let found = averages_of(log);
        let expected = [
            ("avg_running_reqs", 50.0),
            ("avg_waiting_reqs", 2.0),
            ("avg_gpu_kvc_usage", 40.0),
            ("avg_prefix_cache_hit_rate", 15.0),
        ];
        assert_eq!(found, expected.into_iter().collect());
    }

    #[test]
    fn a_log_that_says_nothing_or_never_ends_a_line_yields_nothing() {
        assert_eq!(averages_of(&b""[..]), BTreeMap::new());
        assert_eq!(averages_of(&b"Running: 4 reqs"[..]), BTreeMap::new());
        let endless = vec![b'x'; 3 * LONGEST];
        assert_eq!(averages_of(&endless[..]), BTreeMap::new());
        assert_eq!(averages(Path::new("/nowhere"), None), BTreeMap::new());
    }

    #[test]
    fn of_a_log_that_served_several_measurements_each_has_its_own_part() {
        let line = |running: u32| {
            format!(
                "INFO Engine 000: Avg prompt throughput: 1.0 tokens/s, Avg generation throughput: 2.0 tokens/s, Running: {running} reqs, \
                 Waiting: 0 reqs, GPU KV cache usage: 5.0%, Prefix cache hit rate: 0.0%\n"
            )
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), line(10) + &line(30)).unwrap();
        let length = line(10).len() as u64;
        let running = |span| averages(file.path(), span)["avg_running_reqs"];
        assert_eq!(running(Some([0, length])), 10.0);
        assert_eq!(running(Some([length, 2 * length])), 30.0);
        assert_eq!(running(None), 20.0);
    }
}
