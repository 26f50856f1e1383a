//! Secrets in flags of server and client. A command line is seen by every user of a machine, and a script by whoever finds it: so a
//! secret travels in a variable, and the flag says `${NAME}` in its place, which `vllm-bench load` understands. What no program
//! would understand is refused, with the way that works.

use serde_json::Value;

use super::tree::{Diagnostic, Kind, Node, join};
use super::{Environment, Error, Origin};
use crate::mlflow::Place;
use crate::notify;
use crate::safe::{
    holds_secret, is_searched, is_secret_header, is_secret_key, is_secret_name, is_secret_variable, json_secrets,
    within,
};

/// What the client takes its key from, vLLM's as ours.
const CLIENT_KEY: &str = "OPENAI_API_KEY";
/// The variable of `--pushgateway`.
const PUSHGATEWAY: &str = "VLLM_BENCH_PUSHGATEWAY";
/// Flags of the client in which `load` understands `${NAME}`.
const UNDERSTOOD: [&str; 2] = ["header", "extra-body"];

/// Puts variables in the place of secrets in the flags of a sweep.
///
/// # Errors
/// When a secret stands where nobody could be given it otherwise.
pub(super) fn hand_over(mut tree: Node, environment: &Environment) -> Result<Node, Error> {
    let builtin = tree.get("client").and_then(Node::scalar).is_some_and(|client| client == "builtin");
    let mut moved = Moved { builtin, environment, variables: Vec::new() };
    let groups = tree.get("experiments").and_then(Node::items).map_or(0, <[Node]>::len);
    moved.sections(&mut tree, "")?;
    for number in 0..groups {
        let group = tree.entries_mut().and_then(|map| match &mut map.get_mut("experiments")?.value.kind {
            Kind::List(items) => items.get_mut(number),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) | Kind::Map(_) => None,
        });
        if let Some(group) = group {
            moved.sections(group, &format!("experiments[{}]", number + 1))?;
        }
    }
    for (name, value, origin) in moved.variables {
        tree.put(&["env", &name], Node::text(value, &origin));
    }
    Ok(tree)
}

/// The words of a command line of this program without the secrets that can be handed over, and the variables that carry them.
pub fn safe_words(words: &[String]) -> (Vec<String>, Vec<(String, String)>) {
    let (mut safe, mut variables) = (Vec::new(), Vec::new());
    let mut flag = String::new();
    for word in words {
        let (head, value) = match word.strip_prefix("--").map(|name| name.split_once('=')) {
            Some(Some((name, value))) => {
                flag = name.to_owned();
                (format!("--{name}="), value)
            }
            Some(None) => {
                flag = word[2..].to_owned();
                safe.push(word.clone());
                continue;
            }
            None => (String::new(), word.as_str()),
        };
        if flag == "pushgateway" && value.contains('@') {
            // The variable says the same as the flag.
            if head.is_empty() {
                safe.pop();
            }
            variables.push((PUSHGATEWAY.to_owned(), value.to_owned()));
            continue;
        }
        let kept = match (flag.as_str(), value.split_once('=')) {
            ("env", Some((name, secret))) if is_secret_variable(name, secret) || holds_secret(secret) => {
                variables.push((name.to_owned(), secret.to_owned()));
                name.to_owned()
            }
            ("bench-arg", Some((name, text))) if UNDERSTOOD.contains(&name.trim_start_matches('-')) => {
                let mut name_of = |what: &str, value: &str| named(what, value, &mut variables);
                let text = match name.trim_start_matches('-') {
                    "header" => header(text, &mut name_of),
                    _ => body(text, &mut name_of),
                };
                text.map_or_else(|| value.to_owned(), |text| format!("{name}={text}"))
            }
            // A webhook's address is a secret as a whole.
            ("notify", _) if notify::hidden(value).is_some() => {
                format!("${{{}}}", named("NOTIFY", value, &mut variables))
            }
            ("mlflow", _) => match Place::parse(value) {
                Some(Place { base, user: Some((user, password)), .. }) => {
                    variables.push(("MLFLOW_TRACKING_USERNAME".to_owned(), user));
                    variables.push(("MLFLOW_TRACKING_PASSWORD".to_owned(), password));
                    base
                }
                _ => value.to_owned(),
            },
            _ => value.to_owned(),
        };
        safe.push(format!("{head}{kept}"));
    }
    (safe, variables)
}

/// The variable for a secret: called after what it is for, numbered where another secret has that name.
fn named(what: &str, value: &str, variables: &mut Vec<(String, String)>) -> String {
    let clean: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    for number in 1.. {
        let name = if number == 1 { format!("SECRET_{clean}") } else { format!("SECRET_{clean}_{number}") };
        match variables.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if known != value => {}
            Some(_) => return name,
            None => {
                variables.push((name.clone(), value.to_owned()));
                return name;
            }
        }
    }
    unreachable!("there is always a next number")
}

