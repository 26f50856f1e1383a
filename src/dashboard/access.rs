//! Who may ask: the `Host` header, the token in its three forms, and the headers of every answer.
//!
//! The `Host` header must be an address, `localhost` or a name of this machine: a page of somebody else that makes its own name
//! point here (DNS rebinding) asks under that name. The token is taken from the link once; from then on the browser has a cookie, which
//! scripts cannot read and other sites' pages cannot use. Programs send it as `Authorization: Bearer`.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use sha2::{Digest, Sha256};

use super::Options;
use super::token::{Token, same};

/// Nothing is loaded from anywhere else, no script runs but the one file, and nobody frames the page.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every answer has.
pub(super) const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// Who may ask.
#[derive(Debug)]
pub(super) struct Access {
    token: Token,
    /// Name and value of the cookie. Browsers send it to all ports of a host: it has the port in its name, and does not hold the token.
    cookie: (String, String),
    hosts: Vec<String>,
}

impl Access {
    /// Those who have this token.
    pub fn new(token: &Token, address: SocketAddr, options: &Options) -> Self {
        let value = Sha256::digest(format!("cookie of the dashboard {} {}", address.port(), token.text()));
        let value: String = value.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let hosts = options.hosts.iter().cloned().chain(own).map(|name| name.to_ascii_lowercase()).collect();
        Self { token: token.clone(), cookie: (format!("vllm_bench_{}", address.port()), value), hosts }
    }

    /// Whether this `Host` header means this machine, whoever resolved the name.
    pub fn knows_host(&self, headers: &HeaderMap) -> bool {
        let Some(host) = only(headers, &header::HOST) else { return false };
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        name == "localhost" || address.parse::<IpAddr>().is_ok() || self.hosts.iter().any(|known| known == name)
    }

    /// Whether a request comes with the token: as a bearer header, or as the cookie.
    pub fn is_allowed(&self, headers: &HeaderMap) -> bool {
        self.is_bearer(headers) || self.has_cookie(headers)
    }

    /// Whether this is the token.
    pub fn is_token(&self, text: &str) -> bool {
        same(text, self.token.text())
    }

    fn is_bearer(&self, headers: &HeaderMap) -> bool {
        let text = only(headers, &header::AUTHORIZATION).and_then(|text| text.split_once(' '));
        text.is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && self.is_token(token.trim()))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let (name, value) = &self.cookie;
        let all = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(known, _)| known == name).fold(false, |seen, (_, given)| same(given, value) || seen)
    }

    /// What gives a browser its cookie.
    pub fn set_cookie(&self) -> String {
        let (name, value) = &self.cookie;
        format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/")
    }

    /// Whether a request that changes something comes from the page itself, or from a program.
    pub fn is_own_page(&self, method: &Method, headers: &HeaderMap) -> bool {
        if matches!(*method, Method::GET | Method::HEAD) || self.is_bearer(headers) {
            return true;
        }
        let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
        let origin = only(headers, &header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        site.is_none_or(|site| site == "same-origin") && origin.is_some() && origin == only(headers, &header::HOST)
    }
}

/// A header that is there once, as text.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((name, port)) if !name.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn access() -> (Access, Token) {
        let token = Token::of_user().unwrap();
        let options = Options { hosts: vec!["Bench.example".into()], ..Options::default() };
        (Access::new(&token, "127.0.0.1:8765".parse().unwrap(), &options), token)
    }

    #[test]
    fn addresses_and_own_names_are_this_machine_and_other_names_are_not() {
        let (access, _) = access();
        for good in [
            "127.0.0.1",
            "127.0.0.1:8765",
            "localhost:9",
            "[::1]:8765",
            "[::1]",
            "10.1.2.3:80",
            "bench.example:1",
            "LOCALHOST.",
        ] {
            assert!(access.knows_host(&headers(&[("host", good)])), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:8765",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "::1:evil",
            "127.0.0.1@evil.example",
        ] {
            assert!(!access.knows_host(&headers(&[("host", bad)])), "{bad}");
        }
        assert!(!access.knows_host(&HeaderMap::new()));
    }

    #[test]
    fn the_token_opens_as_bearer_and_as_cookie_and_the_cookie_is_not_the_token() {
        let (access, token) = access();
        let bearer = |text: &str| access.is_allowed(&headers(&[("authorization", text)]));
        assert!(bearer(&format!("Bearer {}", token.text())) && bearer(&format!("bearer {}", token.text())));
        assert!(!bearer("Bearer x") && !bearer(token.text()) && !bearer(&format!("Basic {}", token.text())));
        let set = access.set_cookie();
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Strict") && !set.contains(token.text()));
        let pair = set.split(';').next().unwrap();
        assert!(access.is_allowed(&headers(&[("cookie", &format!("a=b; {pair}"))])));
        assert!(!access.is_allowed(&headers(&[("cookie", &format!("{pair}0"))])));
        assert!(!access.is_allowed(&headers(&[("cookie", &format!("vllm_bench_8765={}", token.text()))])));
        assert!(!access.is_allowed(&HeaderMap::new()));
    }

    #[test]
    fn only_the_page_itself_and_programs_change_something() {
        let (access, token) = access();
        let own = |pairs: &[(&'static str, &str)]| access.is_own_page(&Method::POST, &headers(pairs));
        let host = ("host", "127.0.0.1:8765");
        assert!(own(&[host, ("origin", "http://127.0.0.1:8765"), ("sec-fetch-site", "same-origin")]));
        assert!(own(&[host, ("authorization", &format!("Bearer {}", token.text()))]));
        assert!(!own(&[host]));
        assert!(!own(&[host, ("origin", "http://127.0.0.1:9999")]));
        assert!(!own(&[host, ("origin", "null")]));
        assert!(!own(&[host, ("origin", "http://127.0.0.1:8765"), ("sec-fetch-site", "same-site")]));
    }
}
