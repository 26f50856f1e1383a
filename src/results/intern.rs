//! What rows have in common, held once: a table may have a hundred thousand of them.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::analyse::{Load, Row};

/// Loads and flags among which a row looks for its own.
const MOST: usize = 16;

/// The loads and flags that are known already.
#[derive(Default)]
pub(super) struct Shared {
    loads: Vec<Arc<Load>>,
    flags: Vec<Arc<IndexMap<String, String>>>,
}

impl Shared {
    /// Lets a row share its load and its flags with the others that have the same. In the same order too, which needs no look-up.
    pub fn share(&mut self, row: &mut Row) {
        share(&mut row.load, &mut self.loads, |a, b| a.0.iter().eq(b.0.iter()));
        share(&mut row.about.flags, &mut self.flags, |a, b| a.iter().eq(b.iter()));
    }
}

fn share<T>(own: &mut Arc<T>, known: &mut Vec<Arc<T>>, same: impl Fn(&T, &T) -> bool) {
    if let Some(found) = known.iter().find(|known| Arc::ptr_eq(known, own) || same(known, own)) {
        *own = Arc::clone(found);
    } else if known.len() < MOST {
        known.push(Arc::clone(own));
    }
}

#[cfg(test)]
mod tests {
    use crate::analyse::LoadValue;
    use crate::model::Engine;
    use crate::report::tests::fixture::Fixture;
    use crate::results::intern::*;
    use crate::results::read_run;

    #[test]
    fn rows_of_the_same_load_share_it_and_others_keep_their_own() {
        let mut run = Fixture::new(&["org/m"], &[2, 4], Engine::Vllm);
        run.pass(0, 1.5, 20.0);
        let run = run.close(1.0);
        let row = read_run(run.path()).unwrap().rows.remove(0);
        let load = |length: &str| {
            let mut row = row.clone();
            row.load = Arc::new(Load([("random-input-len".to_owned(), LoadValue::Exact(length.to_owned()))].into()));
            row
        };
        let mut rows = [load("8"), load("16"), load("8")];
        let mut shared = Shared::default();
        rows.iter_mut().for_each(|row| shared.share(row));
        assert!(Arc::ptr_eq(&rows[0].load, &rows[2].load) && !Arc::ptr_eq(&rows[0].load, &rows[1].load));
        assert_eq!(rows[1].load, load("16").load);
    }
}