/// `KEY=VALUE` with a variable in the place of the secret; `None` where there is none.
fn header(text: &str, name_of: &mut impl FnMut(&str, &str) -> String) -> Option<String> {
    let (name, value) = text.split_once('=')?;
    if text.contains("${") || !is_secret_header(name.trim(), value.trim()) {
        return None;
    }
    let value = value.trim();
    let (scheme, secret) = match value.split_once(' ') {
        Some((scheme, secret)) if !secret.trim().is_empty() && scheme.len() <= 12 => {
            (format!("{scheme} "), secret.trim())
        }
        _ => (String::new(), value),
    };
    let variable = name_of(&format!("HEADER_{}", name.trim()), secret);
    Some(format!("{}={scheme}${{{variable}}}", name.trim()))
}

/// JSON with variables in the place of the texts under secret keys; `None` where there is none.
fn body(text: &str, name_of: &mut impl FnMut(&str, &str) -> String) -> Option<String> {
    json_secrets(text).first()?;
    let mut value: Value = serde_json::from_str(text).ok()?;
    let mut changed = false;
    replace(&mut value, &mut |key, secret| {
        changed = true;
        format!("${{{}}}", name_of(&format!("BODY_{key}"), secret))
    });
    changed.then(|| value.to_string())
}

fn replace(value: &mut Value, with: &mut impl FnMut(&str, &str) -> String) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if is_secret_key(key) && !text.is_empty() && !text.starts_with("${") => {
                        *text = with(key, text);
                    }
                    value => replace(value, with),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names in `${NAME}`, in their order.
pub(super) fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices("${") {
        let rest = &text[at + 2..];
        let name = rest.split('}').next().filter(|name| name.len() < rest.len());
        names.extend(
            name.filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')),
        );
    }
    names
}

/// The same text with the values of the variables; the name of the first that is not set.
pub(super) fn expanded(text: &str, environment: &Environment) -> Result<String, String> {
    let mut whole = text.to_owned();
    for name in references(text) {
        let value = environment.get(name).ok_or_else(|| name.to_owned())?;
        whole = whole.replace(&format!("${{{name}}}"), value);
    }
    Ok(whole)
}

struct Moved<'e> {
    builtin: bool,
    environment: &'e Environment,
    /// Name, value, and where the secret stood.
    variables: Vec<(String, String, Origin)>,
}

