//! Code of others that panics on damaged input (parquet, tokenizers): the panic becomes an error of that input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a panic in it is handed back as what it said, and nothing is printed.
///
/// # Errors
/// What the panic said.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                before(info);
            }
        }));
    });
    let outer = CONTAINED.replace(true);
    // Whatever it worked on is dropped with it.
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(outer);
    result.map_err(|said| {
        let text = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| said.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_what_comes_after_goes_on() {
        assert_eq!(contained(|| 7), Ok(7));
        let number = 3;
        assert_eq!(contained(|| -> u32 { panic!("at {number}") }), Err("at 3".to_owned()));
        assert_eq!(contained(|| contained(|| panic!("inner")).is_err()), Ok(true));
        assert!(!CONTAINED.get());
    }
}
