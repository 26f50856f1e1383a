//! Chat templates, rendered as Hugging Face transformers renders them, byte for byte.
//!
//! transformers gives templates to Jinja2 with `trim_blocks`, `lstrip_blocks`, loop controls, a `{% generation %}` block,
//! and a `tojson`, `raise_exception` and `strftime_now` of its own (`utils/chat_template_utils.py`). minijinja does most of
//! that; what it does otherwise than Jinja2 and Python is put right here: in the source of the template (`source`), in how
//! values become text (`python`), in their methods (`methods`), and in filters and tests (`filters`).

mod filters;
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
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| said(&error))?);
        environment.set_unknown_method_callback(methods::call);
        environment.set_formatter(|out, _, value| out.write_str(&python::text(value)).map_err(minijinja::Error::from));
        filters::register(&mut environment);
        environment.remove_global("debug");
        environment.add_global("self", Value::from_object(std::collections::BTreeMap::<String, Value>::new()));
        environment.add_function("raise_exception", |text: &Value| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, python::text(text)))
        });
        environment.add_function("strftime_now", |format: &str| python::strftime(&chrono::Local::now(), format));
        environment
            .add_function("joiner", |separator: Option<String>| methods::joiner(separator.unwrap_or(", ".into())));
        environment.add_template_owned(NAME, source::prepare(template)).map_err(|error| said(&error))?;
        Ok(Self { environment })
    }

    /// The text that a template makes of variables: `messages`, `tools`, `documents`, `add_generation_prompt` and others.
    ///
    /// # Errors
    /// When the template refuses them, as with `raise_exception`.
    pub fn render(&self, variables: &Map<String, Json>) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| said(&error))?;
        template.render(Value::from(Serde(variables))).map_err(|error| said(&error))
    }
}

/// An error with its line, without the words that minijinja adds for its own kinds of errors.
fn said(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
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
    value.try_iter()?.checked().collect()
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
