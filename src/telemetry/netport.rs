//! Who listens on a TCP port: the kernel names the sockets ([`sockets`], else `/proc/net/tcp` and `tcp6`), `/proc/PID/fd` their owners.
//!
//! Everything is of this process's network namespace, or read below a root. Nothing is ever connected to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::procfs;
use super::sockets::{self, Asked, Socket};

/// The kernel's number of the state LISTEN.
const LISTEN: u8 = 0x0a;
/// The kernel's number of the state ESTABLISHED.
const ESTABLISHED: u8 = 0x01;

/// One socket of a port: it listens, or is a connection that was accepted there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Number of the socket, by which its owners are found.
    pub inode: u64,
    /// The address it is bound to; unspecified (`0.0.0.0`, `::`) for all.
    pub address: IpAddr,
    /// The user it belongs to.
    pub uid: u32,
}

impl Listener {
    /// What a descriptor of this socket points at.
    fn link(&self) -> String {
        format!("socket:[{}]", self.inode)
    }
}

/// Who holds a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// The process: the eldest of those that share the socket. Absent when it belongs to another user or container.
    pub pid: Option<u32>,
    /// Its arguments. They may hold secrets: see [`super::check::shown_argv`].
    pub argv: Option<Vec<String>>,
    /// The user that the socket belongs to.
    pub uid: u32,
}

/// The sockets of one port of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnPort {
    /// Those that listen, IPv4 first.
    pub listening: Vec<Listener>,
    /// Connections that a process has accepted there. One that nobody has accepted yet, or that is closed, has no number.
    pub connected: Vec<Listener>,
}

/// The sockets that listen on `port`, IPv4 first.
pub fn listeners(root: &Path, port: u16) -> Vec<Listener> {
    find(root, &[LISTEN], port, 0).map(|(_, socket)| socket).collect()
}

/// The sockets on `port`, by one look.
pub fn on_port(root: &Path, port: u16) -> OnPort {
    let (listening, connected): (Vec<_>, Vec<_>) =
        find(root, &[LISTEN, ESTABLISHED], port, 0).partition(|(state, _)| *state == LISTEN);
    let bare = |found: Vec<(u8, Listener)>| found.into_iter().map(|(_, socket)| socket).collect();
    OnPort { listening: bare(listening), connected: bare(connected) }
}

/// The sockets in one of these states, by their ports here and at the other end (0: any), with their states. One that no process has
/// is left out.
fn find(root: &Path, states: &[u8], local: u16, remote: u16) -> impl Iterator<Item = (u8, Listener)> {
    let asked = Asked { states: states.iter().map(|state| 1 << state).sum(), local, remote };
    let of_kernel = if root == Path::new("/") { sockets::find(asked).ok() } else { None };
    of_kernel.unwrap_or_else(|| tables(root, asked)).into_iter().filter(|socket| socket.inode != 0).map(|socket| {
        let Socket { state, address, uid, inode } = socket;
        (state, Listener { inode, address, uid })
    })
}

/// The same by the tables, where the kernel does not answer otherwise.
fn tables(root: &Path, asked: Asked) -> Vec<Socket> {
    let texts =
        ["proc/net/tcp", "proc/net/tcp6"].iter().filter_map(|table| std::fs::read_to_string(root.join(table)).ok());
    texts.flat_map(|text| text.lines().filter_map(|line| parse(line, asked)).collect::<Vec<_>>()).collect()
}

/// Who holds `port`; `None` when nobody listens there.
pub fn holder_of(root: &Path, port: u16) -> Option<PortHolder> {
    holder_among(root, &listeners(root, port))
}

/// Which of these sockets none of `pids` has open: with SO_REUSEPORT several processes may listen on one port.
pub fn not_held_by(root: &Path, listeners: Vec<Listener>, pids: &[i32]) -> Vec<Listener> {
    let held: BTreeSet<PathBuf> = pids
        .iter()
        .flat_map(|pid| procfs::descriptors(root, *pid).unwrap_or_default())
        .map(|(_, target)| target)
        .collect();
    // Those of another user, as in a container whose runtime is root's, do not show what they have open: whose it is must do.
    let hidden: BTreeSet<u32> = pids.iter().filter_map(|pid| procfs::hidden_owner(root, *pid)).collect();
    let is_held = |listener: &Listener| held.contains(Path::new(&listener.link())) || hidden.contains(&listener.uid);
    listeners.into_iter().filter(|listener| !is_held(listener)).collect()
}

