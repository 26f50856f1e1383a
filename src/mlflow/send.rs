//! Brings an outline to a server: looks for what is there by its tags, and sends what is not. Twice is once: each request may be the last,
//! and the next pass goes on from what it finds.
//!
//! A measurement is there when its mark is ([`Measurement::mark`]), which is in the last request of it. All that comes before is the same
//! when it is sent again: a file takes the place of itself, a point of a metric with the same time, step and value is one. Only
//! `runs/create` would make a second run: where nobody knows whether it arrived, it is looked for before it is sent again, and what was
//! made twice all the same is found by the next look, and the emptier one deleted.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::client::{Again, Client, Failure};
use super::files::{self, Artefact, Content};
use super::limits::{Batch, Pair, pairs};
use super::outline::{ABOVE, Entry, KEY, Measurement, Outline, PARENT, REPORTS, RUN, SERIES, Stands};
use super::series;
use crate::results::read_series;

/// Runs of one page of a search.
const PAGE: usize = 100;
/// Pages that are looked through: a server that always has another one ends here.
const PAGES: usize = 2000;
/// Points of a series in one request, beside the tag that says so.
const SERIES_BATCH: usize = 999;

/// A run of MLflow that is there.
#[derive(Debug, Clone)]
struct There {
    id: String,
    artifacts: String,
    status: String,
    ended: Option<i64>,
    tags: HashMap<String, String>,
    params: HashSet<String>,
}

impl There {
    fn of(run: &Value) -> Option<Self> {
        let info = run.get("info")?;
        let text = |key: &str| info.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list =
            |key: &str| run.pointer(&format!("/data/{key}")).and_then(Value::as_array).cloned().unwrap_or_default();
        let pair = |pair: &Value| {
            Some((pair.get("key")?.as_str()?.to_owned(), pair.get("value").and_then(Value::as_str)?.to_owned()))
        };
        // Old servers write numbers of 64 bits as texts.
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        Some(Self {
            id: Some(text("run_id")).filter(|id| !id.is_empty())?,
            artifacts: text("artifact_uri"),
            status: text("status"),
            ended: info.get("end_time").and_then(number),
            tags: list("tags").iter().filter_map(pair).collect(),
            params: list("params").iter().filter_map(|param| Some(param.get("key")?.as_str()?.to_owned())).collect(),
        })
    }

    /// How much of it is there.
    fn weight(&self) -> usize {
        self.tags.len() + self.params.len()
    }
}

/// What came of a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Measurements that there are to be sent.
    pub all: usize,
    /// Those that were there before.
    pub before: usize,
    /// Those that were sent.
    pub sent: usize,
    /// What the server refused or could not be read, in sentences.
    pub left_out: Vec<String>,
    /// Where a browser finds it.
    pub link: Option<String>,
}

impl Tally {
    /// Measurements that are not there.
    pub fn missing(&self) -> usize {
        self.all.saturating_sub(self.before + self.sent)
    }
}

/// Sends to one experiment of a server, and remembers what is there.
#[derive(Debug)]
pub struct Sender {
    /// Who asks.
    pub client: Client,
    /// The experiment's name.
    name: String,
    /// Its number, once it is known.
    experiment: Option<String>,
    /// What is there of the run, by its keys; `None` until it was looked for.
    there: Option<HashMap<String, There>>,
    /// Whether a run may have been made twice.
    doubtful: bool,
    /// How many measurements this pass has seen to, for who watches.
    pub progress: Arc<AtomicUsize>,
}

