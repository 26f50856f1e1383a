//! The port of a server: free before the start, its own while it runs, free again afterwards.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use crate::process::Members;
use crate::telemetry::check::shown_argv;
use crate::telemetry::netport::{self, Listener, OnPort, PortHolder};

/// How many ports are tried for `--port auto`.
const SEARCHED: u16 = 1000;
/// How often it is looked who has sockets on the port of a server that is measured: at most, and at least where a look costs
/// much.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// One part in so many of the time is spent on looking.
const LOOK_PART: u32 = 50;

/// Watches that nobody but a server's own processes listens on its port, or has accepted connections there. vLLM sets
/// SO_REUSEPORT: another server of the same user can join the port, and the kernel then gives it a part of the requests.
#[derive(Debug, Clone)]
pub struct PortWatch {
    port: u16,
    members: Members,
    sockets: Sockets,
}

/// What is known of the sockets on a server's port.
#[derive(Debug, Clone, Default)]
struct Sockets {
    /// Connections from before the server: no measurement goes over them.
    earlier: BTreeSet<u64>,
    /// Those that were found to be the server's: a look at no others only costs a question to the kernel.
    own: BTreeSet<u64>,
    /// Connections whose owner was not found at the last look.
    unowned: BTreeSet<u64>,
    /// One of its own listens.
    open: bool,
}

impl Sockets {
    /// Who else than the members of a group has a socket on the port.
    fn stranger(&mut self, root: &Path, port: u16, members: impl Fn() -> Vec<i32>) -> Option<PortHolder> {
        let OnPort { listening, connected } = netport::on_port(root, port);
        let there: BTreeSet<u64> = listening.iter().chain(&connected).map(|socket| socket.inode).collect();
        self.own.retain(|inode| there.contains(inode));
        let is_strange = |socket: &Listener| !self.own.contains(&socket.inode) && !self.earlier.contains(&socket.inode);
        let strange: Vec<Listener> =
            listening.iter().chain(&connected).filter(|socket| is_strange(socket)).cloned().collect();
        let unheld =
            if strange.is_empty() { Vec::new() } else { netport::not_held_by(root, strange.clone(), &members()) };
        self.own.extend(strange.iter().filter(|socket| !unheld.contains(socket)).map(|socket| socket.inode));
        self.open = listening.iter().any(|socket| self.own.contains(&socket.inode));
        // One that listens is believed although it may be gone by now: what it has accepted stays.
        let (listeners, connections): (Vec<_>, Vec<_>) =
            unheld.into_iter().partition(|socket| listening.contains(socket));
        let before = std::mem::replace(&mut self.unowned, connections.iter().map(|socket| socket.inode).collect());
        netport::holder_among(root, &listeners).or_else(|| {
            // A connection comes and goes: the server may have accepted or closed it while it was looked for.
            connections.iter().find_map(|socket| {
                let holder = netport::holder_among(root, std::slice::from_ref(socket))?;
                let is_foreign = match holder.pid {
                    Some(pid) => !members().iter().any(|member| u32::try_from(*member) == Ok(pid)),
                    None => before.contains(&socket.inode),
                };
                is_foreign.then_some(holder)
            })
        })
    }
}

impl PortWatch {
    /// Watches the port of a server that was just launched.
    pub fn new(port: u16, members: Members) -> Self {
        let earlier = netport::on_port(Path::new("/"), port).connected.iter().map(|socket| socket.inode).collect();
        Self { port, members, sockets: Sockets { earlier, ..Sockets::default() } }
    }

    /// Who else listens on the port, or serves connections there. A listening socket whose owner cannot be found is not the
    /// server's.
    pub fn foreign(&mut self) -> Option<String> {
        let members = || self.members.find().iter().map(|stat| stat.pid).collect();
        self.sockets.stranger(Path::new("/"), self.port, members).map(|holder| describe(&holder))
    }

    /// Waits until somebody else has a socket on the port, and says who.
    pub async fn foreign_appears(&mut self) -> String {
        loop {
            let began = Instant::now();
            if let Some(foreign) = self.foreign() {
                return foreign;
            }
            tokio::time::sleep((began.elapsed() * LOOK_PART).clamp(LOOK_EVERY[0], LOOK_EVERY[1])).await;
        }
    }

