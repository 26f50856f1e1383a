//! One module per vendor. Each finds its devices (`find`) and reads their used memory cheaply (`memory`).

pub(super) mod amd;
pub(super) mod nvidia;
pub(super) mod xpu;

use serde_json::Value;

/// A whole number that a tool wrote as a number or as text; `N/A` and the like are `None`.
fn whole(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64)),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text that says something; `N/A` and the like are `None`.
fn said(value: Option<&Value>) -> Option<String> {
    value?.as_str().and_then(meaningful)
}

/// Tools fill gaps with words: those are not values.
fn meaningful(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.trim_matches(['[', ']', '(', ')']).to_ascii_lowercase();
    let empty = ["", "n/a", "na", "none", "unknown", "unknown error", "not supported", "not available"];
    (!empty.contains(&bare.as_str())).then(|| text.to_owned())
}

/// The JSON document in a tool's output, which may have warnings before or after it.
pub(super) fn json_in(text: &str) -> Option<Value> {
    let starts = text.char_indices().filter(|(_, sign)| matches!(sign, '{' | '[')).map(|(at, _)| at);
    for start in starts.take(50) {
        let mut documents = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        if let Some(Ok(document @ (Value::Object(_) | Value::Array(_)))) = documents.next() {
            return Some(document);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_that_fill_gaps_are_unknown() {
        for text in ["N/A", "[N/A]", "[Not Supported]", "", " [Unknown Error] "] {
            assert_eq!(meaningful(text), None, "{text}");
            assert_eq!(whole(Some(&json!(text))), None, "{text}");
        }
        assert_eq!(whole(Some(&json!("12"))), Some(12));
        assert_eq!(whole(Some(&json!(12.0))), Some(12));
        assert_eq!(whole(None), None);
    }

    #[test]
    fn json_is_found_among_warnings() {
        assert_eq!(json_in("WARNING: [x] odd\n{\"a\": 1}\nbye"), Some(json!({"a": 1})));
        assert_eq!(json_in("no devices"), None);
    }
}
