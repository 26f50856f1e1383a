//! Data sets of Hugging Face's hub: from the local cache, else over HTTP.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::rows::{self, Rows};
use super::{Error, Hub};

/// Endings of files with rows, the preferred ones first.
const ENDINGS: [&str; 4] = ["parquet", "jsonl", "json", "csv"];
/// Files that are no data.
const OTHER: [&str; 3] = ["dataset_infos.json", "dataset_info.json", "config.json"];

/// The rows of a data set's split.
///
/// # Errors
/// When it is neither in the cache nor to be had.
pub fn rows(hub: &Hub, name: &str, subset: Option<&str>, split: Option<&str>) -> Result<Rows, Error> {
    if let Some(folder) = hub.cache.snapshot("datasets", name) {
        let files: Vec<String> = below(&folder, &folder);
        let chosen = choose(&files, subset, split);
        if !chosen.is_empty() {
            return chosen.iter().try_fold(Rows::default(), |mut all, file| {
                all.extend(rows::read(&folder.join(file))?);
                Ok(all)
            });
        }
    }
    if hub.offline {
        let place = hub.cache.hub.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let reason = format!(
            "it is not in the cache ({place}), and HF_HUB_OFFLINE forbids to fetch it; name a file with --dataset-path"
        );
        return Err(Error::Hub { name: name.to_owned(), reason });
    }
    fetch(hub, name, subset, split)
}

/// All files below a folder, as paths relative to it.
fn below(root: &Path, folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(below(root, &path));
        } else if let Ok(relative) = path.strip_prefix(root) {
            files.push(relative.display().to_string());
        }
    }
    files.sort();
    files
}

/// The files of a split: of one ending, and with subset and split in their path where any file has them.
fn choose<'a>(files: &'a [String], subset: Option<&str>, split: Option<&str>) -> Vec<&'a String> {
    let ending = |file: &str, ending: &str| Path::new(file).extension().is_some_and(|found| found == ending);
    let data = |file: &&String| !OTHER.iter().any(|other| file.ends_with(other));
    let Some(kind) = ENDINGS.iter().find(|kind| files.iter().filter(data).any(|file| ending(file, kind))) else {
        return Vec::new();
    };
    let mut chosen: Vec<&String> = files.iter().filter(data).filter(|file| ending(file, kind)).collect();
    for part in [subset, Some(split.unwrap_or("train"))].into_iter().flatten() {
        let within: Vec<&String> = chosen.iter().filter(|file| file.contains(part)).copied().collect();
        if !within.is_empty() {
            chosen = within;
        }
    }
    chosen
}

fn fetch(hub: &Hub, name: &str, subset: Option<&str>, split: Option<&str>) -> Result<Rows, Error> {
    let failed = |reason: String| Error::Hub { name: name.to_owned(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let client = crate::http::through_proxy(false)
        .connect_timeout(Duration::from_secs(20))
        .timeout(Duration::from_secs(1800))
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let get = |url: String| {
        let mut request = client.get(&url);
        if let Some(token) = &hub.token {
            request = request.bearer_auth(token.expose());
        }
        async move {
            let response = request.send().await.map_err(|error| crate::bounded::chain(&error))?;
            let status = response.status();
            match status.as_u16() {
                200 => crate::bounded::body(response, rows::MOST_BYTES).await,
                401 | 403 => {
                    Err(format!("HTTP {status} at {url}: a gated data set needs HF_TOKEN, and its terms accepted"))
                }
                _ => Err(format!("HTTP {status} at {url}")),
            }
        }
    };
    let listing = runtime.block_on(get(format!("{}/api/datasets/{name}", hub.endpoint))).map_err(failed)?;
    let listing: Value =
        serde_json::from_slice(&listing).map_err(|error| failed(format!("its description is no JSON: {error}")))?;
    let files: Vec<String> = listing
        .get("siblings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.get("rfilename")?.as_str()?.to_owned()))
        .collect();
    let chosen = choose(&files, subset, split);
    if chosen.is_empty() {
        return Err(failed(format!("it has no parquet, JSONL, JSON or CSV file among {} files", files.len())));
    }
    let mut all = Rows::default();
    for file in chosen {
        let bytes =
            runtime.block_on(get(format!("{}/datasets/{name}/resolve/main/{file}", hub.endpoint))).map_err(failed)?;
        let ending =
            PathBuf::from(file).extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        let mut held =
            tempfile::Builder::new().suffix(&ending).tempfile().map_err(|error| failed(error.to_string()))?;
        held.write_all(&bytes).map_err(|error| failed(error.to_string()))?;
        all.extend(rows::read(held.path())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tokenizer::Cache;

    #[test]
    fn the_cache_is_read_and_offline_means_offline() {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = folder.path().join("datasets--org--name/snapshots/abc");
        std::fs::create_dir_all(snapshot.join("data")).unwrap();
        std::fs::write(snapshot.join("data/train.jsonl"), "{\"prompt\": \"x\"}\n").unwrap();
        std::fs::write(snapshot.join("data/test.jsonl"), "{\"prompt\": \"y\"}\n").unwrap();
        std::fs::write(snapshot.join("dataset_infos.json"), "{}").unwrap();
        let cache = Cache { hub: Some(folder.path().to_owned()) };
        let hub = Hub { cache, endpoint: "http://127.0.0.1:1".into(), token: None, offline: true };
        assert_eq!(rows(&hub, "org/name", None, None).unwrap().get(0).unwrap().1["prompt"], "x");
        assert_eq!(rows(&hub, "org/name", None, Some("test")).unwrap().get(0).unwrap().1["prompt"], "y");
        let error = rows(&hub, "org/other", None, None).unwrap_err().to_string();
        assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
        let hub = Hub { offline: false, ..hub };
        assert!(rows(&hub, "org/other", None, None).is_err());
    }

    #[test]
    fn files_of_a_split_are_chosen() {
        let files: Vec<String> =
            ["README.md", "en/train-0.parquet", "en/test-0.parquet", "de/train-0.parquet", "x.csv"]
                .map(str::to_owned)
                .to_vec();
        assert_eq!(choose(&files, Some("en"), None), ["en/train-0.parquet"]);
        assert_eq!(choose(&files, Some("de"), Some("train")), ["de/train-0.parquet"]);
        assert!(choose(&["README.md".to_owned()], None, None).is_empty());
    }
}
