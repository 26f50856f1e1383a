//! One connection: a socket without blocking, TLS over it where asked, and the answer that is coming.

use std::io::{self, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::net::TcpStream;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, TimestampingFlag, recvmsg, setsockopt, sockopt};
use rustls::pki_types::ServerName;

use super::wire::Exchange;

/// How requests are encrypted.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Which certificates are accepted.
    pub config: Arc<rustls::ClientConfig>,
    /// Whose certificate is expected.
    pub name: ServerName<'static>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight {
    pub index: u64,
    pub due: Option<u64>,
    pub started: u64,
    /// When it was begun on this machine's clock; `started` may be another time.
    pub sent: u64,
    pub connected: Option<u64>,
    pub prompt_len: Option<u64>,
    pub output_len: Option<u64>,
    pub n: u32,
    pub exchange: Exchange,
    /// When its last token came, or it was sent.
    pub heard: u64,
    /// The body again, where the request may have to be sent on a new connection.
    pub body: Arc<[u8]>,
    /// It was sent on a connection that had carried another request before: if the server closed that in this very moment,
    /// nothing was wrong.
    pub reused: bool,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub stream: TcpStream,
    /// Tells it from others that had the same slot.
    pub serial: u64,
    tls: Option<Box<rustls::ClientConnection>>,
    out: Vec<u8>,
    written: usize,
    pub established: bool,
    pub flight: Option<InFlight>,
    /// Time of the last bytes that came.
    pub last_arrival: u64,
    kernel_clock: bool,
}

/// What a read gave.
pub(super) enum Got {
    /// So many bytes, with the kernel's time stamp if it keeps one.
    Bytes(usize, Option<i128>),
    /// Nothing now.
    Nothing,
    /// The other side closed.
    End,
}

impl Connection {
    /// Begins to connect.
    pub fn open(address: SocketAddr, tls: Option<&Tls>, kernel_clock: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        let flags = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
        let kernel_clock = kernel_clock && setsockopt(&stream, sockopt::Timestamping, &flags).is_ok();
        let tls = match tls {
            None => None,
            Some(tls) => {
                let connection = rustls::ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
                Some(Box::new(connection.map_err(io::Error::other)?))
            }
        };
        Ok(Self {
            stream,
            serial: 0,
            tls,
            out: Vec::new(),
            written: 0,
            established: false,
            flight: None,
            last_arrival: 0,
            kernel_clock,
        })
    }

    /// Where requests are appended before they are written.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        self.out.clear();
        self.written = 0;
        &mut self.out
    }

    /// Writes what can be written now. `Ok(true)` when all of it is out.
    pub fn write(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            if self.written < self.out.len() {
                tls.writer().write_all(&self.out[self.written..])?;
                self.written = self.out.len();
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if would_wait(&error) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            return Ok(true);
        }
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if would_wait(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether something waits to be written.
    pub fn wants_write(&self) -> bool {
        self.written < self.out.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads once, as the bytes are on the wire.
    pub fn read(&mut self, into: &mut [u8], control: &mut [u8]) -> io::Result<Got> {
        if !self.kernel_clock {
            return match self.stream.read(into) {
                Ok(0) => Ok(Got::End),
                Ok(count) => Ok(Got::Bytes(count, None)),
                Err(error) if would_wait(&error) || error.kind() == io::ErrorKind::Interrupted => Ok(Got::Nothing),
                Err(error) => Err(error),
            };
        }
        let mut slices = [IoSliceMut::new(into)];
        let got = recvmsg::<()>(self.stream.as_raw_fd(), &mut slices, Some(control), MsgFlags::empty());
        match got {
            Ok(message) if message.bytes == 0 => Ok(Got::End),
            Ok(message) => {
                let mut messages = message.cmsgs().map_err(io::Error::from)?;
                let stamp = messages.find_map(|control| match control {
                    ControlMessageOwned::ScmTimestampsns(stamps) => {
                        let nanos =
                            i128::from(stamps.system.tv_sec()) * 1_000_000_000 + i128::from(stamps.system.tv_nsec());
                        (nanos > 0).then_some(nanos)
                    }
                    _ => None,
                });
                Ok(Got::Bytes(message.bytes, stamp))
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(Got::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Decrypts what was read; hands back the content, or `None` where the connection is not encrypted. The second value
    /// tells that the other side has said goodbye.
    pub fn decrypt(&mut self, mut wire: &[u8]) -> io::Result<Option<(Vec<u8>, bool)>> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        let (mut content, mut goodbye) = (Vec::new(), false);
        while !wire.is_empty() {
            tls.read_tls(&mut wire)?;
            let state = tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            goodbye |= state.peer_has_closed();
            let before = content.len();
            content.resize(before + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut content[before..])?;
        }
        Ok(Some((content, goodbye)))
    }
}

fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

/// TLS as asked for.
///
/// # Errors
/// When the host is no name that a certificate can have.
pub fn tls(host: &str, insecure: bool) -> Result<Tls, rustls::pki_types::InvalidDnsNameError> {
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = ServerName::try_from(bare.trim_start_matches('[').trim_end_matches(']').to_owned())?;
    Ok(Tls { config: Arc::new(crate::http::tls(insecure)), name })
}
