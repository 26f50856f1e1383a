//! What a template may do at most: the author of one may be anybody, and what it asks for may have no end.
//!
//! minijinja's own fuel counts the steps of a template and the data that they make. What is counted here is what it cannot see: the
//! work of our filters and methods, texts that grow within one of them, values within values, and source that nests too deep
//! for a reader that calls itself.

use std::cell::Cell;

use minijinja::{Error, Value};

use super::filters::Generator;
use super::methods::View;
use super::wrong;
use crate::contained::contained;

/// Bytes of a template: the largest known one has 20 KB.
pub const MOST_SOURCE: usize = 1 << 20;
/// Steps of a template, and 64 bytes that it makes count as one.
pub const MOST_STEPS: u64 = if cfg!(test) { 4_000_000 } else { 20_000_000 };
/// Bytes of its text, and of each text on the way there.
pub const MOST_TEXT: usize = 64 << 20;
/// Characters that texts are padded to by one call.
pub const MOST_PADDED: usize = 1_000_000;
/// Calls within calls.
pub const MOST_CALLS: usize = 200;
/// Brackets within brackets.
pub const MOST_BRACKETS: usize = 100;
/// Operators, filters and attributes of one expression that build upon each other.
pub const MOST_OPERATORS: usize = 1000;
/// `elif` tags.
pub const MOST_BRANCHES: usize = 500;
/// Lists within lists.
const MOST_NESTED: usize = 250;
/// Bytes that filters and methods look at; an item counts as [`ITEM`] of them.
const MOST_WORK: u64 = if cfg!(test) { 100_000_000 } else { 500_000_000 };
/// Work of one item.
pub const ITEM: usize = 16;
/// Work of one value that is looked into: of sums of lists each asks all of them.
const LOOKED_INTO: usize = 64;
/// The stack that the limits above fit into.
const STACK: usize = 64 << 20;

thread_local! {
    static WORK: Cell<u64> = const { Cell::new(0) };
}

/// Runs what compiles or renders a template where the stack is known to be large enough.
///
/// # Errors
/// As `work`, or when it panics or no thread can be had.
pub fn within<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || contained(work));
        let ended = thread.map_err(|error| format!("no thread can be had: {error}"))?.join();
        ended
            .unwrap_or_else(|_| Err("a panic".into()))
            .unwrap_or_else(|said| Err(format!("it cannot be read ({said})")))
    })
}

/// Counts work that minijinja's fuel does not.
pub fn work(amount: usize) -> Result<(), Error> {
    let done = WORK.get().saturating_add(amount as u64);
    WORK.set(done);
    if done > MOST_WORK {
        Err(wrong(format!("its filters look at more than {MOST_WORK} characters and items")))
    } else {
        Ok(())
    }
}

/// Whether a text may have so many bytes.
pub fn grown(bytes: usize) -> Result<(), Error> {
    if bytes > MOST_TEXT { Err(wrong(format!("a text in it has more than {} MiB", MOST_TEXT >> 20))) } else { Ok(()) }
}

/// Whether values may be within so many others.
pub fn nested(depth: usize) -> Result<(), Error> {
    if depth > MOST_NESTED {
        Err(wrong(format!("a value in it is nested in more than {MOST_NESTED} others")))
    } else {
        Ok(())
    }
}

/// Whether a value may be put into these namespaces: it is not nested too deep, and holds none of them.
pub fn may_be_put(value: &Value, into: &[Value], depth: usize) -> Result<(), Error> {
    nested(depth)?;
    work(LOOKED_INTO)?;
    if value.as_object().is_none() {
        return Ok(());
    }
    if into.iter().any(|namespace| minijinja::tests::is_sameas(value, namespace)) {
        return Err(wrong("a namespace is put into itself"));
    }
    let each = |item: &Value| may_be_put(item, into, depth + 1);
    if let Some(generator) = value.downcast_object_ref::<Generator>() {
        return generator.left().iter().try_for_each(each);
    }
    if let Some(view) = value.downcast_object_ref::<View>() {
        return view.items.iter().try_for_each(each);
    }
    let Ok(items) = value.try_iter() else { return Ok(()) };
    for item in items.checked() {
        let item = item?;
        each(&item)?;
        if value.kind() == minijinja::value::ValueKind::Map {
            each(&value.get_item(&item)?)?;
        }
    }
    Ok(())
}

/// What is written, up to [`MOST_TEXT`].
#[derive(Debug, Default)]
pub struct Bounded(pub Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_TEXT {
            return Err(std::io::Error::other(format!("its text has more than {} MiB", MOST_TEXT >> 20)));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
