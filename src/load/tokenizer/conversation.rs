//! What a chat template is given: messages, tools, documents and the names of special tokens, put in order first as
//! transformers and vLLM's server do it.

use serde_json::{Map, Value, json};

use super::Error;
use crate::load::prompt::Message;

/// Names that a message's reasoning goes by; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A conversation with everything else that a template may use.
#[derive(Debug, Clone)]
pub struct Conversation {
    values: Map<String, Value>,
}

impl Conversation {
    /// A conversation as a file has it: a list of messages, or an object with `messages` and whatever else the template
    /// reads (`tools`, `documents`, `add_generation_prompt`, `enable_thinking`). It is rendered as transformers'
    /// `apply_chat_template` renders it: keys of messages without a value are left out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_json(value: Value) -> Result<Self, String> {
        let mut values = match value {
            Value::Array(_) => Map::from_iter([("messages".to_owned(), value)]),
            Value::Object(values) => values,
            _ => return Err("expected a list of messages, or an object with `messages`".into()),
        };
        let Some(Value::Array(messages)) = values.get_mut("messages") else {
            return Err("`messages` is missing or no list".into());
        };
        for (number, message) in messages.iter_mut().enumerate() {
            let Value::Object(fields) = message else {
                return Err(format!("message {} is no object: expected {{role, content}}", number + 1));
            };
            *fields =
                with_reasoning(std::mem::take(fields).into_iter().filter(|(_, value)| !value.is_null()).collect());
        }
        for key in ["tools", "documents"] {
            if values.get(key).is_some_and(|value| !value.is_null() && !value.is_array()) {
                return Err(format!("`{key}` is no list"));
            }
        }
        Ok(Self { values })
    }

    /// Messages as vLLM's server hands them to the template: parts of texts are joined by line ends unless the template
    /// goes through parts itself, and arguments of tool calls are objects.
    ///
    /// # Errors
    /// When a message has something other than text, which only the server can turn into tokens.
    pub fn of_server(messages: &[Message], takes_parts: bool) -> Result<Self, Error> {
        let failed = |reason: String| Error::Template { reason };
        let mut ready = Vec::new();
        for message in messages {
            if let Some(kind) = message.beyond_text() {
                return Err(failed(format!("a message has a part of type `{kind}`, and only the server can count it")));
            }
            let mut fields = match json!(message) {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
            if !takes_parts && message.content.is_array() {
                fields.insert("content".into(), message.text().into());
            } else if takes_parts && let Some(text) = message.content.as_str() {
                fields.insert("content".into(), json!([{"type": "text", "text": text}]));
            }
            for call in fields.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(arguments) = call.pointer_mut("/function/arguments")
                    && let Some(text) = arguments.as_str()
                {
                    *arguments =
                        if text.is_empty() { json!({}) } else { serde_json::from_str(text).unwrap_or(json!(text)) };
                }
            }
            ready.push(Value::Object(fields));
        }
        Self::of_json(Value::Array(ready)).map_err(failed)
    }

    /// Whether tools are given, so that a template for tools is to be used.
    pub fn has_tools(&self) -> bool {
        self.values.get("tools").is_some_and(|tools| !tools.is_null())
    }

    /// The variables of the template; `named` are the special tokens of the model.
    pub fn variables(&self, named: &Map<String, Value>) -> Map<String, Value> {
        let mut variables = named.clone();
        for key in ["tools", "documents"] {
            variables.insert(key.to_owned(), Value::Null);
        }
        variables.insert("add_generation_prompt".into(), true.into());
        variables.extend(self.values.clone());
        variables
    }
}

/// Reasoning is there under all names that templates read, as in transformers.
fn with_reasoning(fields: Map<String, Value>) -> Map<String, Value> {
    let Some(reasoning) = REASONING.iter().find_map(|key| fields.get(*key)).cloned() else { return fields };
    let mut ready = Map::from_iter([("thinking".to_owned(), reasoning.clone())]);
    ready.extend(fields);
    ready.insert("reasoning_content".into(), reasoning);
    ready
}

/// Whether a template goes through the parts of a message's content (vLLM: the content format `openai`): a loop over
/// something that ends in `content`, of a message.
pub fn takes_parts(template: &str) -> bool {
    let tags = template.split("{%").skip(1).filter_map(|tag| tag.split("%}").next());
    let mut names: Vec<String> = Vec::new();
    for tag in tags {
        let tag = tag.trim_matches(['-', '+']).trim();
        if let Some(set) = tag.strip_prefix("set ")
            && let Some((name, value)) = set.split_once('=')
            && is_content(value.trim())
        {
            names.push(name.trim().to_owned());
        }
        let Some(list) = tag.strip_prefix("for ").and_then(|rest| rest.split_once(" in ")) else { continue };
        let list = list.1.split(" if ").next().unwrap_or_default().trim();
        let list = list.split('|').next().unwrap_or_default().trim();
        if is_content(list) || names.iter().any(|name| name == list) {
            return true;
        }
    }
    false
}

/// `message.content` or `message['content']`.
fn is_content(expression: &str) -> bool {
    let ends = [".content", "['content']", "[\"content\"]"];
    ends.iter().any(|end| expression.strip_suffix(end).is_some_and(|before| !before.contains([' ', '(', '+'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_the_template_takes() {
        assert!(takes_parts("{% for m in messages %}{%- for part in m['content'] -%}{% endfor %}{% endfor %}"));
        assert!(takes_parts("{% set c = message.content %}{% for p in c if p.type == 'text' %}{% endfor %}"));
        assert!(!takes_parts("{% for m in messages %}{{ m.content }}{% endfor %}"));
        let part = |text: &str| json!({"type": "text", "text": text});
        let message: Message =
            serde_json::from_value(json!({"role": "user", "content": [part("a"), part("b")]})).unwrap();
        let variables =
            |parts| Conversation::of_server(std::slice::from_ref(&message), parts).unwrap().variables(&Map::new());
        assert_eq!(variables(false)["messages"][0]["content"], "a\nb");
        assert_eq!(variables(true)["messages"][0]["content"][1]["text"], "b");
        let plain = Conversation::of_server(&[Message::new("user", "a")], true).unwrap().variables(&Map::new());
        assert_eq!(plain["messages"][0]["content"], json!([part("a")]));
        let image = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
        let image: Message = serde_json::from_value(image).unwrap();
        let error = Conversation::of_server(&[image], true).unwrap_err().to_string();
        assert!(error.contains("`image_url`"), "{error}");
    }

    #[test]
    fn conversations_are_put_in_order() {
        let call = json!({"function": {"name": "f", "arguments": "{\"a\": 1}"}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call], "reasoning": "r"});
        let message: Message = serde_json::from_value(message).unwrap();
        let ready = Conversation::of_server(&[message], false).unwrap().variables(&Map::new());
        let first = &ready["messages"][0];
        assert_eq!(first["tool_calls"][0]["function"]["arguments"]["a"], 1);
        assert_eq!((&first["thinking"], &first["reasoning_content"]), (&json!("r"), &json!("r")));
        assert!(first.get("content").is_none() && ready["tools"].is_null() && ready["add_generation_prompt"] == true);
        for wrong in [json!(1), json!({"messages": 1}), json!([1]), json!({"messages": [], "tools": 1})] {
            assert!(Conversation::of_json(wrong).is_err());
        }
    }
}
