//! Chat templates, rendered as Hugging Face transformers renders them, byte for byte.
//!
//! transformers gives templates to Jinja2 with `trim_blocks`, `lstrip_blocks`, loop controls, a `{% generation %}` block,
//! and a `tojson`, `raise_exception` and `strftime_now` of its own (`utils/chat_template_utils.py`). minijinja does most of
//! that; what it does otherwise than Jinja2 and Python is put right here: in the source of the template (`source`), in how
//! values become text (`python`), in their methods (`methods`), and in filters and tests (`filters`).

mod filters;
mod limits;
mod methods;
mod python;
mod source;

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// The one template of an environment.
const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn new(template: &str) -> Result<Self, String> {
        if template.len() > limits::MOST_SOURCE {
            return Err(format!("it has more than {} MiB", limits::MOST_SOURCE >> 20));
        }
        limits::within(|| Self::compiled(template))
    }

    fn compiled(template: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(limits::MOST_STEPS));
        environment.set_recursion_limit(limits::MOST_CALLS);
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| said(&error))?);
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(|out, _, value| out.write_str(&python::text(value)?).map_err(minijinja::Error::from));
        filters::register(&mut environment);
        environment.remove_global("debug");
        environment.add_global("self", Value::from_object(std::collections::BTreeMap::<String, Value>::new()));
        environment.add_function("raise_exception", |text: &Value| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, python::text(text)?))
        });
        environment.add_function("strftime_now", |format: &str| python::strftime(&chrono::Local::now(), format));
        environment
            .add_function("joiner", |separator: Option<String>| methods::joiner(separator.unwrap_or(", ".into())));
        environment.add_template_owned(NAME, source::prepare(template)?).map_err(|error| said(&error))?;
        Ok(Self { environment })
    }

    /// The text that a template makes of variables: `messages`, `tools`, `documents`, `add_generation_prompt` and others.
    ///
    /// # Errors
    /// When the template refuses them, as with `raise_exception`, or passes a limit.
    pub fn render(&self, variables: &Map<String, Json>) -> Result<String, String> {
        limits::within(|| {
            let template = self.environment.get_template(NAME).map_err(|error| said(&error))?;
            let mut text = limits::Bounded::default();
            template.render_captured_to(Value::from(Serde(variables)), &mut text).map_err(|error| said(&error))?;
            String::from_utf8(text.0).map_err(|error| error.to_string())
        })
    }
}

/// An error with its line, without the words that minijinja adds for its own kinds of errors.
fn said(error: &minijinja::Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            format!("it takes more than {} steps (64 bytes that it makes are one)", limits::MOST_STEPS)
        }
        // Of a writer.
        (ErrorKind::WriteFailure, _) => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), |s| s.to_string())
        }
        (_, Some(detail)) => detail.chars().take(2000).collect(),
        (kind, None) => kind.to_string(),
    };
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (line {line} of the template)"))
}

/// An error of an operation.
fn wrong(what: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Whether Python can iterate over it; over an undefined value it can.
fn is_iterable(value: &Value) -> bool {
    !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number | ValueKind::Plain)
}

