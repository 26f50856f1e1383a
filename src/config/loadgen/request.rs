//! What requests carry beside prompts (headers, key, sampling), and which metrics are wanted of them.

use serde_json::{Map, Value};

use super::numbers::{always, argument, invalid, number, pairs};
use crate::cli::LoadArgs;
use crate::config::handover::expanded;
use crate::config::{Environment, Error};
use crate::load::metrics::Goal;
use crate::load::target::Secret;
use crate::safe;

/// The value with what `${NAME}` stands for: a secret that is in the environment needs not stand on a command line.
fn with_variables(flag: &'static str, text: &str, environment: &Environment) -> Result<String, Error> {
    expanded(text, environment).map_err(|name| {
        argument(
            flag,
            format!("the variable `{name}` is not set"),
            format!("export {name}=…; `${{{name}}}` stands for its value"),
        )
    })
}

pub(super) fn headers(items: &[String], environment: &Environment) -> Result<Vec<(String, String)>, Error> {
    let mut headers = pairs("--header", items, '=', "`KEY=VALUE`")?;
    for (name, value) in &mut headers {
        *value = with_variables("--header", value, environment)?;
        safe::learn(safe::in_header(&format!("{name}={value}")));
    }
    for (name, value) in &headers {
        let token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'+^`|#$%&".contains(&byte));
        // The value may be a secret: it is not shown.
        if !token || value.chars().any(char::is_control) {
            return Err(invalid(
                "--header",
                name,
                "a name of letters, digits and dashes, and a value without line breaks",
            ));
        }
        let own = ["content-length", "transfer-encoding", "host", "connection"];
        if own.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(argument("--header", format!("`{name}` is set by the client itself"), "leave it out"));
        }
    }
    Ok(headers)
}

pub(super) fn api_key(args: &LoadArgs, environment: &Environment) -> Result<Option<Secret>, Error> {
    let key = match (&args.api_key_file, &args.api_key_env) {
        (Some(_), Some(_)) => {
            return Err(argument("--api-key-file", "contradicts --api-key-env", "leave one of the two out"));
        }
        (Some(path), None) => {
            let path = environment.absolute(path);
            let text = crate::bounded::read_named(&path, crate::bounded::NOTE).map_err(|error| {
                argument(
                    "--api-key-file",
                    format!("cannot read `{}`: {error}", path.display()),
                    "name a file with the key alone in it",
                )
            })?;
            Some(text.trim().to_owned())
        }
        (None, Some(name)) => {
            let value = environment.get(name).map(str::to_owned);
            if value.is_none() {
                return Err(argument(
                    "--api-key-env",
                    format!("the variable `{name}` is not set"),
                    format!("export {name}=…"),
                ));
            }
            value
        }
        (None, None) => environment.get("OPENAI_API_KEY").or(environment.get("VLLM_API_KEY")).map(str::to_owned),
    };
    let key = key.filter(|key| !key.is_empty());
    if key.as_ref().is_some_and(|key| key.chars().any(|c| c.is_control() || !c.is_ascii())) {
        return Err(argument(
            "--api-key-file",
            "the key has characters that no header can carry",
            "check the file or variable",
        ));
    }
    Ok(key.map(Secret::new))
}

/// The sampling parameters and `--extra-body`, which wins.
pub(super) fn extra_body(args: &LoadArgs, environment: &Environment) -> Result<Map<String, Value>, Error> {
    let mut body = Map::new();
    let any = |_: f64| true;
    for (flag, key, text) in [
        ("--top-p", "top_p", &args.top_p),
        ("--top-k", "top_k", &args.top_k),
        ("--min-p", "min_p", &args.min_p),
        ("--temperature", "temperature", &args.temperature),
        ("--frequency-penalty", "frequency_penalty", &args.frequency_penalty),
        ("--presence-penalty", "presence_penalty", &args.presence_penalty),
        ("--repetition-penalty", "repetition_penalty", &args.repetition_penalty),
    ] {
        if let Some(value) = number(flag, text.as_ref(), any, "a number")? {
            let whole = key == "top_k" && value.fract() == 0.0;
            body.insert(key.to_owned(), if whole { (value as i64).into() } else { value.into() });
        }
    }
    if let Some(text) = &args.extra_body {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            argument("--extra-body", format!("is not JSON: {error}"), "write an object: --extra-body '{\"top_k\": 5}'")
        })?;
        let Value::Object(more) = value else {
            return Err(invalid("--extra-body", text, "a JSON object"));
        };
        let mut more = Value::Object(more);
        in_leaves(&mut more, environment)?;
        safe::learn(safe::json_secrets(&more.to_string()));
        if let Value::Object(more) = more {
            body.extend(more);
        }
    }
    Ok(body)
}

/// Texts that are `${NAME}` and nothing else become what that stands for; others may mean the signs.
fn in_leaves(value: &mut Value, environment: &Environment) -> Result<(), Error> {
    match value {
        Value::Object(map) => map.values_mut().try_for_each(|value| in_leaves(value, environment)),
        Value::Array(items) => items.iter_mut().try_for_each(|value| in_leaves(value, environment)),
        Value::String(text) if text.starts_with("${") && safe::is_reference(text) => {
            *text = with_variables("--extra-body", text, environment)?;
            safe::learn([text.as_str()]);
            Ok(())
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

pub(super) fn metrics(args: &LoadArgs) -> Result<Vec<String>, Error> {
    let text = always("--percentile-metrics", args.percentile_metrics.as_deref())?;
    text.split(',')
        .map(|metric| match metric.trim() {
            metric @ ("ttft" | "tpot" | "itl" | "e2el") => Ok(metric.to_owned()),
            other => Err(invalid("--percentile-metrics", other, "ttft, tpot, itl or e2el")),
        })
        .collect()
}

pub(super) fn percentiles(args: &LoadArgs) -> Result<Vec<f64>, Error> {
    let text = always("--metric-percentiles", args.metric_percentiles.as_deref())?;
    text.split(',')
        .map(|item| {
            let which = item.trim().parse::<f64>().ok().filter(|which| (0.0..=100.0).contains(which));
            which.ok_or_else(|| invalid("--metric-percentiles", item, "numbers from 0 to 100"))
        })
        .collect()
}

pub(super) fn goodput(args: &LoadArgs) -> Result<Vec<(Goal, f64)>, Error> {
    let expected = "`ttft:MS`, `tpot:MS` or `e2el:MS`";
    pairs("--goodput", &args.goodput, ':', expected)?
        .into_iter()
        .map(|(name, value)| {
            let goal = match name.as_str() {
                "ttft" => Goal::Ttft,
                "tpot" => Goal::Tpot,
                "e2el" => Goal::E2el,
                _ => return Err(invalid("--goodput", &name, expected)),
            };
            let most = value.parse::<f64>().ok().filter(|most| *most >= 0.0);
            Ok((goal, most.ok_or_else(|| invalid("--goodput", &value, "milliseconds"))?))
        })
        .collect()
}
