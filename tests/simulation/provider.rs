//! A provider that does what providers do on bad days. It keeps books of what it executed, and for whom; what became
//! of a batch is decided when it is created, and depends on true time alone. It speaks OpenAI's wire (files, metadata, two
//! result files), or Anthropic's: lines inline, no name on a batch, one result file, errors line by line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use nightbus::body::{Body, BoxError};
use nightbus::domain::clock::Micros;
use nightbus::domain::ids::BatchId;
use nightbus::upstream::capability::Capability;
use nightbus::upstream::provider::{
    BatchInput, BatchProvider, CreateBatch, Credentials, InputFile, LiveAnswer, LiveRequest, ProviderError,
    ProviderFuture, Sought,
};
use nightbus::wire::anthropic::line::stamp;
use nightbus::wire::batch::{BatchFault, BatchObject, BatchStatus};
use serde_json::json;

use crate::books::{Line, Outcome, SimBatch, answer, result_line, result_of_message};
use crate::world::{LiveExecution, MINUTE, SECOND, World};

#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) capability: Capability,
    pub(crate) world: Arc<World>,
}

fn no_answer(operation: &'static str, sent: bool) -> ProviderError {
    ProviderError::NoAnswer { operation, cause: "connection reset".to_owned(), may_have_taken_effect: sent }
}

fn refused(operation: &'static str, status: u16, code: &str) -> ProviderError {
    let body = json!({"error": {"code": code, "message": code}}).to_string();
    ProviderError::Refused {
        operation,
        status,
        code: code.to_owned(),
        message: code.to_owned(),
        body: Bytes::from(body),
        retry_after: (status == 429).then_some(SECOND * 20),
    }
}

impl Provider {
    /// The call has not taken effect.
    fn fails_before(&self, operation: &'static str) -> Result<(), ProviderError> {
        if !self.world.provider_fails(1.0) {
            return Ok(());
        }
        let error = match self.world.between(0..6) {
            0 => no_answer(operation, false),
            1 => no_answer(operation, true),
            2 => refused(operation, 500, "server_error"),
            3 => refused(operation, 503, ""),
            4 => refused(operation, 429, "rate_limit_exceeded"),
            _ => refused(operation, 408, ""),
        };
        self.world.note(&format!("{operation} fails before: {error}"));
        Err(error)
    }

    /// It has, or will have.
    fn fails_after(&self, operation: &'static str) -> Result<(), ProviderError> {
        if !self.world.provider_fails(1.0) {
            return Ok(());
        }
        let error = match self.world.between(0..4) {
            0 => no_answer(operation, true),
            1 => refused(operation, 500, "server_error"),
            2 => refused(operation, 504, ""),
            _ => ProviderError::Unreadable { operation, cause: "half a document".to_owned() },
        };
        self.world.note(&format!("{operation} fails after: {error}"));
        Err(error)
    }

    async fn travels(&self) {
        self.world.step().await;
        let most = if self.world.provider_fails(0.3) { 40_000 } else { 300 };
        self.world.takes(5..most).await;
    }

    /// Decides what becomes of a batch.
    fn plan(&self, stamp: BatchId, lines: &[(String, String)], late: Duration) -> SimBatch {
        let world = &self.world;
        let created_at = world.true_now().plus(late);
        let takes = SECOND * u32::try_from(world.between(20..1_500)).expect("small");
        let mut batch = SimBatch {
            stamp,
            lines: Vec::new(),
            created_at,
            listed_at: created_at.plus(SECOND * u32::try_from(world.between(0..15)).expect("small")),
            ends_at: created_at.plus(takes),
            end: BatchStatus::Completed,
            faults: Vec::new(),
            cancelled_at: None,
            files_at: Micros(0),
            lost_at: None,
            files_lost: false,
            inline: self.capability.inline,
        };
        for (custom_id, nonce) in lines {
            let share = world.with(|state| state.rng.f64());
            let outcome = if world.provider_fails(0.7) {
                let choices = [Outcome::Damaged, Outcome::Refused, Outcome::Failed, Outcome::NotRun, Outcome::Missing];
                choices[usize::try_from(world.between(0..5)).expect("small")]
            } else {
                world.with(|state| state.every_line).unwrap_or(Outcome::Answered)
            };
            let runs_at = created_at.plus(takes.mul_f64(share));
            batch.lines.push(Line { custom_id: custom_id.clone(), nonce: nonce.clone(), runs_at, outcome });
        }
        if world.provider_fails(0.8) {
            self.spoil(&mut batch, takes);
        }
        batch
    }

