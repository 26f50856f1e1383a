//! The port of a server: free before the start, its own while it runs, free again afterwards.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

use super::Error;
use crate::telemetry::check::shown_argv;
use crate::telemetry::netport;

/// How many ports are tried for `--port auto`.
const SEARCHED: u16 = 1000;

/// Whether anybody listens on a port, by the kernel's tables and by trying to bind it (a socket in another network
/// namespace that shares the address shows only there).
pub fn holder(port: u16) -> Option<String> {
    if let Some(holder) = netport::holder_of(Path::new("/"), port) {
        return Some(describe(&holder));
    }
    // vLLM sets SO_REUSEADDR and so does std: connections in TIME_WAIT do not count as taken.
    match TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => None,
        Err(error) => Some(format!("an unknown process ({error})")),
    }
}

fn describe(holder: &netport::PortHolder) -> String {
    match (holder.pid, &holder.argv) {
        (Some(pid), Some(argv)) => {
            format!("process {pid} (`{}`)", shown_argv(argv))
        }
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => format!("a process of user {} (not visible here)", holder.uid),
    }
}

/// The given port, if it is free.
///
/// # Errors
/// [`Error::PortTaken`] with its holder.
pub fn require_free(port: u16) -> Result<u16, Error> {
    match holder(port) {
        None => Ok(port),
        Some(holder) => Err(Error::PortTaken { port, holder }),
    }
}

/// The first free port from `from` on for which `claim` succeeds.
///
/// # Errors
/// [`Error::NoFreePort`].
pub fn find_free<T>(from: u16, mut claim: impl FnMut(u16) -> Option<T>) -> Result<(u16, T), Error> {
    (from..from.saturating_add(SEARCHED))
        .filter(|port| holder(*port).is_none())
        .find_map(|port| Some((port, claim(port)?)))
        .ok_or(Error::NoFreePort { from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = require_free(port).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} is taken by process {}", std::process::id())), "{error}");
        let (free, ()) = find_free(port, |_| Some(())).unwrap();
        assert!(free > port);
    }
}