    /// Whether a process of the server was seen to listen on the port.
    pub fn is_open(&self) -> bool {
        self.sockets.open
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
    bind(port).err().map(|error| format!("an unknown process ({error})"))
}

/// vLLM sets SO_REUSEADDR and so does std: connections in TIME_WAIT do not count as taken.
fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

/// Whether a port is taken: [`holder`] without looking for who it is, which takes a look at every process.
pub fn is_taken(port: u16) -> bool {
    bind(port).is_err() || !netport::listeners(Path::new("/"), port).is_empty()
}

fn describe(holder: &PortHolder) -> String {
    match (holder.pid, &holder.argv) {
        (Some(pid), Some(argv)) => {
            format!("process {pid} (`{}`)", shown_argv(argv))
        }
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => format!("a process of user {} (not visible here, or gone by now)", holder.uid),
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

/// The first free port from `from` on for which `claim` succeeds. It is claimed before it is looked at: nobody tries a port for a moment
/// that another run of this program is about to use.
///
/// # Errors
/// [`Error::NoFreePort`].
pub fn find_free<T>(from: u16, mut claim: impl FnMut(u16) -> Option<T>) -> Result<(u16, T), Error> {
    (from..from.saturating_add(SEARCHED))
        .find_map(|port| claim(port).filter(|_| !is_taken(port)).map(|claimed| (port, claimed)))
        .ok_or(Error::NoFreePort { from })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture::Tree;

    const LISTENS: &str = "0A";
    const CONNECTED: &str = "01";
    const TIME_WAIT: &str = "06";

    /// A recorded table of port 8000 (1F40).
    fn table(tree: &Tree, sockets: &[(&str, u64)]) {
        let lines = sockets.iter().enumerate().map(|(row, (state, inode))| {
            let times = "00000000:00000000 00:00000000 00000000  1000        0";
            format!("   {row}: 0100007F:1F40 0100007F:9C40 {state} {times} {inode} 1 0 20 4 30 10 -1\n")
        });
        tree.file("proc/net/tcp", &lines.collect::<String>());
    }

    /// The server is process 50 and listens with socket 777.
    fn served() -> (Tree, Sockets) {
        let tree = Tree::new();
        tree.process(50, "vllm", &["vllm", "serve"], 1000, 1);
        tree.descriptor(50, 7, "socket:[777]", "");
        tree.process(60, "flash", &["flash"], 1000, 1);
        table(&tree, &[(LISTENS, 777)]);
        let mut sockets = Sockets { earlier: BTreeSet::from([700]), ..Sockets::default() };
        assert_eq!(sockets.stranger(tree.path(), 8000, || vec![50]), None);
        assert!(sockets.open);
        (tree, sockets)
    }

    fn pid(stranger: Option<PortHolder>) -> Option<Option<u32>> {
        stranger.map(|holder| holder.pid)
    }

    #[test]
    fn a_listener_that_is_gone_when_its_owner_is_looked_for_counts() {
        let (tree, mut sockets) = served();
        table(&tree, &[(LISTENS, 777), (LISTENS, 888)]);
        let members = || {
            table(&tree, &[(LISTENS, 777)]);
            vec![50]
        };
        assert_eq!(pid(sockets.stranger(tree.path(), 8000, members)), Some(None));
    }

    #[test]
    fn a_connection_that_another_process_has_accepted_counts_although_it_does_not_listen_any_more() {
        let (tree, mut sockets) = served();
        tree.descriptor(60, 3, "socket:[888]", "");
        table(&tree, &[(LISTENS, 777), (CONNECTED, 888)]);
        assert_eq!(pid(sockets.stranger(tree.path(), 8000, || vec![50])), Some(Some(60)));
    }

    #[test]
    fn a_connection_of_nobody_who_can_be_seen_counts_when_it_stays() {
        let (tree, mut sockets) = served();
        table(&tree, &[(LISTENS, 777), (CONNECTED, 888)]);
        assert_eq!(sockets.stranger(tree.path(), 8000, || vec![50]), None, "it may be closed by now");
        table(&tree, &[(LISTENS, 777), (CONNECTED, 889)]);
        assert_eq!(sockets.stranger(tree.path(), 8000, || vec![50]), None, "it was");
        assert_eq!(pid(sockets.stranger(tree.path(), 8000, || vec![50])), Some(None));
    }

    #[test]
    fn the_servers_own_connections_closed_ones_and_those_from_before_it_say_nothing() {
        let (tree, mut sockets) = served();
        tree.descriptor(50, 8, "socket:[778]", "");
        tree.descriptor(60, 3, "socket:[700]", "");
        table(&tree, &[(LISTENS, 777), (CONNECTED, 778), (CONNECTED, 700), (CONNECTED, 0), (TIME_WAIT, 0)]);
        assert_eq!(sockets.stranger(tree.path(), 8000, || vec![50]), None);
        // Accepted by the server after its descriptors were read.
        table(&tree, &[(LISTENS, 777), (CONNECTED, 779)]);
        let asked = std::cell::Cell::new(0);
        let members = || {
            asked.set(asked.get() + 1);
            if asked.get() == 1 { vec![] } else { vec![50] }
        };
        tree.descriptor(50, 9, "socket:[779]", "");
        assert_eq!(sockets.stranger(tree.path(), 8000, members), None);
    }

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