impl Moved<'_> {
    fn sections(&mut self, node: &mut Node, path: &str) -> Result<(), Error> {
        for section in ["serve", "bench"] {
            let path = join(path, section);
            let map = node.entries_mut().and_then(|map| map.get_mut(section)?.value.entries_mut());
            let Some(map) = map else { continue };
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                // A flag that is itself a secret is refused with its own words when the sections are read.
                let Some(entry) = map.get_mut(&key).filter(|_| !is_secret_name(&key)) else { continue };
                let path = join(&path, &key);
                if section == "bench" && key == "header" && !self.builtin && self.client_key(&entry.value) {
                    map.shift_remove(&key);
                    continue;
                }
                let understood = section == "bench" && self.builtin && UNDERSTOOD.contains(&key.as_str());
                self.value(&key, &mut entry.value, &path, understood)?;
            }
        }
        Ok(())
    }

    /// vLLM's client sends `Authorization: Bearer …` with the key of a variable: that is where such a header goes.
    fn client_key(&mut self, node: &Node) -> bool {
        let text = match &node.kind {
            Kind::List(items) => match items.as_slice() {
                [one] => one.scalar(),
                _ => None,
            },
            Kind::Text(_) | Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Map(_) => node.scalar(),
        };
        let Some(text) = text else { return false };
        let Some((name, value)) = text.split_once('=') else { return false };
        let token = value.trim().split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (true, Some((_, token))) = (name.trim().eq_ignore_ascii_case("authorization"), token) else { return false };
        let Ok(token) = expanded(token.trim(), self.environment) else { return false };
        self.variables.push((CLIENT_KEY.to_owned(), token, node.origin.clone()));
        true
    }

    fn value(&mut self, key: &str, node: &mut Node, path: &str, understood: bool) -> Result<(), Error> {
        let origin = node.origin.clone();
        match &mut node.kind {
            Kind::Text(text) if understood => {
                let mut name_of = |what: &str, value: &str| self.carrier(what, value, &origin);
                let new = if key == "header" { header(text, &mut name_of) } else { body(text, &mut name_of) };
                match new {
                    Some(new) => *text = new,
                    None => self.given(text, &origin, path)?,
                }
                self.refuse_rest(key, text, &origin, path)
            }
            Kind::Text(text) => {
                let header = text.split_once('=').filter(|_| key == "header");
                let own_header = header.is_some_and(|(name, value)| is_secret_header(name.trim(), value.trim()));
                // `metadata` is `NAME=VALUE`.
                let pair = text.split_once('=').filter(|_| key == "metadata");
                let pair = pair.is_some_and(|(name, value)| is_secret_name(name.trim()) && !value.is_empty());
                let json = json_secrets(text).iter().any(|secret| is_searched(secret));
                if own_header || pair || json {
                    return Err(self.refused(key, &origin, path));
                }
                self.refuse_rest(key, text, &origin, path)
            }
            Kind::List(items) => items.iter_mut().try_for_each(|item| self.value(key, item, path, understood)),
            Kind::Map(map) => {
                for (name, inner) in map {
                    let path = join(path, name);
                    let secret = is_secret_key(name)
                        && matches!(&inner.value.kind, Kind::Text(text) if is_searched(text) && !text.starts_with("${"));
                    match (&mut inner.value.kind, secret, understood) {
                        (Kind::Text(text), true, true) => {
                            let variable = self.carrier(&format!("BODY_{name}"), text, &origin);
                            *text = format!("${{{variable}}}");
                        }
                        (_, true, false) => return Err(self.refused(key, &inner.value.origin, &path)),
                        _ => self.value(key, &mut inner.value, &path, understood)?,
                    }
                }
                Ok(())
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => Ok(()),
        }
    }

    /// The variable for a secret that stands here.
    fn carrier(&mut self, what: &str, value: &str, origin: &Origin) -> String {
        let mut known: Vec<(String, String)> =
            self.variables.iter().map(|(name, value, _)| (name.clone(), value.clone())).collect();
        let before = known.len();
        let name = named(what, value, &mut known);
        self.variables.extend(known.drain(before..).map(|(name, value)| (name, value, origin.clone())));
        name
    }

    /// `${NAME}` that the user wrote: the variable is one of the sweep's secrets, whatever it is called.
    fn given(&mut self, text: &mut String, origin: &Origin, path: &str) -> Result<(), Error> {
        for name in references(text).into_iter().map(str::to_owned).collect::<Vec<_>>() {
            let Some(value) = self.environment.get(&name) else {
                let trouble = Diagnostic::new(origin, path, format!("the variable `{name}` is not set"));
                return Err(trouble.hint(format!("export {name}=…; `${{{name}}}` stands for its value")).into());
            };
            let carrier = if is_secret_name(&name) { name.clone() } else { format!("SECRET_{name}") };
            *text = text.replace(&format!("${{{name}}}"), &format!("${{{carrier}}}"));
            self.variables.push((carrier, value.to_owned(), origin.clone()));
        }
        Ok(())
    }

    /// Secrets that no rule for a flag knows: a user in a URL, a value that is known as a secret.
    fn refuse_rest(&self, key: &str, text: &str, origin: &Origin, path: &str) -> Result<(), Error> {
        match !within(text).is_empty() || holds_secret(text) {
            true => Err(self.refused(key, origin, path)),
            false => Ok(()),
        }
    }

    fn refused(&self, key: &str, origin: &Origin, path: &str) -> Error {
        let problem =
            format!("the value of `--{key}` holds a secret: a command line is seen by every user of the machine");
        let hint = match key {
            "header" => {
                "`--client builtin` is given headers in its environment; vLLM's own client takes `Authorization: Bearer` \
                 from the variable OPENAI_API_KEY, and other headers from its command line alone"
            }
            "extra-body" => "`--client builtin` is given it in its environment; vLLM's own client has no other way",
            "metadata" => "leave it out: it would be written into every result",
            "model" => "name the model without user and password, and give the server its token with HF_TOKEN",
            _ => {
                "write the flag into a file that only you can read, and name that with `--serve-arg config=FILE`; or give the \
                 server the secret in a variable (`--env NAME`)"
            }
        };
        Diagnostic::new(origin, path, problem).hint(hint).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_line_is_handed_on_without_its_secrets() {
        let (words, variables) = safe_words(&strings(&[
            "run",
            "--env",
            "HF_TOKEN=planted",
            "--env=https_proxy=http://u:planted@h",
            "--bench-arg",
            "header=X-Api-Key=planted-1",
            "--bench-arg=extra-body={\"api_key\":\"planted-2\"}",
            "--tp",
            "1",
        ]));
        assert_eq!(
            words,
            [
                "run",
                "--env",
                "HF_TOKEN",
                "--env=https_proxy",
                "--bench-arg",
                "header=X-Api-Key=${SECRET_HEADER_X_API_KEY}",
                "--bench-arg=extra-body={\"api_key\":\"${SECRET_BODY_API_KEY}\"}",
                "--tp",
                "1"
            ]
        );
        assert_eq!(
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            [
                "HF_TOKEN=planted",
                "https_proxy=http://u:planted@h",
                "SECRET_HEADER_X_API_KEY=planted-1",
                "SECRET_BODY_API_KEY=planted-2"
            ]
        );
    }

    #[test]
    fn references_are_found_and_expanded() {
        let environment = Environment::of(&[("A_KEY", "x"), ("B", "y")], std::path::Path::new("/"));
        assert_eq!(references("Bearer ${A_KEY} ${} ${b c} ${B"), ["A_KEY"]);
        assert_eq!(expanded("${A_KEY}-${B}", &environment), Ok("x-y".to_owned()));
        assert_eq!(expanded("${C}", &environment), Err("C".to_owned()));
    }
}
