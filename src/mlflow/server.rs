//! Which MLflow server, and how one signs in there. Pure.

use std::path::PathBuf;

use reqwest::Url;

/// The variable that names a server for all programs of MLflow.
pub const URI_VARIABLE: &str = "MLFLOW_TRACKING_URI";
/// What `--mlflow` means without a value.
pub const FROM_ENVIRONMENT: &str = "env";
/// What is said where a value is none of these.
pub const EXPECTED: &str = "the URI of an MLflow server such as `http://host:5000`, `env` or `off`";

/// What `--mlflow` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// Nothing is sent.
    #[default]
    Off,
    /// To the server that `MLFLOW_TRACKING_URI` names.
    Environment,
    /// To this one.
    At(Place),
}

impl Choice {
    /// Reads it; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            // YAML reads `off` and `on` as switches.
            "off" | "false" | "none" => Some(Self::Off),
            FROM_ENVIRONMENT | "true" => Some(Self::Environment),
            uri => Place::parse(uri).map(Self::At),
        }
    }
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address, without user, password and the last slash.
    pub base: String,
    /// User and password that stood in it.
    pub user: Option<(String, String)>,
    /// Whether it is this machine.
    pub is_local: bool,
}

impl Place {
    /// Reads a URI; `None` where it is not that of a server.
    pub fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text.trim()).ok()?;
        if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let name = plain(url.username())?;
        let user = match (name.is_empty(), url.password()) {
            (true, None) => None,
            (_, password) => Some((name, plain(password.unwrap_or_default())?)),
        };
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        Some(Self { base: url.as_str().trim_end_matches('/').to_owned(), user, is_local })
    }
}

/// Without percent signs.
fn plain(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// How one signs in. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Not at all.
    None,
    /// `Authorization: Bearer`.
    Token(String),
    /// `Authorization: Basic`.
    User(String, String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::User(..) => "User",
        })
    }
}

/// A server and how it is asked.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// How one signs in.
    pub login: Login,
    /// Whatever certificate it shows is accepted (`MLFLOW_TRACKING_INSECURE_TLS`).
    pub insecure: bool,
    /// Certificates that are trusted as well (`MLFLOW_TRACKING_SERVER_CERT_PATH`).
    pub authorities: Option<PathBuf>,
    /// The experiment of MLflow that the user names (`MLFLOW_EXPERIMENT_NAME`).
    pub experiment: Option<String>,
}

impl Server {
    /// With what the environment says of every server, as MLflow's own client takes it: a user before a token. What stands in the URI wins.
    pub fn of<'v>(place: Place, variable: impl Fn(&str) -> Option<&'v str>) -> Self {
        let user = (variable("MLFLOW_TRACKING_USERNAME"), variable("MLFLOW_TRACKING_PASSWORD"));
        let login = match (&place.user, user, variable("MLFLOW_TRACKING_TOKEN")) {
            (Some((name, password)), ..) => Login::User(name.clone(), password.clone()),
            (None, (Some(name), Some(password)), _) => Login::User(name.to_owned(), password.to_owned()),
            (None, _, Some(token)) => Login::Token(token.to_owned()),
            (None, ..) => Login::None,
        };
        let is_on = |text: &str| ["true", "1"].contains(&text.trim().to_ascii_lowercase().as_str());
        Self {
            place,
            login,
            insecure: variable("MLFLOW_TRACKING_INSECURE_TLS").is_some_and(is_on),
            authorities: variable("MLFLOW_TRACKING_SERVER_CERT_PATH").map(PathBuf::from),
            experiment: variable("MLFLOW_EXPERIMENT_NAME").map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_that_of_a_server_and_nothing_else() {
        let base = |text: &str| Place::parse(text).map(|place| place.base);
        assert_eq!(base("http://h:5000/"), Some("http://h:5000".into()));
        assert_eq!(base(" https://h/ml/flow/ "), Some("https://h/ml/flow".into()));
        let place = Place::parse("http://u:p%40x@127.0.0.1:1").unwrap();
        assert_eq!(place.base, "http://127.0.0.1:1");
        assert_eq!((place.user, place.is_local), (Some(("u".into(), "p@x".into())), true));
        for bad in
            ["", "host:5000", "file:///mlruns", "sqlite:///m.db", "databricks", "http://", "http://h?x=1", "sweep.yaml"]
        {
            assert_eq!(Choice::parse(bad), None, "{bad}");
        }
        assert_eq!(Choice::parse("off"), Some(Choice::Off));
        assert_eq!(Choice::parse("env"), Some(Choice::Environment));
    }

    #[test]
    fn one_signs_in_as_mlflow_s_own_client_does() {
        let of = |uri: &str, vars: &[(&str, &'static str)]| {
            let find = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            Server::of(Place::parse(uri).unwrap(), find).login
        };
        let (user, password) = (("MLFLOW_TRACKING_USERNAME", "a"), ("MLFLOW_TRACKING_PASSWORD", "b"));
        let token = ("MLFLOW_TRACKING_TOKEN", "t");
        assert_eq!(of("http://h", &[]), Login::None);
        assert_eq!(of("http://h", &[token]), Login::Token("t".into()));
        assert_eq!(of("http://h", &[token, user]), Login::Token("t".into()));
        assert_eq!(of("http://h", &[token, user, password]), Login::User("a".into(), "b".into()));
        assert_eq!(of("http://x:y@h", &[token, user, password]), Login::User("x".into(), "y".into()));
        assert_eq!(format!("{:?}", of("http://h", &[token])), "Token");
    }
}