    /// Something goes wrong with the whole batch.
    fn spoil(&self, batch: &mut SimBatch, takes: Duration) {
        let world = &self.world;
        let fault = |code: &str, line: Option<usize>| BatchFault {
            code: code.to_owned(),
            message: code.to_owned(),
            param: None,
            line,
        };
        match world.between(0..10) {
            0 | 1 => {
                batch.end = BatchStatus::Expired;
                batch.ends_at = batch.created_at.plus(takes.mul_f64(world.with(|state| state.rng.f64())));
            }
            // Runs for hours, and does little.
            2 | 3 => {
                batch.end = BatchStatus::Expired;
                batch.ends_at = batch.created_at.plus(MINUTE * 120);
                let slow = |line: &mut Line| line.runs_at = line.runs_at.plus(MINUTE * 118);
                batch.lines.iter_mut().skip(1).for_each(slow);
            }
            4 => {
                batch.files_at = batch.ends_at.plus(SECOND * u32::try_from(world.between(1..200)).expect("small"));
            }
            5 => batch.lost_at = Some(batch.created_at.plus(takes / 2)),
            6 => batch.files_lost = true,
            // Its lines are not looked at before they run.
            _ if batch.inline => {}
            validation => {
                batch.end = BatchStatus::Failed;
                batch.ends_at = batch.created_at.plus(SECOND * 5);
                let line = usize::try_from(world.between(0..batch.lines.len() as u64)).expect("small");
                batch.faults = match (validation, world.between(0..4)) {
                    (7, _) => vec![fault("token_limit_exceeded", None)],
                    (8, _) => vec![fault("invalid_request", Some(line + 1))],
                    (_, 0) => vec![fault("invalid_request", None)],
                    (_, 1) => vec![fault("model_not_found", None)],
                    (_, 2) => vec![fault("weird", Some(900))],
                    _ => Vec::new(),
                };
            }
        }
        world.note(&format!("spoiled: {:?} {:?}, lost: {:?}", batch.end, batch.faults, batch.lost_at));
    }

    /// The batch with this id, if it is there now.
    fn visible<T>(&self, id: &str, look: impl FnOnce(&mut SimBatch, usize, Micros) -> T) -> Option<T> {
        let now = self.world.true_now();
        let at: usize = id.strip_prefix("batch_")?.parse().ok()?;
        self.world.with(|state| {
            let batch = state.provider.batches.get_mut(at)?;
            let there = now >= batch.created_at && batch.lost_at.is_none_or(|lost| now < lost);
            there.then(|| look(batch, at, now))
        })
    }

    /// The lines of a result file, as its bytes.
    fn file(&self, batch: &SimBatch, wants_output: bool) -> String {
        let world = &self.world;
        let mut lines: Vec<String> = batch
            .lines
            .iter()
            .filter(|line| batch.shows(line) && (batch.inline || batch.bills(line) == wants_output))
            .map(|line| if batch.inline { result_of_message(batch, line) } else { result_line(batch, line) })
            .collect();
        world.with(|state| state.rng.shuffle(&mut lines));
        let end = if world.happens(0.2) { "\r\n" } else { "\n" };
        if world.provider_fails(1.0) {
            let again = lines.first().cloned().unwrap_or_default();
            let stranger = format!("{{\"custom_id\":\"{}\",\"response\":null,\"error\":null}}", "req_0");
            lines.extend([again, String::new(), stranger, "{".to_owned()]);
        }
        let mut text = lines.join(end);
        if !world.happens(0.2) {
            text.push_str(end);
        }
        text
    }
}

/// The lines of a file, or of the call that creates a batch.
fn lines_in(content: &[u8], inline: bool) -> Vec<(String, String)> {
    let of = |line: &serde_json::Value, body: &str| {
        let text = |value: &serde_json::Value| value.as_str().expect("each has one").to_owned();
        (text(&line["custom_id"]), text(&line[body]["nonce"]))
    };
    if inline {
        let call: serde_json::Value = serde_json::from_slice(content).expect("JSON");
        return call["requests"].as_array().expect("a list").iter().map(|line| of(line, "params")).collect();
    }
    let text = std::str::from_utf8(content).expect("text");
    text.lines().map(|line| of(&serde_json::from_str(line).expect("JSON"), "body")).collect()
}

