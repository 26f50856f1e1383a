//! The prompts of the SLURM sweep: rows of a data set, a template around each, a system message, sampling. The built-in client sends
//! them; vLLM's own has no templates.

use indexmap::IndexMap;

use super::cluster::{Loads, choices, put};
use super::{Draft, number, several, wrong};
use crate::config::Origin;
use crate::config::tree::{Diagnostic, Entry, Kind, Node};
use crate::load::dataset;

/// Arguments that say what is sent.
pub(super) const PROMPTS: [&str; 8] = [
    "input-dataset-name",
    "input-dataset-config",
    "input-dataset-split",
    "prompt-column",
    "prompt-template",
    "system-prompt",
    "rollouts-per-document",
    "max-concurrent-documents",
];

/// Arguments that are flags of `vllm-bench load`: theirs, ours, their default (empty = left out).
const LOAD: [(&str, &str, &str); 6] = [
    ("input-dataset-name", "dataset-path", "simplescaling/s1K-1.1"),
    ("input-dataset-config", "hf-subset", ""),
    ("input-dataset-split", "hf-split", "train"),
    ("prompt-column", "prompt-column", "question"),
    ("system-prompt", "system-prompt", ""),
    ("rollouts-per-document", "n", ""),
];

/// What a template must hold: the document takes its place.
const PLACE: &str = "[[DOCUMENT]]";

/// The key under which a result has the name of its template.
const NAME: &str = "prompt_template_name";

/// The loads of an experiment. The room for a document follows from two arguments, and a template has a name and a text: where one of
/// these is an axis, each value is a group.
pub(super) fn loads(
    draft: &mut Draft,
    merged: &IndexMap<String, &Entry>,
    experiment: &Node,
    path: &str,
) -> Result<Loads, Diagnostic> {
    let origin = &experiment.origin;
    let mut base = Node::map(origin);
    for (theirs, ours, default) in LOAD {
        put(&mut base, ours, merged.get(theirs).map(|e| &e.value), default, theirs, origin)?;
    }
    if let Some(documents) = merged.get("max-concurrent-documents") {
        draft.note(
            &documents.value,
            "`max-concurrent-documents` has no effect: `max-concurrent-generations` says how many are sent at once",
        );
    }
    let named = base.get("dataset-path").and_then(|node| several(node)[0].scalar()).unwrap_or_default();
    let kind = match dataset::Name::of_path(&named) {
        dataset::Name::Hf => "hf",
        _ => "file",
    };
    let flags: Vec<(&'static str, Node)> =
        LOAD.iter().filter_map(|(_, ours, _)| Some((*ours, base.get(ours)?.clone()))).collect();
    // What is asked for a local file does not choose a part of a hub's data set.
    let flags = flags.into_iter().filter(|(key, _)| kind == "hf" || !key.starts_with("hf-"));
    let flags: Vec<_> = flags
        .chain([
            ("dataset-name", Node::text(kind, origin)),
            ("backend", Node::text("openai-chat", origin)),
            // In the order of the data set, as the format's program reads it.
            ("disable-shuffle", Node::new(Kind::Bool(true), origin)),
        ])
        .collect();
    let outputs = choices(merged, "max-tokens", 16384, experiment, path)?;
    let templates = templates(merged.get("prompt-template").map(|e| &e.value), path)?;
    let mut loads = Loads::new();
    for (context, context_node) in choices(merged, "model-max-context", 32768, experiment, path)? {
        for (output, output_node) in &outputs {
            for template in &templates {
                let mut load = flags.clone();
                load.push(("output-len", output_node.clone()));
                // A document is cut to the room that it has; what is longer in tokens all the same is left out.
                load.push(("max-tokens-filter", number(context.saturating_sub(*output).max(1), output_node)));
                load.extend(template.flags(origin));
                loads.push((context_node.clone(), load));
            }
        }
    }
    Ok(loads)
}

/// A text around each document.
struct Template {
    name: Option<Node>,
    text: Option<Node>,
}

impl Template {
    fn flags(&self, origin: &Origin) -> Vec<(&'static str, Node)> {
        let mut flags = Vec::new();
        // Without one the document itself is sent, cut as well.
        let bare = || Node::text(PLACE, origin);
        flags.push(("prompt-template", self.text.clone().unwrap_or_else(bare)));
        if let Some(name) = &self.name {
            let text = format!("{NAME}={}", name.scalar().unwrap_or_default());
            flags.push(("metadata", Node::text(text, &name.origin)));
        }
        flags
    }
}

/// None, a text, `[name, text]`, or a list of such pairs.
fn templates(given: Option<&Node>, path: &str) -> Result<Vec<Template>, Diagnostic> {
    let path = format!("{path}.args.prompt-template");
    let Some(given) = given else { return Ok(vec![Template { name: None, text: None }]) };
    let items = match given.items() {
        None => std::slice::from_ref(given),
        Some(items) if items.iter().all(|item| item.items().is_none()) => std::slice::from_ref(given),
        Some(items) => items,
    };
    items.iter().map(|item| template(item, &path)).collect()
}

fn template(node: &Node, path: &str) -> Result<Template, Diagnostic> {
    let expected = || wrong(node, path, "a text with `[[DOCUMENT]]`, or `[name, text]`");
    let text = |node: &Node| {
        let text = node.scalar().filter(|text| text.contains(PLACE)).ok_or_else(expected)?;
        Ok(Some(Node::text(text, &node.origin)))
    };
    match node.items() {
        None if node.scalar().is_none_or(|text| ["", "none", "null"].contains(&text.to_lowercase().as_str())) => {
            Ok(Template { name: None, text: None })
        }
        None => Ok(Template { name: None, text: text(node)? }),
        Some([name, own]) if name.scalar().is_some() => Ok(Template { name: Some(name.clone()), text: text(own)? }),
        Some(_) => Err(expected()),
    }
}
