//! What carries a log from the server to a file, and what it puts around each line: container runtimes, Kubernetes, journald,
//! schedulers, cloud consoles. The line of the server is what stands behind it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::bytes::Regex;

use super::compile;

/// How many carriers may lie around each other: a pod's prefix, a runtime's, a scheduler's, a terminal's frame.
const DEPTH: usize = 5;

/// One carrier at the start of a line.
static CARRIER: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        // k9s and other terminals draw a frame; issue threads quote.
        r"^(?:(?:│|┃) ?",
        r"|> ",
        // kubectl --prefix, stern.
        r"|\[pod/[^\]]+\] ",
        r"|[a-z0-9-]+-[a-f0-9]{8,10}-[a-z0-9]{5} [a-z0-9-]+ (?:› ?)?",
        // RunPod.
        r"|[a-z0-9]{8,}\[(?:info|error|warning|warn|debug)\] ?",
        // mpirun, srun --label.
        r"|\[\d+,\d+\]<std(?:out|err)>: ?",
        r"| ?\d{1,4}: ",
        // PowerShell around a program's standard error.
        r"|docker(?:\.exe)? : ",
        // journald and syslog (with and without a year), the kernel's ring.
        r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ [\w@./-]+(?:\[\d+\])?: ?",
        r"|[\w.-]+ (?:[\w@./-]+\[\d+\]|kernel): ?",
        // CRI, `docker logs -t`, Docker Desktop, loguru, Python's logging, Lemonade.
        r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,]*(?:Z|[+-]\d\d:?\d\d)?\]?",
        r"(?: (?:stdout|stderr) [FP] | \| [A-Z]+ *\| [^|]*? - | - [\w.]+ - [A-Z]+ - | \| | \[\w+\] \(\w+\) |[ \t]|$)",
        // A colour whose escape byte and bracket got lost.
        r"|\d{1,2}m",
        // Docker compose.
        r"|[\w.-]+ *\| ?",
        // Members of an exception group.
        r"| +(?:\| |\+-\+-+ |\+ )",
        r")",
    ))
});

/// Takes off what carried a line here. Levels that a carrier names say nothing: it calls all of standard error an error, or
/// all of a program's output an information.
pub(super) fn uncarry(line: &[u8]) -> &[u8] {
    let mut body = line;
    for _ in 0..DEPTH {
        let Some(found) = CARRIER.find(body) else { break };
        let framed = body.starts_with("│".as_bytes()) || body.starts_with("┃".as_bytes());
        body = &body[found.end()..];
        if framed {
            body = unframe(body);
        }
    }
    body
}

fn unframe(line: &[u8]) -> &[u8] {
    let trimmed = line.trim_ascii_end();
    ["│", "┃"].iter().find_map(|edge| trimmed.strip_suffix(edge.as_bytes())).unwrap_or(trimmed).trim_ascii_end()
}

/// The lines of the server that one line of a file holds: a JSON record holds one or several, and where a console wrote
/// line ends as `\n`, several stand on one line. UTF-16 (a file that PowerShell redirected into) loses its zero bytes.
pub(super) fn unwrap(line: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let line: Cow<'_, [u8]> = if line.contains(&0) {
        Cow::Owned(line.iter().copied().filter(|byte| !matches!(byte, 0 | 0xfe | 0xff)).collect())
    } else {
        Cow::Borrowed(line)
    };
    if let Some(text) = json_text(&line) {
        return text.lines().map(|line| Cow::Owned(line.as_bytes().to_vec())).collect();
    }
    if !is_escaped(&line) {
        return vec![line];
    }
    let text = unescape(&line);
    text.split(|byte| *byte == b'\n')
        .filter(|piece| !piece.is_empty())
        .map(|piece| Cow::Owned(piece.to_vec()))
        .collect()
}

/// What a JSON record of a log driver or shipper carries.
fn json_text(line: &[u8]) -> Option<String> {
    const KEYS: [&str; 8] = ["log", "message", "msg", "MESSAGE", "textPayload", "text", "body", "line"];
    let trimmed = line.trim_ascii();
    if !(trimmed.starts_with(b"{") && trimmed.ends_with(b"}")) {
        return None;
    }
    let record: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(trimmed).ok()?;
    KEYS.iter().find_map(|key| record.get(*key)?.as_str().map(str::to_owned))
}

