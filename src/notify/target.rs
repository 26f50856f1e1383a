//! Who is told: a webhook, whose address is a secret, or a command. Pure.

use reqwest::Url;

use crate::safe::{self, REDACTED};

/// What is said where a value is none.
pub const EXPECTED: &str = "the URL of a webhook, `${VARIABLE}` that has one, or a command";

/// Who is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// Gets a POST of JSON.
    Webhook(Url),
    /// Gets the message as its last argument.
    Command(Vec<String>),
    /// What this variable has.
    Variable(String),
    /// A webhook of which a record kept the host alone.
    NotKept(String),
}

impl Target {
    /// Reads it; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return is_name.then(|| Self::Variable(name.to_owned()));
        }
        if is_url(text) {
            if text.contains(REDACTED) {
                return Some(Self::NotKept(text.to_owned()));
            }
            return Url::parse(text).ok().filter(|url| url.host_str().is_some()).map(Self::Webhook);
        }
        let words = shlex::split(text)?;
        // Of a URL of another kind nobody thinks that it is a program.
        (!words.is_empty() && !words[0].is_empty() && !words[0].contains("://") && !text.contains('\0'))
            .then_some(Self::Command(words))
    }

    /// With what its variable has; `None` where it has none, or none that can be used.
    pub fn resolved<'v>(&self, variable: impl Fn(&str) -> Option<&'v str>) -> Option<Self> {
        match self {
            Self::Variable(name) => match Self::parse(variable(name)?)? {
                Self::Variable(_) | Self::NotKept(_) => None,
                target => Some(target),
            },
            target => Some(target.clone()),
        }
    }

    /// As it may be shown and kept.
    pub fn shown(&self) -> String {
        match self {
            Self::Webhook(url) => hidden(url.as_str()).unwrap_or_else(|| REDACTED.to_owned()),
            Self::Command(words) => {
                safe::redact(&crate::words::shell_line(words.iter().map(String::as_str))).into_owned()
            }
            Self::Variable(name) => format!("${{{name}}}"),
            Self::NotKept(text) => text.clone(),
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
}

/// A value of `notify` without what only its owner may know; `None` where there is nothing to hide.
pub fn hidden(text: &str) -> Option<String> {
    let text = text.trim();
    if !is_url(text) {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(format!("{scheme}://{host}/{REDACTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "https://hooks.slack.com/services/T0001/B0002/aZq9planted0123456789";

    #[test]
    fn a_webhook_is_shown_without_its_address() {
        let target = Target::parse(HOOK).unwrap();
        assert_eq!(target.shown(), "https://hooks.slack.com/[redacted]");
        assert_eq!(format!("{target:?}"), target.shown());
        assert_eq!(Target::parse(&target.shown()), Some(Target::NotKept(target.shown())));
        assert_eq!(hidden("HTTPS://u:p@h:1?x=planted"), Some("HTTPS://h:1/[redacted]".into()));
        assert_eq!(hidden("notify-send x"), None);
    }

    #[test]
    fn a_command_is_split_into_words_and_a_variable_is_looked_up() {
        let words = |text: &str| match Target::parse(text) {
            Some(Target::Command(words)) => Some(words),
            _ => None,
        };
        assert_eq!(words("notify-send 'vllm bench'"), Some(vec!["notify-send".into(), "vllm bench".into()]));
        for bad in ["", "  ", "'open", "ftp://h/x", "${}", "${a b}", "http://"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
        let target = Target::parse("${HOOK}").unwrap();
        let has = |value: &'static str| move |name: &str| (name == "HOOK").then_some(value);
        assert_eq!(target.resolved(has(HOOK)), Target::parse(HOOK));
        assert_eq!(target.resolved(|_| None), None);
        assert_eq!(target.resolved(has("${HOOK}")), None, "no circle");
        assert_eq!(target.shown(), "${HOOK}");
    }
}
