//! The port of a server: free before the start, its own while it runs, free again afterwards.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::process::Members;
use crate::telemetry::check::shown_argv;
use crate::telemetry::netport;

/// How many ports are tried for `--port auto`.
const SEARCHED: u16 = 1000;
/// How often it is looked who listens on the port of a server that is measured.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watches that nobody but a server's own processes listens on its port. vLLM sets SO_REUSEPORT: another server of the
/// same user can join the port, and the kernel then gives it a part of the requests.
#[derive(Debug, Clone)]
pub struct PortWatch {
    port: u16,
    members: Members,
    /// Sockets that were found to be the server's: a look at others only costs reading the kernel's table.
    own: BTreeSet<u64>,
}

impl PortWatch {
    /// Watches the port of a server.
    pub fn new(port: u16, members: Members) -> Self {
        Self { port, members, own: BTreeSet::new() }
    }

    /// Who else listens on the port. A socket whose owner cannot be found is not the server's.
    pub fn foreign(&mut self) -> Option<String> {
        let root = Path::new("/");
        let unknown = |own: &BTreeSet<u64>| {
            let mut listeners = netport::listeners(root, self.port);
            listeners.retain(|listener| !own.contains(&listener.inode));
            listeners
        };
        if unknown(&self.own).is_empty() {
            return None;
        }
        let pids: Vec<i32> = self.members.find().iter().map(|stat| stat.pid).collect();
        // Read again: what a process of the server opened meanwhile is found with it, what it has closed is gone.
        let all = unknown(&BTreeSet::new());
        let foreign = netport::not_held_by(root, all.clone(), &pids);
        self.own = all.iter().filter(|listener| !foreign.contains(listener)).map(|listener| listener.inode).collect();
        netport::holder_among(root, &foreign).map(|holder| describe(&holder))
    }

    /// Waits until somebody else listens on the port, and says who.
    pub async fn foreign_appears(&mut self) -> String {
        loop {
            if let Some(foreign) = self.foreign() {
                return foreign;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a process of the server was seen to listen on the port.
    pub fn is_open(&self) -> bool {
        !self.own.is_empty()
    }

    /// Looks at the port after the server was ended, of which these processes are left: whether none of them has the port
    /// any more (`None` where that cannot be told), and who else has it.
    pub fn after_the_end(&self, left: &[i32]) -> (Option<bool>, Option<String>) {
        let root = Path::new("/");
        if !netport::listening_pids(root, self.port, left).is_empty() {
            return (Some(false), None);
        }
        let Some(holder) = netport::holder_of(root, self.port) else {
            // A socket that is bound and does not listen is in no table; only trying tells.
            return match holder(self.port) {
                None => (Some(true), None),
                Some(unknown) => (None, Some(unknown)),
            };
        };
        (holder.pid.is_some().then_some(true), Some(describe(&holder)))
    }
}

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
