//! The arrays of a result that was saved with `--save-detailed`: one entry per request, failed ones with an error text.

use std::path::Path;

use serde::Deserialize;

use crate::analyse::Requests;
use crate::results::files;
use crate::results::result_file::read_text;

/// vLLM's arrays, in seconds and tokens.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Arrays {
    /// What nobody counted is null.
    input_lens: Vec<Option<f64>>,
    output_lens: Vec<f64>,
    ttfts: Vec<f64>,
    itls: Vec<Vec<f64>>,
    start_times: Vec<f64>,
    errors: Vec<Option<String>>,
    vllm_bench_load: Ours,
}

/// What `vllm-bench load` adds to vLLM's keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ours {
    start_times: Vec<f64>,
}

/// Reads the requests of a result; `None` where its file does not have them. `part`: which of several results.
///
/// # Errors
/// Why the file cannot be taken.
pub(super) fn read(path: &Path, part: Option<usize>) -> Result<Option<Requests>, String> {
    let Some(text) = read_text(path).map_err(|refusal| refusal.reason)? else { return Ok(None) };
    let wrong = |error| format!("without usable arrays: {error}");
    let mut arrays: Arrays = match (text.trim_start().as_bytes().first(), part) {
        (Some(b'{'), None) => serde_json::from_str(&text).map_err(wrong)?,
        (Some(b'{'), Some(part)) => {
            let mut results = serde_json::Deserializer::from_str(&text).into_iter::<Arrays>();
            results.nth(part).transpose().map_err(wrong)?.unwrap_or_default()
        }
        (Some(b'['), _) => {
            let mut results: Vec<Arrays> = serde_json::from_str(&text).map_err(wrong)?;
            let part = part.unwrap_or(0);
            if part < results.len() { results.swap_remove(part) } else { Arrays::default() }
        }
        _ => return Ok(files::requests(path, part)),
    };
    if arrays.start_times.is_empty() {
        arrays.start_times = std::mem::take(&mut arrays.vllm_bench_load.start_times);
    }
    Ok(requests_of(&arrays))
}

fn requests_of(arrays: &Arrays) -> Option<Requests> {
    let of = |list: &[f64], index: usize| list.get(index).copied();
    let mut completed: Vec<usize> = (0..arrays.ttfts.len())
        .filter(|index| arrays.errors.get(*index).and_then(Option::as_ref).is_none_or(String::is_empty))
        .collect();
    completed.sort_by(|a, b| of(&arrays.start_times, *a).partial_cmp(&of(&arrays.start_times, *b)).unwrap_or(a.cmp(b)));
    if completed.is_empty() {
        return None;
    }
    let first = arrays.start_times.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let mut requests = Requests::default();
    for index in completed {
        let ttft = of(&arrays.ttfts, index).unwrap_or_default();
        requests.ttft_ms.push(ttft * 1e3);
        requests.start_s.extend(of(&arrays.start_times, index).map(|start| start - first));
        requests.input_tokens.extend(arrays.input_lens.get(index).copied().flatten());
        requests.output_tokens.extend(of(&arrays.output_lens, index));
        if let Some(gaps) = arrays.itls.get(index) {
            let further: f64 = gaps.iter().sum();
            requests.e2el_ms.push((ttft + further) * 1e3);
            requests.itl_ms.extend(gaps.iter().map(|gap| gap * 1e3));
            if let Some(tokens) = of(&arrays.output_lens, index).filter(|tokens| *tokens > 1.0) {
                requests.tpot_ms.push(further / (tokens - 1.0) * 1e3);
            }
        }
    }
    Some(requests)
}

#[cfg(test)]
mod tests {
    use crate::results::requests::*;

    #[test]
    fn failed_requests_are_left_out_and_the_order_is_that_of_the_starts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let text = r#"{"ttfts": [0.2, 0.0, 0.1], "itls": [[0.01, 0.03], [], [0.02]], "output_lens": [3, 0, 2],
            "input_lens": [8, 8, 9], "start_times": [11.0, 10.5, 10.0], "errors": ["", "gone", ""], "completed": 2}"#;
        std::fs::write(&path, text).unwrap();
        let requests = read(&path, None).unwrap().unwrap();
        assert_eq!((requests.len(), requests.ttft_ms, requests.start_s), (2, vec![100.0, 200.0], vec![0.0, 1.0]));
        assert_eq!(requests.e2el_ms.iter().map(|v| v.round()).collect::<Vec<_>>(), [120.0, 240.0]);
        assert_eq!(requests.tpot_ms.iter().map(|v| v.round()).collect::<Vec<_>>(), [20.0, 20.0]);
        assert_eq!((requests.input_tokens, requests.output_tokens), (vec![9.0, 8.0], vec![2.0, 3.0]));
        // `vllm-bench load` keeps the times of sending among its own keys, as vLLM 0.14.1 has none.
        std::fs::write(&path, r#"{"ttfts": [0.2, 0.1], "vllm_bench_load": {"start_times": [0.5, 0.0]}}"#).unwrap();
        let requests = read(&path, None).unwrap().unwrap();
        assert_eq!((requests.ttft_ms, requests.start_s), (vec![100.0, 200.0], vec![0.0, 0.5]));
        std::fs::write(&path, r#"{"completed": 2}"#).unwrap();
        assert_eq!(read(&path, None).unwrap(), None);
    }
}
