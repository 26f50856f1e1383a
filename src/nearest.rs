//! The word that was probably meant.

/// No key and no name is longer; the time to compare grows with the square of it.
const LONGEST: usize = 200;

/// The known word nearest to this one; `None` where none is near.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let known = known.filter(|known| known.len() <= LONGEST);
    let near = known.map(|known| (strsim::jaro_winkler(&word, &known.to_ascii_lowercase()), known));
    near.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// The first known word of which a part (between `_`, `-` and `.`) is near to this one.
pub fn nearest_part<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let parts = |known: &'a str| known.split(['_', '-', '.']).filter(|part| part.len() >= 4);
    let near =
        known.map(|known| (parts(known).map(|part| strsim::jaro_winkler(word, part)).fold(0.0, f64::max), known));
    let near = near.filter(|(likeness, _)| word.len() <= LONGEST && *likeness > 0.8);
    near.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_known_word_may_be_meant() {
        let known = ["mean_ttft_ms", "request_throughput", "output_throughput"];
        assert_eq!(nearest_part("thruput", known.into_iter()), Some("request_throughput"));
        assert_eq!(nearest_part("zzz", known.into_iter()), None);
    }

    #[test]
    fn a_near_word_is_found_and_a_far_one_is_not() {
        let known = ["serve", "bench", "experiments"];
        assert_eq!(nearest("sevre", known.into_iter()), Some("serve"));
        assert_eq!(nearest("experiment", known.into_iter()), Some("experiments"));
        assert_eq!(nearest("zzz", known.into_iter()), None);
        let endless = "serve".repeat(2_000_000);
        assert_eq!(nearest(&endless, [endless.as_str()].into_iter()), None);
    }
}