/// Who holds the first of these sockets; `None` where there is none.
pub fn holder_among(root: &Path, listeners: &[Listener]) -> Option<PortHolder> {
    let listeners = listeners.get(..1)?;
    let uid = listeners.first()?.uid;
    let owners = owners(root, listeners, &procfs::pids(root));
    let eldest =
        owners.iter().copied().find(|pid| procfs::parent(root, *pid).is_none_or(|parent| !owners.contains(&parent)));
    let pid = eldest.or_else(|| owners.first().copied());
    Some(PortHolder {
        pid: pid.and_then(|pid| u32::try_from(pid).ok()),
        argv: pid.and_then(|pid| procfs::argv(root, pid)),
        uid,
    })
}

/// Which of `candidates` have an open connection to `port` of some server. Looks into no other process.
pub fn connected_pids(root: &Path, port: u16, candidates: &[i32]) -> Vec<i32> {
    let connections: Vec<Listener> = find(root, &[ESTABLISHED], 0, port).map(|(_, socket)| socket).collect();
    owners(root, &connections, candidates)
}

/// Which of `candidates` (the members of a process group, say) listen on `port`. Looks into no other process.
pub fn listening_pids(root: &Path, port: u16, candidates: &[i32]) -> Vec<i32> {
    let listeners = listeners(root, port);
    if listeners.is_empty() {
        return Vec::new();
    }
    owners(root, &listeners, candidates)
}

fn owners(root: &Path, listeners: &[Listener], candidates: &[i32]) -> Vec<i32> {
    let names: BTreeSet<String> = listeners.iter().map(Listener::link).collect();
    let holds = |pid: &i32| {
        let descriptors = procfs::descriptors(root, *pid).unwrap_or_default();
        descriptors.iter().any(|(_, target)| target.to_str().is_some_and(|target| names.contains(target)))
    };
    candidates.iter().copied().filter(holds).collect()
}

/// One line of the table: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`; `None` where it is not meant.
fn parse(line: &str, asked: Asked) -> Option<Socket> {
    let mut words = line.split_ascii_whitespace();
    let (address, local) = words.nth(1)?.split_once(':')?;
    let (_, remote) = words.next()?.split_once(':')?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let is_meant = |text: &str, port: u16| port == 0 || u16::from_str_radix(text, 16) == Ok(port);
    if asked.states & 1_u32.checked_shl(state.into())? == 0
        || !is_meant(local, asked.local)
        || !is_meant(remote, asked.remote)
    {
        return None;
    }
    let uid = words.nth(3)?.parse().ok()?;
    Some(Socket { state, address: parse_address(address)?, uid, inode: words.nth(1)?.parse().ok()? })
}