/// Whether line ends are written out: at the end of the line, or within what is a whole traceback.
fn is_escaped(line: &[u8]) -> bool {
    static SEVERAL: LazyLock<Regex> =
        LazyLock::new(|| compile(r#"Traceback \(most recent call last\):\\n|\\n\s*File \\?"|(?:\\n.*){3}"#));
    let trimmed = line.trim_ascii_end();
    trimmed.ends_with(b"\\n") || trimmed.ends_with(b"\\n\"") || (find(trimmed, b"\\n") && SEVERAL.is_match(trimmed))
}

fn find(line: &[u8], needle: &[u8]) -> bool {
    line.windows(needle.len()).any(|window| window == needle)
}

/// `\n`, `\t` and `\"` as what they stand for; other backslashes stay.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(line.len());
    let mut rest = line.iter();
    while let Some(&byte) = rest.next() {
        let meant = match (byte, rest.as_slice().first()) {
            (b'\\', Some(b'n')) => b'\n',
            (b'\\', Some(b't')) => b'\t',
            (b'\\', Some(b'"')) => b'"',
            (b'\\', Some(b'\'')) => b'\'',
            _ => {
                text.push(byte);
                continue;
            }
        };
        rest.next();
        text.push(meant);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "(EngineCore pid=7) ERROR 11-22 06:13:38 [core.py:97]   File \"x.py\"";

    #[test]
    fn the_line_is_what_stands_behind_its_carriers() {
        for carrier in [
            "",
            "2025-05-16T13:12:16.645427617Z stderr F ",
            "2025-05-16T13:12:16.645427617+02:00 stdout P ",
            "2025-05-16T13:12:16.645427617Z ",
            "2025-05-30 18:28:27.800 | ",
            "vllm-1  | ",
            "[pod/vllm-7d9f8b6c5d-abcde/vllm] ",
            "vllm-7d9f8b6c5d-abcde vllm ",
            "[pod/vllm-7d9f8b6c5d-abcde/vllm] 2025-05-16T13:12:16.645427617Z ",
            "Aug 19 18:34:27 host1 vllm[8727]: ",
            "Aug  9 18:34:27 host1 docker/vllm[8727]: ",
            "2025-08-19T18:34:27+0200 host1 vllm[8727]: ",
            "abcdefgh12345[info]",
            "[1,0]<stderr>: ",
            "0: ",
            " 12: ",
            "> ",
            "docker : ",
            "[2025-05-30 18:28:27] ",
            "2025-08-01 12:00:00.123 | ERROR    | app.server:start:12 - ",
            "2026-06-01T13:18:12+08:00 - gpustack.worker - WARNING - ",
            "2025-06-27 12:57:51,690 - __main__ - INFO - ",
            "36m",
        ] {
            let line = format!("{carrier}{LINE}");
            assert_eq!(String::from_utf8_lossy(uncarry(line.as_bytes())), LINE, "`{carrier}`");
        }
        let framed = format!("│ {LINE}          │");
        assert_eq!(String::from_utf8_lossy(uncarry(framed.as_bytes())), LINE);
    }

    #[test]
    fn records_and_written_out_line_ends_are_unwrapped() {
        let pieces = |line: &str| -> Vec<String> {
            unwrap(line.as_bytes()).iter().map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
        };
        assert_eq!(pieces(r#"{"log":"ValueError: \"x\"\n","stream":"stderr","time":"2025"}"#), ["ValueError: \"x\""]);
        assert_eq!(pieces(r#"{"level":"error","msg":"a\nb"}"#), ["a", "b"]);
        assert_eq!(pieces(r#"{"no":"text"}"#), [r#"{"no":"text"}"#]);
        assert_eq!(pieces(r"id[info]ValueError: x\n"), ["id[info]ValueError: x"]);
        assert_eq!(
            pieces(r#"Traceback (most recent call last):\n  File \"x\"\nValueError: 'y'"#),
            ["Traceback (most recent call last):", "  File \"x\"", "ValueError: 'y'"]
        );
        assert_eq!(
            pieces(r"RuntimeError: Worker failed with error 'a\nb'"),
            [r"RuntimeError: Worker failed with error 'a\nb'"]
        );
        let wide: Vec<u8> = "ValueError: x".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(unwrap(&wide)[0].as_ref(), b"ValueError: x");
    }
}