/// In pieces of a few bytes; broken off after some of them.
fn body(text: &str, piece: usize, cut_after: Option<usize>) -> Body {
    let mut frames: Vec<Result<Frame<Bytes>, BoxError>> =
        text.as_bytes().chunks(piece.max(1)).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect();
    if let Some(count) = cut_after {
        frames.truncate(count);
        frames.push(Err("connection reset".into()));
    }
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn nonce_in(body: &[u8]) -> String {
    let call: serde_json::Value = serde_json::from_slice(body).expect("bodies arrive whole");
    call["nonce"].as_str().expect("each has one").to_owned()
}

impl Provider {
    /// As `AnthropicProvider` looks: by time and by count, and told by the first line of the results.
    fn found_by_results(&self, sought: &Sought, now: Micros) -> Result<Option<BatchObject>, ProviderError> {
        let oldest = sought.since.0 - 3_600_000_000;
        let (mut undecided, mut found) = (false, None);
        self.world.with(|state| {
            for (at, batch) in state.provider.batches.iter().enumerate() {
                let object = batch.object(at, now);
                let count = u32::try_from(batch.lines.len()).expect("few");
                let may_be = batch.created_at.0 >= oldest
                    && sought.lines.contains(&count)
                    && !sought.others.contains(&object.id);
                if batch.listed_at > now || !may_be {
                    continue;
                }
                if object.status == BatchStatus::Running || object.results_pending {
                    undecided = true;
                } else if batch.lines.iter().any(|line| line.custom_id.ends_with(&stamp(sought.id))) {
                    found = Some(object);
                }
            }
        });
        self.world.note(&format!("looked up: {:?}, undecided: {undecided}", found.as_ref().map(|found| &found.id)));
        if found.is_none() && undecided {
            let cause = "a batch that may be ours cannot be told yet".to_owned();
            return Err(ProviderError::Unreadable { operation: "look-up", cause });
        }
        Ok(found)
    }
}

impl BatchProvider for Provider {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn upload<'a>(&'a self, _: &'a Credentials, file: InputFile) -> ProviderFuture<'a, String> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("upload")?;
            let Ok(content) = file.content.collect().await else { return Err(no_answer("upload", true)) };
            let content = content.to_bytes();
            if content.len() as u64 != file.length {
                self.world.broke(format!("a file of {} bytes was announced as {}", content.len(), file.length));
            }
            let lines = lines_in(&content, false);
            let at = self.world.with(|state| {
                state.provider.files.push(lines);
                state.provider.files.len() - 1
            });
            self.world.step().await;
            self.fails_after("upload")?;
            self.world.note(&format!("uploaded file-{at}"));
            Ok(format!("file-{at}"))
        })
    }

    fn create<'a>(&'a self, _: &'a Credentials, create: CreateBatch) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("create")?;
            if self.world.provider_fails(0.05) {
                let errors = [(401, "invalid_api_key"), (429, "insufficient_quota"), (400, "no_batch_for_model")];
                let (status, code) = errors[usize::try_from(self.world.between(0..3)).expect("small")];
                self.world.note(&format!("create is refused for good: {code}"));
                return Err(refused("create", status, code));
            }
            let refuses = self.world.with(|state| {
                let left = state.creations_to_refuse.checked_sub(1);
                state.creations_to_refuse = left.unwrap_or(0);
                left.is_some()
            });
            if refuses {
                return Err(refused("create", 400, "no_batch_for_model"));
            }
            let lines = match create.input {
                BatchInput::Uploaded(file) => {
                    let at: usize = file.strip_prefix("file-").and_then(|at| at.parse().ok()).expect("one of ours");
                    self.world.with(|state| state.provider.files[at].clone())
                }
                BatchInput::Inline { length, content } => {
                    let Ok(content) = content.collect().await else { return Err(no_answer("create", true)) };
                    let content = content.to_bytes();
                    if content.len() as u64 != length {
                        self.world.broke(format!("a call of {} bytes was announced as {length}", content.len()));
                    }
                    lines_in(&content, true)
                }
            };
            // The connection may be cut long before the gateway acts on what it has read.
            let late = self.world.provider_fails(0.5);
            let delay = if late { Duration::from_millis(self.world.between(1..15_000)) } else { Duration::ZERO };
            let batch = self.plan(create.id, &lines, delay);
            let name = self.world.batch_name(create.id);
            let (at, object) = self.world.with(|state| {
                let at = state.provider.batches.len();
                let object = batch.object(at, batch.created_at);
                state.provider.batches.push(batch);
                (at, object)
            });
            self.world.note(&format!("created batch_{at} for {name}, late by {delay:?}"));
            self.world.step().await;
            if late {
                return Err(no_answer("create", true));
            }
            self.fails_after("create")?;
            Ok(object)
        })
    }

    fn find<'a>(&'a self, _: &'a Credentials, sought: &'a Sought) -> ProviderFuture<'a, Option<BatchObject>> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("look-up")?;
            let now = self.world.true_now();
            if self.capability.inline {
                return self.found_by_results(sought, now);
            }
            let found = self.world.with(|state| {
                let mut batches = state.provider.batches.iter().enumerate();
                let (at, batch) = batches.find(|(_, batch)| batch.stamp == sought.id && batch.listed_at <= now)?;
                Some(batch.object(at, now))
            });
            self.world.note(&format!("looked up: {:?}", found.as_ref().map(|found| &found.id)));
            Ok(found)
        })
    }

    fn get<'a>(&'a self, _: &'a Credentials, id: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("poll")?;
            let stale = self.world.provider_fails(0.5);
            if stale && self.world.happens(0.5) {
                return Err(refused("poll", 404, "not_found"));
            }
            let object =
                self.visible(id, |batch, at, now| batch.object(at, if stale { batch.created_at } else { now }));
            object.ok_or_else(|| refused("poll", 404, "not_found"))
        })
    }

    fn cancel<'a>(&'a self, _: &'a Credentials, id: &'a str) -> ProviderFuture<'a, BatchObject> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("cancel")?;
            let takes = SECOND * u32::try_from(self.world.between(1..700)).expect("small");
            let object = self.visible(id, |batch, at, now| {
                if batch.ends_at > now && batch.cancelled_at.is_none() {
                    batch.cancelled_at = Some(now);
                    if batch.end != BatchStatus::Failed && now.plus(takes) < batch.ends_at {
                        batch.ends_at = now.plus(takes);
                        batch.end = BatchStatus::Cancelled;
                        batch.files_at = batch.files_at.min(batch.ends_at.plus(SECOND * 100));
                    }
                }
                batch.object(at, now)
            });
            self.world.note(&format!("cancelled {id}"));
            self.world.step().await;
            self.fails_after("cancel")?;
            object.ok_or_else(|| refused("cancel", 404, "not_found"))
        })
    }

    fn download<'a>(&'a self, _: &'a Credentials, file: &'a str) -> ProviderFuture<'a, Body> {
        Box::pin(async move {
            self.travels().await;
            self.fails_before("download")?;
            let (at, kind) = file.split_once('-').expect("one of ours");
            let at: usize = at.parse().expect("a number");
            let batch = self.world.with(|state| {
                let batch = &mut state.provider.batches[at];
                let lost = batch.lost_at;
                let copy = SimBatch { lines: batch.lines.clone(), faults: Vec::new(), ..*batch };
                (!batch.files_lost && lost.is_none()).then_some(copy)
            });
            let Some(batch) = batch else { return Err(refused("download", 404, "not_found")) };
            let text = self.file(&batch, kind == "output");
            let piece = usize::try_from(self.world.between(1..400)).expect("small");
            let cut = self.world.provider_fails(2.0);
            let most = (text.len() / piece) as u64 + 1;
            let cut_after = cut.then(|| usize::try_from(self.world.between(0..most)).expect("small"));
            Ok(body(&text, piece, cut_after))
        })
    }

    fn call<'a>(&'a self, _: &'a Credentials, call: LiveRequest) -> ProviderFuture<'a, LiveAnswer> {
        Box::pin(async move {
            self.world.step().await;
            self.world.takes(5..300).await;
            self.fails_before("live call")?;
            let nonce = nonce_in(&call.body);
            if self.world.provider_fails(0.2) {
                return Err(refused("live call", 400, "bad"));
            }
            let execution = LiveExecution { life: self.world.with(|state| state.life), delivered: false };
            let at = self.world.with(|state| {
                let all = state.live.entry(nonce.clone()).or_default();
                all.push(execution);
                all.len() - 1
            });
            self.world.note(&format!("executes {nonce} live"));
            let takes = Duration::from_millis(self.world.between(200..20_000));
            tokio::time::sleep(takes.min(call.bound)).await;
            self.world.step().await;
            if self.world.provider_fails(0.7) {
                let gateway = self.world.happens(0.5);
                self.world.note(&format!("the answer to {nonce} is lost"));
                return Err(if gateway { refused("live call", 504, "") } else { no_answer("live call", true) });
            }
            self.world.with(|state| {
                if let Some(one) = state.live.get_mut(&nonce).and_then(|all| all.get_mut(at)) {
                    one.delivered = true;
                }
            });
            Ok(LiveAnswer { status: 200, request_id: None, body: Bytes::from(answer(&nonce)) })
        })
    }

    fn delete_file<'a>(&'a self, _: &'a Credentials, _: &'a str) -> ProviderFuture<'a, ()> {
        Box::pin(async move { self.fails_before("delete file") })
    }
}