impl Sender {
    /// To this experiment.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name, experiment: None, there: None, doubtful: false, progress: Arc::default() }
    }

    /// The experiment's name.
    pub fn experiment(&self) -> &str {
        &self.name
    }

    /// Forgets what is there: it is looked for again.
    pub fn forget(&mut self) {
        self.there = None;
    }

    /// What of it is there already, without sending anything.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub async fn look(&mut self, outline: &Outline) -> Result<Tally, Failure> {
        self.there = Some(HashMap::new());
        self.experiment = self.find_experiment().await?;
        if self.experiment.is_some() {
            self.there = None;
            self.find_runs(&outline.run, false).await?;
        }
        let mut tally = Tally { all: outline.measurements(), link: self.link(), ..Tally::default() };
        let there = self.there.take().unwrap_or_default();
        for child in &outline.children {
            let marks = child.measurements.iter().map(|measurement| &measurement.mark);
            tally.before += marks.filter(|mark| there.get(&child.key).is_some_and(|there| has(there, mark))).count();
        }
        Ok(tally)
    }

    /// Sends what is missing. `root`: the run directory; `reports`: what is kept with the sweep, where that is over.
    ///
    /// # Errors
    /// Why it went no further; what was sent is there.
    pub async fn pass(
        &mut self,
        outline: &Outline,
        root: &Path,
        reports: Option<&[Artefact]>,
    ) -> Result<Tally, Failure> {
        let outcome = self.send(outline, root, reports).await;
        if outcome.is_err() {
            self.forget();
        }
        if outcome.is_ok() && self.doubtful {
            // What was lost on the way may have arrived after all.
            self.forget();
            self.find_runs(&outline.run, true).await?;
            self.doubtful = false;
        }
        outcome
    }

    async fn send(&mut self, outline: &Outline, root: &Path, reports: Option<&[Artefact]>) -> Result<Tally, Failure> {
        self.require_experiment().await?;
        if self.there.is_none() {
            self.find_runs(&outline.run, true).await?;
        }
        let mut tally = Tally { all: outline.measurements(), ..Tally::default() };
        let above = match &outline.parent {
            Some(parent) => {
                let id = self.require(&outline.run, parent, None).await?;
                let batches = Batch::split(Vec::new(), self.params(parent), Vec::new());
                self.batches(PARENT, batches, &parent.name, &mut tally).await?;
                Some(id)
            }
            None => None,
        };
        for child in &outline.children {
            self.child(outline, child, above.as_deref(), root, &mut tally).await?;
        }
        if let Some(parent) = &outline.parent {
            self.settle(parent, None, &mut tally).await?;
            if let Some(reports) = reports {
                self.reports(parent, reports, &mut tally).await?;
            }
        }
        tally.link = self.link();
        Ok(tally)
    }

    /// Where a browser finds the sweep.
    fn link(&self) -> Option<String> {
        let there = self.there.as_ref()?;
        let run = there.get(PARENT).or(if there.len() == 1 { there.values().next() } else { None })?;
        Some(format!("{}/#/experiments/{}/runs/{}", self.client.server().place.base, self.experiment.as_ref()?, run.id))
    }

    async fn find_experiment(&mut self) -> Result<Option<String>, Failure> {
        let name = self.name.clone();
        let found = match self.client.get("experiments/get-by-name", &[("experiment_name", &name)]).await {
            Err(Failure::Refused { code, .. }) if code == "RESOURCE_DOES_NOT_EXIST" => return Ok(None),
            found => found?,
        };
        let text = |key: &str| found.pointer(&format!("/experiment/{key}")).and_then(Value::as_str);
        if text("lifecycle_stage") == Some("deleted") {
            return Err(Failure::Refused {
                status: 400,
                code: "DELETED".into(),
                said: format!(
                    "its experiment `{name}` was deleted: restore it, or name another one with MLFLOW_EXPERIMENT_NAME"
                ),
            });
        }
        let id = text("experiment_id").ok_or_else(|| Failure::Odd("it names no experiment".into()))?;
        Ok(Some(id.to_owned()))
    }

    async fn require_experiment(&mut self) -> Result<(), Failure> {
        if self.experiment.is_some() {
            return Ok(());
        }
        self.experiment = self.find_experiment().await?;
        if self.experiment.is_none() {
            match self.client.post("experiments/create", &json!({"name": self.name}), Again::Yes).await {
                // Another one was faster.
                Err(Failure::Refused { code, .. }) if code == "RESOURCE_ALREADY_EXISTS" => {}
                created => drop(created?),
            }
            self.experiment = self.find_experiment().await?;
        }
        match &self.experiment {
            Some(_) => Ok(()),
            None => Err(Failure::Odd("it does not keep an experiment that it has made".into())),
        }
    }

    /// Looks for all that is there of the run. What is there twice is deleted but for one, where `heal` says so.
    async fn find_runs(&mut self, run: &str, heal: bool) -> Result<(), Failure> {
        let experiment = self.experiment.clone().unwrap_or_default();
        let mut there: HashMap<String, There> = HashMap::new();
        let mut twice = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES {
            let mut body = json!({
                "experiment_ids": [experiment], "filter": format!("tags.`{RUN}` = '{run}'"),
                "max_results": PAGE, "run_view_type": "ACTIVE_ONLY",
            });
            if let Some(token) = &token {
                body["page_token"] = json!(token);
            }
            let page = self.client.post("runs/search", &body, Again::Yes).await?;
            for found in page.get("runs").and_then(Value::as_array).into_iter().flatten() {
                let Some(found) = There::of(found) else {
                    return Err(Failure::Odd("it lists a run without a number".into()));
                };
                // It is believed only where it has the tag.
                if found.tags.get(RUN).is_none_or(|known| known != run) {
                    continue;
                }
                let Some(key) = found.tags.get(KEY).cloned() else { continue };
                if let Some(other) = there.remove(&key).filter(|other| other.id != found.id) {
                    let (keep, leave) = if (other.weight(), &found.id) >= (found.weight(), &other.id) {
                        (other, found)
                    } else {
                        (found, other)
                    };
                    twice.push(leave.id);
                    there.insert(key, keep);
                } else {
                    there.insert(key, found);
                }
            }
            token =
                page.get("next_page_token").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
            if token.is_none() {
                break;
            }
        }
        for id in twice.iter().filter(|_| heal) {
            self.client.post("runs/delete", &json!({"run_id": id}), Again::Yes).await?;
        }
        self.there = Some(there);
        Ok(())
    }

    fn known(&mut self, key: &str) -> Option<&mut There> {
        self.there.as_mut()?.get_mut(key)
    }

    /// The number of an entry's run, which is made where it is not there.
    async fn require(&mut self, run: &str, entry: &Entry, above: Option<&str>) -> Result<String, Failure> {
        if self.known(&entry.key).is_none() {
            self.create(run, entry, above).await?;
        }
        let known = self.known(&entry.key).map(|there| there.id.clone());
        known.ok_or_else(|| Failure::Odd("it does not keep a run that it has made".into()))
    }

    /// The settings of an entry that are not there.
    fn params(&mut self, entry: &Entry) -> Vec<Pair> {
        let there = self.known(&entry.key).map(|there| there.params.clone()).unwrap_or_default();
        entry.params.iter().filter(|(key, _)| !there.contains(key)).cloned().collect()
    }

    async fn create(&mut self, run: &str, entry: &Entry, above: Option<&str>) -> Result<(), Failure> {
        // It comes with all its tags: those that find it again, and those that need no further request then.
        let above = above.map(|above| (ABOVE.to_owned(), above.to_owned()));
        let tags: Vec<Pair> = entry.tags.iter().cloned().chain(above).collect();
        let body = json!({
            "experiment_id": self.experiment, "run_name": entry.name, "start_time": entry.begun, "tags": pairs(&tags),
        });
        match self.client.post("runs/create", &body, Again::No).await {
            Ok(created) => {
                let there = created.get("run").and_then(There::of);
                let there = there.ok_or_else(|| Failure::Odd("it makes a run without a number".into()))?;
                self.there.get_or_insert_default().insert(entry.key.clone(), there);
                Ok(())
            }
            Err(Failure::Away(why)) => {
                self.doubtful = true;
                self.find_runs(run, false).await?;
                if self.known(&entry.key).is_some() { Ok(()) } else { Err(Failure::Away(why)) }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sends batches to a run that is there. What is refused is told and left out.
    async fn batches(
        &mut self,
        key: &str,
        batches: Vec<Batch>,
        what: &str,
        tally: &mut Tally,
    ) -> Result<bool, Failure> {
        let Some(id) = self.known(key).map(|there| there.id.clone()) else { return Ok(false) };
        for batch in batches {
            let mut sent = self.client.post("runs/log-batch", &batch.body(&id), Again::Yes).await;
            if let (Err(Failure::Refused { status: 400, .. }), Some(short)) = (&sent, batch.shortened()) {
                sent = self.client.post("runs/log-batch", &short.body(&id), Again::Yes).await;
            }
            match sent {
                Ok(_) => {}
                Err(Failure::Refused { status: 400, said, .. }) => {
                    tally.left_out.push(format!("`{what}`: refused: {said}"));
                    return Ok(false);
                }
                Err(failure) => return Err(failure),
            }
            if let Some(there) = self.known(key) {
                there.params.extend(batch.params.into_iter().map(|(key, _)| key));
                there.tags.extend(batch.tags);
            }
        }
        Ok(true)
    }

    async fn child(
        &mut self,
        outline: &Outline,
        child: &Entry,
        above: Option<&str>,
        root: &Path,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let there = self.known(&child.key);
        let missing: Vec<&Measurement> = child
            .measurements
            .iter()
            .filter(|one| !there.as_ref().is_some_and(|there| has(there, &one.mark)))
            .collect();
        tally.before += child.measurements.len() - missing.len();
        self.progress.store(tally.before + tally.sent, Ordering::Relaxed);
        if !missing.is_empty() {
            self.require(&outline.run, child, above).await?;
        }
        for measurement in missing {
            tally.sent += usize::from(self.measurement(child, measurement, root, tally).await?);
        }
        self.settle(child, above, tally).await
    }

    /// Its files, its samples, then its metrics with the mark that all of it is there.
    async fn measurement(
        &mut self,
        child: &Entry,
        one: &Measurement,
        root: &Path,
        tally: &mut Tally,
    ) -> Result<bool, Failure> {
        for artefact in files::of_measurement(root, one) {
            self.put(&child.key, &artefact, tally).await?;
        }
        let whole = match &one.samples {
            Some(file) => self.samples(child, one, &root.join(file), tally).await?,
            None => true,
        };
        let batches = Batch::split(one.points.clone(), self.params(child), vec![one.mark.clone()]);
        Ok(self.batches(&child.key, batches, &one.name, tally).await? && whole)
    }

    async fn samples(
        &mut self,
        child: &Entry,
        one: &Measurement,
        file: &Path,
        tally: &mut Tally,
    ) -> Result<bool, Failure> {
        let lines = match read_series(file) {
            Ok(lines) => lines,
            Err(why) => {
                tally.left_out.push(format!("`{}`: its samples cannot be read: {why}", one.name));
                return Ok(true);
            }
        };
        let points = series::points(&lines, (one.step - 1) * series::MOMENTS + 1);
        let parts: Vec<Vec<_>> = points.chunks(SERIES_BATCH).map(<[_]>::to_vec).collect();
        for (points, part) in parts.into_iter().zip(1..) {
            // Each part has a mark of its own: a server that keeps every point that it gets is sent none twice.
            let mark = (format!("{SERIES}{}.{part}", one.step), one.mark.1.clone());
            if self.known(&child.key).is_some_and(|there| has(there, &mark)) {
                continue;
            }
            let batch = Batch { points, params: Vec::new(), tags: vec![mark] };
            if !self.batches(&child.key, vec![batch], &one.name, tally).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tags and status as they are now.
    async fn settle(&mut self, entry: &Entry, above: Option<&str>, tally: &mut Tally) -> Result<(), Failure> {
        let Some(there) = self.known(&entry.key) else { return Ok(()) };
        let above = above.map(|above| (ABOVE.to_owned(), above.to_owned()));
        let changed = entry.tags.iter().cloned().chain(above).filter(|tag| !has(there, tag)).collect();
        let is_so = there.status == entry.stands.word() && (entry.ended.is_none() || there.ended == entry.ended);
        let id = there.id.clone();
        self.batches(&entry.key, Batch::split(Vec::new(), Vec::new(), changed), &entry.name, tally).await?;
        if is_so {
            return Ok(());
        }
        let mut body = json!({"run_id": id, "status": entry.stands.word()});
        if let Some(ended) = entry.ended.filter(|_| entry.stands != Stands::Running) {
            body["end_time"] = json!(ended);
        }
        self.client.post("runs/update", &body, Again::Yes).await?;
        if let Some(there) = self.known(&entry.key) {
            (there.status, there.ended) = (entry.stands.word().to_owned(), entry.ended);
        }
        Ok(())
    }

    /// The reports of the sweep, unless these very ones are there.
    async fn reports(&mut self, parent: &Entry, reports: &[Artefact], tally: &mut Tally) -> Result<(), Failure> {
        let mark = (REPORTS.to_owned(), files::digest_of(reports));
        if self.known(PARENT).is_some_and(|there| has(there, &mark)) {
            return Ok(());
        }
        for artefact in reports {
            self.put(PARENT, artefact, tally).await?;
        }
        self.batches(PARENT, vec![Batch { tags: vec![mark], ..Batch::default() }], &parent.name, tally).await?;
        Ok(())
    }

    /// Puts a file to a run, where its artefacts go through the server.
    async fn put(&mut self, key: &str, artefact: &Artefact, tally: &mut Tally) -> Result<(), Failure> {
        let Some(place) = self.known(key).map(|there| there.artifacts.clone()) else { return Ok(()) };
        let Some(path) = place.strip_prefix("mlflow-artifacts:").and_then(files::path_of) else {
            let scheme = place.split_once(':').map_or("file", |(scheme, _)| scheme);
            let told = format!(
                "files are left out: this server keeps them in `{scheme}:`, where only MLflow's own client puts them"
            );
            if !tally.left_out.contains(&told) {
                tally.left_out.push(told);
            }
            return Ok(());
        };
        let content = match &artefact.content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::File(file) => match files::read(file) {
                Ok(bytes) => bytes,
                Err(why) => {
                    tally.left_out.push(format!("`{}`: {why}", artefact.path));
                    return Ok(());
                }
            },
        };
        match self.client.put(&format!("{path}/{}", artefact.path), content).await {
            Ok(()) => Ok(()),
            Err(Failure::Refused { status, said, .. }) if ![401, 403].contains(&status) => {
                tally.left_out.push(format!("`{}`: refused ({status}): {said}", artefact.path));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

fn has(there: &There, (key, value): &Pair) -> bool {
    there.tags.get(key) == Some(value)
}
