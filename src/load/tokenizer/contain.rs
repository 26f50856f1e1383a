//! Panics of the tokenizers library become errors.
//!
//! The library rests on its files being whole: a damaged `tokenizer.json` can pass its reader and panic when a text is
//! encoded. Everything that calls it goes through [`contained`], which is the one place where a panic is caught, and where
//! it is kept off the terminal.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is within the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

static QUIET: Once = Once::new();

/// Runs a call of the library.
///
/// # Errors
/// What it says, or what it panicked with.
pub fn contained<T>(call: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    QUIET.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                others(info);
            }
        }));
    });
    let outside = INSIDE.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outside);
    match ended {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("the file is damaged: the tokenizers library gave up ({})", text.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::contained;

    #[test]
    fn a_panic_is_an_error() {
        let error = contained(|| -> Result<(), tokenizers::Error> { panic!("index {} is out", 7) }).unwrap_err();
        assert!(error.contains("damaged") && error.contains("index 7 is out"), "{error}");
        assert_eq!(contained(|| Ok(3)), Ok(3));
    }
}
