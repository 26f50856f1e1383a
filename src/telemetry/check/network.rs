//! The port of the server, and proxies in the way of it.

use serde_json::json;

use super::{CheckLine, listed};
use crate::safe;
use crate::telemetry::netport::PortHolder;
use crate::telemetry::probe::Environment;
use crate::words::{cut_chars, shell};

/// The names by which this program and vLLM's client reach a server of this machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "0.0.0.0"];
/// Longer command lines are cut.
const SHOWN_ARGV_CHARS: usize = 160;

/// Whether the port is free. `port` is absent with `--port auto`.
pub fn port(port: Option<u16>, holder: Option<&PortHolder>) -> CheckLine {
    const NAME: &str = "port";
    let Some(port) = port else {
        return CheckLine::ok(NAME, "a free port will be chosen (--port auto)", json!({ "port": "auto" }));
    };
    let Some(holder) = holder else {
        return CheckLine::ok(NAME, format!("port {port} is free"), json!({ "port": port, "free": true }));
    };
    let command = holder.argv.as_deref().map(shown_argv);
    let data = json!({ "port": port, "free": false, "pid": holder.pid, "uid": holder.uid, "command": command });
    let who = match (holder.pid, &command) {
        (Some(pid), Some(command)) => format!("process {pid} (`{command}`)"),
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => format!("a process of user {} that cannot be seen from here", holder.uid),
    };
    let next = "end it, or use --port auto or another --port";
    CheckLine::failure(NAME, format!("port {port} is taken by {who}"), next, data)
}

/// A command line fit to be shown and recorded: quoted, cut at 160 characters, and without the values of flags and
/// assignments that name a key, token, secret or password.
pub fn shown_argv(argv: &[String]) -> String {
    let words = safe::without_secrets(argv);
    let line = words.iter().map(|word| shown(word)).collect::<Vec<_>>().join(" ");
    cut_chars(&line, SHOWN_ARGV_CHARS)
}

fn shown(word: &str) -> String {
    let visible: String = word.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect();
    if visible.ends_with(safe::REDACTED) { visible } else { shell(&visible) }
}

/// Proxy variables against a bypass for this machine. The values are never shown: they may hold a password.
pub fn proxy(environment: &Environment) -> CheckLine {
    const NAME: &str = "proxy";
    let set = |name: &&str| environment.get(*name).is_some_and(|value| !value.trim().is_empty());
    let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let proxies: Vec<String> = names.iter().filter(|name| set(name)).map(|name| (*name).to_owned()).collect();
    if proxies.is_empty() {
        return CheckLine::ok(NAME, "no proxy is set", json!({ "proxies": [], "missing": [] }));
    }
    // Python and curl both let the lower-case name win.
    let bypass = ["no_proxy", "NO_PROXY"].iter().find(|name| set(name)).and_then(|name| environment.get(*name));
    let entries: Vec<String> =
        bypass.map(|list| list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).collect()).unwrap_or_default();
    let covered = |host: &str| entries.iter().any(|entry| entry == "*" || entry == host);
    let missing: Vec<String> = LOCAL.iter().filter(|host| !covered(host)).map(|host| (*host).to_owned()).collect();
    let data = json!({ "proxies": proxies, "missing": missing });
    if missing.is_empty() {
        return CheckLine::ok(NAME, format!("{} set, with a bypass for this machine", listed(&proxies)), data);
    }
    let message = format!(
        "{} set, but no_proxy lacks {}: requests to the server could go to the proxy (the scripts of vllm-bench export the \
         bypass anyway)",
        listed(&proxies),
        listed(&missing)
    );
    CheckLine::warning(NAME, message, format!("export no_proxy={}${{no_proxy:+,$no_proxy}}", LOCAL.join(",")), data)
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Failure, Ok, Warning};
    use super::*;

    fn argv(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn port_truth_table() {
        let holder = |pid, command: Option<&str>| PortHolder { pid, argv: command.map(argv), uid: 1000 };
        assert_eq!(port(None, None).level, Ok);
        assert_eq!(port(Some(8000), None).level, Ok);
        let line = port(Some(8000), Some(&holder(Some(7), Some("vllm serve m --api-key sk-planted"))));
        assert_eq!(
            (line.level, line.message.as_str()),
            (Failure, "port 8000 is taken by process 7 (`vllm serve m --api-key [redacted]`)")
        );
        assert!(!line.data.to_string().contains("planted"));
        let line = port(Some(8000), Some(&holder(None, None)));
        assert_eq!((line.level, line.message.contains("user 1000")), (Failure, true));
    }

    #[test]
    fn command_lines_are_shown_without_secrets() {
        for (given, shown) in [
            ("vllm serve a/b --port 8000", "vllm serve a/b --port 8000"),
            ("vllm --api-key k --port 1", "vllm --api-key [redacted] --port 1"),
            ("vllm --api-key=k", "vllm --api-key=[redacted]"),
            ("env HF_TOKEN=hf_x vllm", "env HF_TOKEN=[redacted] vllm"),
            ("vllm --hf-token --port 1", "vllm --hf-token --port 1"),
            ("vllm --max-num-batched-tokens 8192", "vllm --max-num-batched-tokens 8192"),
        ] {
            assert_eq!(shown_argv(&argv(given)), shown);
        }
        assert_eq!(shown_argv(&["a b".to_owned(), "x\ny".to_owned()]), "'a b' 'x?y'");
        let long = shown_argv(&vec!["ü".repeat(50); 9]);
        assert_eq!((long.chars().count(), long.ends_with('…')), (SHOWN_ARGV_CHARS, true));
    }

    #[test]
    fn proxy_truth_table() {
        const URL: &str = "http://user:planted@proxy:911";
        for (variables, level, missing) in [
            (&[][..], Ok, 0),
            (&[("http_proxy", "")], Ok, 0),
            (&[("no_proxy", "x")], Ok, 0),
            (&[("http_proxy", URL)], Warning, 3),
            (&[("HTTPS_PROXY", URL), ("no_proxy", "localhost,127.0.0.1")], Warning, 1),
            (&[("http_proxy", URL), ("no_proxy", "localhost, 127.0.0.1,0.0.0.0")], Ok, 0),
            (&[("http_proxy", URL), ("NO_PROXY", "LOCALHOST,127.0.0.1,0.0.0.0,.corp")], Ok, 0),
            (&[("http_proxy", URL), ("no_proxy", "x"), ("NO_PROXY", "localhost,127.0.0.1,0.0.0.0")], Warning, 3),
            (&[("all_proxy", URL), ("no_proxy", "*")], Ok, 0),
            (&[("http_proxy", URL), ("no_proxy", "notlocalhost,127.0.0.10,10.0.0.0")], Warning, 3),
        ] {
            let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let line = proxy(&environment);
            assert_eq!(line.level, level, "{variables:?}");
            assert_eq!(line.data["missing"].as_array().unwrap().len(), missing, "{variables:?}");
            assert!(!format!("{line:?}").contains("planted"));
        }
    }
}
