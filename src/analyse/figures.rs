//! Further figures of a row by their keys. A table may have a hundred thousand rows with two dozen of them each: one allocation
//! per row, and no copy of a key that is fixed.

use std::borrow::Cow;

/// Figures by key, in the order of the keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures(Vec<(Cow<'static, str>, f64)>);

impl Figures {
    /// A figure.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.0.get(self.position(key).ok()?).map(|(_, value)| *value)
    }

    /// Puts a figure in, in place of the one under its key.
    pub fn insert(&mut self, key: impl Into<Cow<'static, str>>, value: f64) {
        let key = key.into();
        match self.position(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Puts a figure in, unless there is one under its key.
    pub fn insert_new(&mut self, key: impl Into<Cow<'static, str>>, value: f64) {
        let key = key.into();
        if let Err(at) = self.position(&key) {
            self.0.insert(at, (key, value));
        }
    }

    /// Puts many in, each in place of the one under its key.
    pub fn extend(&mut self, more: impl IntoIterator<Item = (Cow<'static, str>, f64)>) {
        if self.0.is_empty() {
            self.0.extend(more);
            self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
            // Of equal keys the last one counts: the sort is stable, and the later one moves into the place that stays.
            self.0.dedup_by(|later, stays| {
                let same = later.0 == stays.0;
                if same {
                    stays.1 = later.1;
                }
                same
            });
        } else {
            more.into_iter().for_each(|(key, value)| self.insert(key, value));
        }
    }

    /// Takes out what is under keys of this kind.
    pub fn remove(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.0.retain(|(key, _)| !is_gone(key));
    }

    /// Keys and figures.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_ref())
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.as_ref().cmp(key))
    }
}

impl FromIterator<(String, f64)> for Figures {
    fn from_iter<I: IntoIterator<Item = (String, f64)>>(figures: I) -> Self {
        let mut found = Self::default();
        found.extend(figures.into_iter().map(|(key, value)| (key.into(), value)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_under_a_key_counts() {
        let mut figures: Figures =
            [("b", 1.0), ("a", 2.0), ("b", 3.0)].map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        assert_eq!(figures.iter().collect::<Vec<_>>(), [("a", 2.0), ("b", 3.0)]);
        figures.extend([("c".into(), 4.0), ("a".into(), 5.0)]);
        figures.insert_new("a", 6.0);
        figures.insert_new("aa", 7.0);
        figures.remove(|key| key == "b");
        assert_eq!(figures.iter().collect::<Vec<_>>(), [("a", 5.0), ("aa", 7.0), ("c", 4.0)]);
        assert_eq!((figures.get("c"), figures.get("b")), (Some(4.0), None));
    }
}
