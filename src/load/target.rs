//! Where requests go.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use reqwest::Url;

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value: from now on it is written and shown nowhere.
    pub fn new(value: impl Into<String>) -> Self {
        let value = value.into();
        crate::safe::learn([value.as_str()]);
        Self(value)
    }

    /// The value, for the wire alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

/// Why an address is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("`{text}` is not an address of a server: {reason}")]
    Address {
        /// As written.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The name is not known.
    #[error("the name `{host}` of the server cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// The name has no address.
    #[error("the name `{host}` of the server has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
}

/// Why an address with a user is none.
const WITH_USER: &str = "a user or password in it would be written down; use --header or --api-key-env";

/// An endpoint of a server.
#[derive(Debug, Clone)]
pub struct Target {
    /// `https`.
    pub tls: bool,
    /// Accept any certificate.
    pub insecure: bool,
    /// Name or address, as in the URL.
    pub host: String,
    /// Where to connect to.
    pub address: SocketAddr,
    /// Path and query of the endpoint.
    pub path: String,
    /// Address of the server without a path, for its other endpoints.
    pub base: String,
}

impl Target {
    /// An endpoint from the server's address (`http://host:port`, with or without a path before the endpoint's) and the
    /// endpoint (`/v1/completions`).
    ///
    /// # Errors
    /// When the address is none, or its name is not known.
    pub fn new(base: &str, endpoint: &str, insecure: bool) -> Result<Self, Error> {
        let address = |text: &str, reason: String| Error::Address { text: text.to_owned(), reason };
        let base = base.trim_end_matches('/');
        if !crate::safe::within(base).is_empty() {
            return Err(address("(with a user)", WITH_USER.into()));
        }
        let whole = if endpoint.starts_with('/') { format!("{base}{endpoint}") } else { format!("{base}/{endpoint}") };
        let url = Url::parse(&whole)
            .map_err(|cause| address(base, format!("{cause}; expected something like http://127.0.0.1:8000")))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(address(base, format!("`{other}` is neither http nor https"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(address("(with a user)", WITH_USER.into()));
        }
        let host = url.host_str().ok_or_else(|| address(base, "it has no host".into()))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => (bare, port)
                .to_socket_addrs()
                .map_err(|source| Error::Resolve { host: host.clone(), source })?
                .collect(),
        };
        // A name may stand for several addresses of which the server listens on one (localhost: ::1 and 127.0.0.1).
        let patience = Duration::from_secs(3);
        let answering = match addresses.as_slice() {
            [] => return Err(Error::NoAddress { host }),
            [only] => *only,
            several => several
                .iter()
                .find(|address| TcpStream::connect_timeout(address, patience).is_ok())
                .copied()
                .unwrap_or(several[0]),
        };
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let port_text = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let origin = format!("{}://{host}{port_text}", url.scheme());
        // What stands before `/v1` belongs to the server's address.
        let prefix = base.strip_prefix(&origin).unwrap_or_default().trim_end_matches("/v1");
        Ok(Self {
            tls,
            insecure,
            host: format!("{host}{port_text}"),
            address: answering,
            path,
            base: format!("{origin}{prefix}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let target = Target::new("http://127.0.0.1:8000/", "/v1/completions", false).unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:8000", "/v1/completions"));
        assert_eq!((target.base.as_str(), target.tls), ("http://127.0.0.1:8000", false));
        let target = Target::new("https://[::1]:8443/gateway/v1", "chat/completions", true).unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("[::1]:8443", "/gateway/v1/chat/completions"));
        assert_eq!((target.base.as_str(), target.tls), ("https://[::1]:8443/gateway", true));
        assert_eq!(Target::new("https://127.0.0.1", "/x", false).unwrap().address.port(), 443);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://u:p@127.0.0.1", "http://a b"] {
            let error = Target::new(text, "/v1/completions", false).unwrap_err().to_string();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}
