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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Origin;
    use crate::config::load;

    fn tree(text: &str) -> Node {
        load::parse(text, "a.yaml").unwrap()
    }

    fn texts(node: &Node) -> String {
        match &node.kind {
            Kind::List(items) => format!("[{}]", items.iter().map(texts).collect::<Vec<_>>().join(" ")),
            Kind::Map(map) => {
                let entries = map.iter().map(|(key, entry)| format!("{key}={}", texts(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
            Kind::Null => "~".into(),
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => node.scalar().unwrap(),
        }
    }

    #[test]
    fn maps_merge_lists_of_groups_add_up_and_axes_are_replaced() {
        let below = tree(
            "serve: {a: [1, 2], b: 3, j: {x: 1}}\nexperiments: [{name: x}]\ntimeouts: {grace: 1s, startup: 2s}\n\
             bench: {num-prompts: 5}\norder: grouped\nenv: {A: 1, no-A: 2}",
        );
        let above = tree(
            "serve: {a: [4], no-b: true, j: {y: 2}}\nexperiments: [{name: y}]\ntimeouts: {grace: 3s}\n\
             bench: {num-prompts-per-concurrency: 2}\norder: random\nenv:",
        );
        assert_eq!(
            texts(&merge(below, above)),
            "{serve={a=[4] j={y=2} no-b=true} experiments=[{name=x} {name=y}] timeouts={grace=3s startup=2s} \
             bench={num-prompts-per-concurrency=2} order=random env={A=1 no-A=2}}"
        );
    }

    fn document() -> impl Strategy<Value = Node> {
        let origin = Origin::flag("x");
        let value = prop_oneof![
            Just(Kind::Null),
            "[a-c]{1,2}".prop_map(Kind::Text),
            proptest::collection::vec("[0-9]{1,2}", 1..3).prop_map({
                let origin = origin.clone();
                move |numbers| Kind::List(numbers.into_iter().map(|n| Node::text(n, &origin)).collect())
            }),
        ];
        let key = prop_oneof![Just("serve"), Just("timeouts"), Just("experiments"), Just("rules"), Just("env")];
        let map = proptest::collection::vec(("(no-)?[a-d]", value), 0..4);
        proptest::collection::vec((key, map), 0..5).prop_map(move |sections| {
            let mut tree = Node::map(&origin);
            for (section, map) in sections {
                let mut entries = IndexMap::new();
                let axes = map
                    .into_iter()
                    .map(|(key, kind)| (key, Entry { key: origin.clone(), value: Node::new(kind, &origin) }));
                merge_axes(&mut entries, axes.collect(), false);
                let map = Node::new(Kind::Map(entries), &origin);
                let value = if section == "experiments" { Node::list(vec![map], &origin) } else { map };
                tree.put(&[section], value);
            }
            tree
        })
    }

    fn sorted(mut node: Node) -> String {
        for entry in node.entries_mut().into_iter().flat_map(IndexMap::values_mut) {
            if let Some(map) = entry.value.entries_mut() {
                map.sort_keys();
            }
        }
        if let Some(map) = node.entries_mut() {
            map.sort_keys();
        }
        texts(&node)
    }

    proptest! {
        #[test]
        fn merging_is_associative_and_nothing_changes_nothing(a in document(), b in document(), c in document()) {
            let left = merge(merge(a.clone(), b.clone()), c.clone());
            let right = merge(a.clone(), merge(b, c));
            // The order of a flag that its opposite replaced in between may differ.
            prop_assert_eq!(sorted(left), sorted(right));
            let nothing = || Node::map(&Origin::flag("x"));
            prop_assert_eq!(texts(&merge(nothing(), a.clone())), texts(&a));
            prop_assert_eq!(texts(&merge(a.clone(), nothing())), texts(&a));
        }

        #[test]
        fn what_the_upper_one_says_holds(a in document(), b in document()) {
            let merged = merge(a, b.clone());
            for section in ["serve", "timeouts", "rules", "env"] {
                for (key, entry) in b.get(section).and_then(Node::entries).into_iter().flatten() {
                    prop_assert_eq!(texts(merged.find(&[section, key]).unwrap()), texts(&entry.value));
                }
            }
        }
    }
}
