//! Laying one tree upon another.

use indexmap::IndexMap;

use super::{Entry, Kind, Node};
use crate::plan::PROMPTS_PER_CONCURRENCY;

/// Lists of the top level that add up over files.
const ADDED: [&str; 3] = ["experiments", "exclude", "include"];
/// Maps whose values are axes, which are replaced as a whole.
const AXES: [&str; 4] = ["serve", "bench", "env", "baseline"];

/// Lays one sweep upon another: maps merge key by key; `experiments`, `exclude` and `include` add up; everything else is
/// replaced by the one above. A section with nothing below it (`serve:`) says nothing.
#[must_use]
pub fn merge(below: Node, above: Node) -> Node {
    let (Kind::Map(mut map), Kind::Map(more)) = (below.kind, above.kind) else {
        return Node { kind: Kind::Map(IndexMap::new()), origin: below.origin };
    };
    for (key, entry) in more {
        match map.get_mut(&key) {
            None => drop(map.insert(key, entry)),
            Some(place) => {
                let under = std::mem::replace(&mut place.value, Node::new(Kind::Null, &entry.key));
                let merged = match (under.kind, entry.value.kind) {
                    (under @ (Kind::Map(_) | Kind::List(_)), Kind::Null) => {
                        Node { kind: under, origin: entry.value.origin }
                    }
                    (Kind::List(mut items), Kind::List(more)) if ADDED.contains(&key.as_str()) => {
                        items.extend(more);
                        Node { kind: Kind::List(items), origin: entry.value.origin }
                    }
                    (Kind::Map(mut axes), Kind::Map(more)) if AXES.contains(&key.as_str()) => {
                        merge_axes(&mut axes, more, key == "env");
                        Node { kind: Kind::Map(axes), origin: entry.value.origin }
                    }
                    (Kind::Map(under), Kind::Map(over)) => {
                        Node { kind: Kind::Map(merge_maps(under, over)), origin: entry.value.origin }
                    }
                    (_, over) => Node { kind: over, origin: entry.value.origin },
                };
                *place = Entry { key: entry.key, value: merged };
            }
        }
    }
    Node { kind: Kind::Map(map), origin: above.origin }
}

/// Lays axes upon axes. A flag and its opposite (`no-x`) replace each other, because the last one given is meant;
/// variables have no opposites.
pub fn merge_axes(below: &mut IndexMap<String, Entry>, above: IndexMap<String, Entry>, variables: bool) {
    for (key, entry) in above {
        for rival in rivals(&key, variables) {
            below.shift_remove(&rival);
        }
        below.insert(key, entry);
    }
}

/// Keys that another one replaces: its opposite, and the other way to say how many prompts there are.
pub fn rivals(key: &str, variables: bool) -> Vec<String> {
    if variables {
        return Vec::new();
    }
    let mut rivals = vec![key.strip_prefix("no-").map_or_else(|| format!("no-{key}"), str::to_owned)];
    match key {
        "num-prompts" => rivals.push(PROMPTS_PER_CONCURRENCY.to_owned()),
        PROMPTS_PER_CONCURRENCY => rivals.push("num-prompts".to_owned()),
        _ => {}
    }
    rivals
}

fn merge_maps(mut below: IndexMap<String, Entry>, above: IndexMap<String, Entry>) -> IndexMap<String, Entry> {
    for (key, entry) in above {
        let under = below.get_mut(&key).map(|entry| std::mem::replace(&mut entry.value.kind, Kind::Null));
        let kind = match (under, entry.value.kind) {
            (Some(Kind::Map(under)), Kind::Map(over)) => Kind::Map(merge_maps(under, over)),
            (_, over) => over,
        };
        below.insert(key, Entry { key: entry.key, value: Node { kind, origin: entry.value.origin } });
    }
    below
}
