//! TCP sockets as the kernel's socket diagnosis names them (`NETLINK_SOCK_DIAG`, see `man 7 sock_diag`).
//!
//! The tables below `/proc/net` cost several milliseconds a reading, however few sockets there are: all of the kernel's buckets are
//! walked for each family. Asked this way, the sockets that listen cost some 0.03 ms, connections a third of the tables.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `SOCK_DIAG_BY_FAMILY`, the one question there is.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// Kinds of messages: an error, and the end of an answer.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const TCP: u8 = 6;
/// Bytes before what a message says, ...
const HEAD: usize = 16;
/// ... and of a socket in an answer, at least (`struct inet_diag_msg`).
const SOCKET: usize = 72;

/// Which sockets are meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// States, as bits by the kernel's numbers.
    pub states: u32,
    /// The local port; 0 for any.
    pub local: u16,
    /// The port at the other end; 0 for any.
    pub remote: u16,
}

/// One socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    /// The kernel's number of its state.
    pub state: u8,
    /// The address that it is bound to.
    pub address: IpAddr,
    pub uid: u32,
    /// 0 where no process has it: a connection that was not accepted yet.
    pub inode: u64,
}

/// The sockets of this process's network namespace, IPv4 first.
///
/// # Errors
/// When the kernel does not answer such questions, or not here.
pub(super) fn find(asked: Asked) -> io::Result<Vec<Socket>> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut found = Vec::new();
    for family in [libc_family(AddressFamily::Inet)?, libc_family(AddressFamily::Inet6)?] {
        send(kernel.as_raw_fd(), &question(family, asked), MsgFlags::empty())?;
        answers(&kernel, &mut found)?;
    }
    Ok(found)
}

fn libc_family(family: AddressFamily) -> io::Result<u8> {
    u8::try_from(family as i32).map_err(io::Error::other)
}

/// `struct inet_diag_req_v2` behind its head.
fn question(family: u8, asked: Asked) -> Vec<u8> {
    let mut body = vec![family, TCP, 0, 0];
    body.extend(asked.states.to_ne_bytes());
    body.extend(asked.local.to_be_bytes());
    body.extend(asked.remote.to_be_bytes());
    // No address, no device, and no cookie of one socket.
    body.extend([0; 32 + 4]);
    body.extend([0xff; 8]);
    let mut message = u32::try_from(HEAD + body.len()).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(DUMP.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// Reads messages up to the end of an answer.
fn answers(kernel: &OwnedFd, found: &mut Vec<Socket>) -> io::Result<()> {
    // More than the kernel puts into one datagram.
    let mut bytes = vec![0; 1 << 16];
    loop {
        // A dump is there at once: one that had to be waited for would be none.
        let size = recv(kernel.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        let mut rest = bytes.get(..size).unwrap_or_default();
        if rest.is_empty() {
            return Err(broken());
        }
        while !rest.is_empty() {
            let long = word(rest, 0).and_then(|long| usize::try_from(long).ok()).ok_or_else(broken)?;
            let message = rest.get(..long).filter(|message| message.len() >= HEAD).ok_or_else(broken)?;
            let kind = message.get(4..6).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes);
            match kind {
                Some(DONE) => return Ok(()),
                Some(ERROR) => {
                    let number = word(message, HEAD).unwrap_or_default().cast_signed();
                    return Err(io::Error::from_raw_os_error(-number));
                }
                Some(BY_FAMILY) => found.push(read(message.get(HEAD..).unwrap_or_default()).ok_or_else(broken)?),
                _ => {}
            }
            rest = rest.get(long.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// One `struct inet_diag_msg`.
fn read(message: &[u8]) -> Option<Socket> {
    let message = message.get(..SOCKET)?;
    let address = match message.first()? {
        2 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(8..12)?).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(message.get(8..24)?).ok()?)),
    };
    Some(Socket { state: *message.get(1)?, address, uid: word(message, 64)?, inode: word(message, 68)?.into() })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of the kernel's socket diagnosis")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_and_a_connection_are_found_by_their_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        let states = (1 << 10) | (1 << 1);
        let found = find(Asked { states, local: port, remote: 0 }).unwrap();
        let mut seen: Vec<(u8, u64)> = found.iter().map(|one| (one.state, one.inode)).collect();
        seen.sort_unstable();
        let inode = |fd: i32| {
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap()
        };
        assert_eq!(seen, [(1, inode(accepted.as_raw_fd())), (10, inode(listener.as_raw_fd()))]);
        assert!(found.iter().all(|one| one.address == IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let towards = find(Asked { states: 1 << 1, local: 0, remote: port }).unwrap();
        assert_eq!(towards.iter().map(|one| one.inode).collect::<Vec<_>>(), [inode(client.as_raw_fd())]);
        let six = TcpListener::bind("[::1]:0").unwrap();
        let found = find(Asked { states: 1 << 10, local: six.local_addr().unwrap().port(), remote: 0 }).unwrap();
        assert_eq!(found.iter().map(|one| one.address).collect::<Vec<_>>(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }

    #[test]
    fn half_an_answer_is_none() {
        assert_eq!(read(&[2; SOCKET - 1]), None);
        assert!(read(&[2; SOCKET]).is_some());
    }
}