/// Items of a value as Python iterates over it.
fn items(value: &Value) -> Result<Vec<Value>, minijinja::Error> {
    if !is_iterable(value) {
        return Err(wrong(format!("{} object is not iterable", value.kind())));
    }
    value.try_iter()?.checked().map(|item| limits::work(limits::ITEM).and(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each construct as transformers renders it (`cases.json`; `scripts/templates.py` does the same with real templates).
    #[test]
    fn templates_are_rendered_as_transformers_renders_them() {
        let file: Json = serde_json::from_str(include_str!("cases.json")).unwrap();
        let values = file["values"].as_object().unwrap();
        for case in file["cases"].as_array().unwrap() {
            let template = case[0].as_str().unwrap();
            let ours = ChatTemplate::new(template).and_then(|template| template.render(values));
            match case[1].as_str() {
                Some(text) => assert_eq!(ours.as_deref(), Ok(text), "{template}"),
                None => assert!(ours.is_err(), "{template}: {ours:?}"),
            }
        }
    }

    #[test]
    fn what_a_template_refuses_is_said() {
        let refuses =
            |template: &str| ChatTemplate::new(template).and_then(|template| template.render(&Map::new())).unwrap_err();
        assert_eq!(refuses("a\n{{ raise_exception('no system') }}"), "no system (line 2 of the template)");
        assert!(refuses("{% if %}").contains("line 1"));
        assert!(refuses("{{ x.y }}").contains("undefined"));
    }

    /// Each would have no end, or take the process down.
    #[test]
    fn what_has_no_end_is_refused_with_its_limit() {
        let chain = |start: &str, part: &str, times: usize, end: &str| format!("{start}{}{end}", part.repeat(times));
        let cases = [
            ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into(), "steps"),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x'*999 }}{% endfor %}{% endfor %}".into(),
                "MiB",
            ),
            ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(), "recursion"),
            (
                "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}".into(),
                "more than",
            ),
            (
                "{% set n = namespace(a=['x']) %}{% for i in range(60) %}{% set n.a = n.a + n.a %}{% endfor %}".into(),
                "characters and items",
            ),
            ("{{ '%1000000000d' % 5 }}".into(), "more than 1000000 characters"),
            ("{{ '%1000000000d'|format(5) }}".into(), "steps"),
            ("{{ '{:>10000000000}'.format('x') }}".into(), "more than 1000000 characters"),
            ("{{ ('{0}'*99999).format('x'*9999) }}".into(), "64 MiB"),
            ("{{ 'ab'|indent(1000000000) }}".into(), "1000000 characters"),
            ("{{ ('a'*999999)|replace('', 'x'*999999) }}".into(), "64 MiB"),
            ("{{ ('\\t'*999999).expandtabs(1000) }}".into(), "64 MiB"),
            ("{{ ('x'*999999)|list|join('y'*9999) }}".into(), "64 MiB"),
            ("{% set n = namespace() %}{% set n.a = n %}{{ n }}".into(), "into itself"),
            ("{% set n = namespace() %}{% set n.a = [{'b': n}] %}{{ n|tojson }}".into(), "into itself"),
            (
                "{% set n = namespace(a=1) %}{% for i in range(9999) %}{% set n.a = [n.a] %}{% endfor %}".into(),
                "nested",
            ),
            (chain("", "{% set x = [x] %}", 9999, "{{ x }}"), "nested"),
            (chain("{% set x = [1] %}", "{% set x = x|list|batch(1) %}", 9999, ""), "nested"),
            (chain("", "{% if 1 %}", 20000, ""), "recursion"),
            (chain("{% if 0 %}", "{% elif 0 %}", 20000, "{% endif %}"), "500 `elif`"),
            (chain("{{ ", "(", 20000, "1 }}"), "100 brackets"),
            (chain("{{ ", "[", 3000, "1 }}"), "100 brackets"),
            (chain("{{ ", "-", 20000, "1 }}"), "1000 operators"),
            (chain("{{ ", "not ", 20000, "1 }}"), "1000 operators"),
            (chain("{{ 1", "+1", 20000, " }}"), "1000 operators"),
            (chain("{{ x", "|upper", 20000, " }}"), "1000 operators"),
            (chain("{{ x", ".a", 20000, " }}"), "1000 operators"),
            (chain("{{ 1", " if 1 else 1", 20000, " }}"), "1000 operators"),
            ("x".repeat(2 << 20), "more than 1 MiB"),
        ];
        let mut wrong = Vec::new();
        for (template, says) in cases {
            let answer = ChatTemplate::new(&template).and_then(|template| template.render(&Map::new()));
            let said = answer.map_or_else(|said| said, |text| format!("{} bytes", text.len()));
            if !said.contains(says) {
                wrong.push((template.chars().take(90).collect::<String>(), says, said));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn what_is_long_and_ends_is_rendered() {
        let all = |template: &str| ChatTemplate::new(template).and_then(|template| template.render(&Map::new()));
        assert_eq!(all(&format!("{{{{ 1{} }}}}", "+1".repeat(900))).as_deref(), Ok("901"));
        let entries: String = (0..5000).map(|n| format!("'k{n}': 'v' ~ {n},")).collect();
        assert_eq!(all(&format!("{{% set d = {{{entries}}} %}}{{{{ d.k4999 }}}}")).as_deref(), Ok("v4999"));
        assert_eq!(all("{% for i in range(99999) %}x{% endfor %}").map(|text| text.len()), Ok(99999));
        let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(40), ")".repeat(40));
        assert_eq!(all(&brackets).as_deref(), Ok("1"));
    }

    #[test]
    fn dates_are_written_as_python_writes_them() {
        use chrono::TimeZone as _;
        let at = chrono::Local.with_ymd_and_hms(2026, 1, 5, 7, 8, 9).unwrap();
        let written = |format| python::strftime(&at, format).unwrap();
        assert_eq!(written("%d %b %Y"), "05 Jan 2026");
        assert_eq!(written("%-d.%-m. %H:%M:%S %A %j %p 100%% %f%z%Z"), "5.1. 07:08:09 Monday 005 AM 100% 000000");
        assert_eq!(written("%Q %"), "%Q %");
    }
}