/// Addresses are words of 32 bits in network order, each printed as a number of this machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).map(u32::to_ne_bytes).ok();
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (number, piece) in bytes.chunks_exact_mut(4).enumerate() {
                piece.copy_from_slice(&word(number * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::fixture::Tree;
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    /// Port 8000 (1F40): a listener, one of its connections, and another port.
    fn tree() -> Tree {
        let tree = Tree::new();
        let tcp = "   0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 777 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 778 1 0 20 4 30 10 -1\n\
            \x20  2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 779 1 0 100 0 0 10 0\n";
        tree.file("proc/net/tcp", &format!("{HEAD}{tcp}"));
        let tcp6 = "   0: 00000000000000000000000001000000:1F42 00000000000000000000000000000000:0000 0A \
            00000000:00000000 00:00000000 00000000     5        0 780 1 0 100 0 0 10 0\n";
        tree.file("proc/net/tcp6", &format!("{HEAD}{tcp6}"));
        tree.process(50, "vllm", &["python", "/usr/bin/vllm", "serve"], 1000, 1);
        tree.process(40, "worker", &["worker"], 1000, 50);
        tree.process(60, "curl", &["curl"], 1000, 1);
        tree.descriptor(50, 7, "socket:[777]", "");
        tree.descriptor(40, 9, "socket:[777]", "");
        tree.descriptor(60, 3, "socket:[778]", "");
        tree
    }

    #[test]
    fn listeners_are_told_from_connections_and_other_ports() {
        let tree = tree();
        let listener = Listener { inode: 777, address: "0.0.0.0".parse().unwrap(), uid: 1000 };
        assert_eq!(listeners(tree.path(), 8000), [listener]);
        assert_eq!(listeners(tree.path(), 8001)[0].address, "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(listeners(tree.path(), 8002)[0].address, "::1".parse::<IpAddr>().unwrap());
        assert!(listeners(tree.path(), 8003).is_empty());
        let connected = on_port(tree.path(), 8000).connected;
        assert_eq!(connected.iter().map(|socket| socket.inode).collect::<Vec<_>>(), [778]);
    }

    #[test]
    fn the_eldest_of_the_sharers_is_the_holder() {
        let holder = holder_of(tree().path(), 8000).unwrap();
        assert_eq!((holder.pid, holder.uid), (Some(50), 1000));
        assert_eq!(holder.argv.unwrap(), ["python", "/usr/bin/vllm", "serve"]);
    }

    #[test]
    fn a_holder_that_cannot_be_seen_is_still_a_holder() {
        let tree = tree();
        assert_eq!(holder_of(tree.path(), 8001), Some(PortHolder { pid: None, argv: None, uid: 0 }));
        assert_eq!(holder_of(tree.path(), 8003), None);
    }

    #[test]
    fn only_candidates_are_looked_at() {
        let tree = tree();
        assert_eq!(listening_pids(tree.path(), 8000, &[40, 60, 99]), [40]);
        assert_eq!(listening_pids(tree.path(), 8000, &[60]), [0; 0]);
        assert_eq!(listening_pids(tree.path(), 8003, &[40, 50]), [0; 0]);
    }

    #[test]
    fn each_socket_of_a_shared_port_is_looked_at() {
        let tree = tree();
        let shared = "   3: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 790 1 0 100 0 0 10 0\n";
        let tcp = std::fs::read_to_string(tree.path().join("proc/net/tcp")).unwrap();
        tree.file("proc/net/tcp", &format!("{tcp}{shared}"));
        let all = listeners(tree.path(), 8000);
        assert_eq!(all.len(), 2);
        let foreign = not_held_by(tree.path(), all.clone(), &[50, 40]);
        assert_eq!(foreign.iter().map(|listener| listener.inode).collect::<Vec<_>>(), [790]);
        // Nobody who could be seen has it open: it is another user's.
        assert_eq!(holder_among(tree.path(), &foreign), Some(PortHolder { pid: None, argv: None, uid: 1001 }));
        tree.descriptor(60, 4, "socket:[790]", "");
        assert_eq!(holder_among(tree.path(), &foreign).unwrap().pid, Some(60));
        assert!(not_held_by(tree.path(), all, &[40, 60]).is_empty());
    }

    #[test]
    fn torn_and_odd_lines_are_skipped() {
        for line in
            ["", "sl", "0: 00000000:1F40", "0: 00:1F40 0:0 0A 0:0 0:0 0 1 0 777", "0: zz:zz 0:0 0A 0:0 0:0 0 1 0 7"]
        {
            assert_eq!(parse(line, Asked { states: 1 << LISTEN, local: 8000, remote: 0 }), None, "{line}");
        }
    }

    #[test]
    fn a_real_listener_of_this_process_is_found_and_gone_when_closed() {
        let root = Path::new("/");
        let me = i32::try_from(std::process::id()).unwrap();
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let port = socket.local_addr().unwrap().port();
            assert_eq!(listeners(root, port)[0].address, socket.local_addr().unwrap().ip());
            assert_eq!(listening_pids(root, port, &[me]), [me]);
            assert_eq!(listening_pids(root, port, &[1]), [0; 0]);
            let holder = holder_of(root, port).unwrap();
            assert_eq!((holder.pid, holder.uid), (Some(std::process::id()), nix::unistd::getuid().as_raw()));
            assert_eq!(connected_pids(root, port, &[me]), [0; 0]);
            let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            assert_eq!((connected_pids(root, port, &[me]), connected_pids(root, port, &[1])), (vec![me], vec![]));
            drop((client, socket));
            assert_eq!(listening_pids(root, port, &[me]), [0; 0]);
        }
    }
}
