//! From a batch's final state to its lines' answers: both files read as streams, each line on its own, every result
//! durable before its caller hears of it, nothing counted twice however often a file is read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::time::Instant;

use crate::domain::backoff::backoff;
use crate::domain::batch::BatchEvent;
use crate::domain::ids::RequestId;
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::engine::lines::LineSplitter;
use crate::engine::outcome::{Verdict, finish_of, judge};
use crate::engine::poll::Ended;
use crate::engine::recorder::Recorder;
use crate::engine::rescue::Rescue;
use crate::engine::run::{StepError, credentials, pause_after, retry_turn};
use crate::engine::settle::{self, Refusal, Tally};
use crate::engine::validation;
use crate::store::BatchRecord;
use crate::store::ledger::Execution;
use crate::upstream::provider::{BatchProvider, Credentials, ProviderError};
use crate::wire::batch::{BatchObject, BatchStatus};
use crate::wire::line::{self, BadLine, LineOutcome};

/// How long file ids that should be there may be missing (contract, section 7: minutes).
const FILE_ID_PATIENCE: Duration = Duration::from_secs(300);
/// How often a file that is not there, or is not shown, is asked for, with pauses up to a minute.
const FILE_ATTEMPTS: u32 = 10;
/// How long one that breaks off, or a provider that is down, is tried again: its answers are paid for.
const FILE_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A line takes some 30 us to read and to price, and a piece of a file may hold hundreds: after so many, others have a turn.
const LINES_AT_ONCE: usize = 16;

/// Settles every line of a batch that has ended at the provider, and records its end.
pub(crate) async fn end(context: &Arc<Context>, batch: &BatchRecord, ended: Ended) -> Result<(), StepError> {
    let object = match ended {
        Ended::Final(object) => object,
        Ended::Lost(error) => {
            // It may have been executed and billed: never submitted again.
            let refusal = Refusal::own(format!("the provider does not show the batch any more ({error})"));
            return settle::fail_all(context, batch, &refusal).await;
        }
    };
    let event = match object.status {
        BatchStatus::Failed => return validation::refused(context, batch, &object).await,
        BatchStatus::Expired => BatchEvent::Expire,
        BatchStatus::Cancelled => BatchEvent::Cancel,
        BatchStatus::Completed | BatchStatus::Running => BatchEvent::Complete,
    };
    harvest(context, batch, object, event).await
}

async fn harvest(
    context: &Arc<Context>,
    batch: &BatchRecord,
    mut object: BatchObject,
    event: BatchEvent,
) -> Result<(), StepError> {
    let started = Instant::now();
    let Some((provider, credentials)) = credentials(context, batch) else {
        return settle::fail_all(context, batch, &Refusal::own("the provider is not configured any more")).await;
    };
    let mut harvest = Harvest::new(context, batch).await?;
    // Who is in a file that is named need not wait for the other one.
    let mut lost_file = harvest.read_files(provider.as_ref(), &credentials, &object).await?;
    if object.results_pending {
        let named;
        (object, named) = harvest.with_file_ids(provider.as_ref(), &credentials, object).await?;
        let read = harvest.read_files(provider.as_ref(), &credentials, &object).await?;
        lost_file = lost_file.or(named).or(read);
    }
    let (lines, bytes) = (harvest.lines, harvest.bytes);
    let tally = harvest.close(event, lost_file).await?;
    context.telemetry.harvest(lines, bytes, started.elapsed());
    crate::crash::point("harvested");
    if event == BatchEvent::Complete || batch.lane.deadline_class > 0 {
        // One that was cut short for a deadline took at least so long.
        let (now, lines) = (context.now(), batch.line_count);
        context.learned.note(&context.store, &batch.lane, lines, now.since(batch.created_at), now).await?;
    }
    if tally.answered + tally.requeued == 0 && tally.handed > 0 && batch.lane.deadline_class == 0 {
        context.refused.remember(&batch.lane, Service::Batch, "its lines end without an answer, batch after batch");
    }
    settle::end_batch(context, batch, event, tally, None).await?;
    crate::crash::point("batch-ended");
    delete_files(context, batch, &object);
    Ok(())
}

struct Harvest<'a> {
    context: &'a Arc<Context>,
    batch: &'a BatchRecord,
    /// Sorted, for look-up.
    expected: Vec<RequestId>,
    settled: Vec<bool>,
    recorder: Recorder,
    /// Lines that may be tried again, with what they said.
    again: Vec<(RequestId, LineOutcome)>,
    /// Lines that are there and cannot be read: executed and billed, but without an answer.
    damaged: HashSet<RequestId>,
    /// Files that were read, or given up.
    read: HashSet<String>,
    /// What the lines' deadline calls for while results are waited for.
    rescue: Rescue,
    lines: usize,
    bytes: u64,
}

impl<'a> Harvest<'a> {
    async fn new(context: &'a Arc<Context>, batch: &'a BatchRecord) -> Result<Self, StepError> {
        let mut expected = context.store.batch_lines(batch.id).await?;
        expected.sort_unstable();
        let settled = vec![false; expected.len()];
        let recorder = Recorder::new(Arc::clone(context), Arc::new(batch.clone()));
        Ok(Self {
            context,
            batch,
            expected,
            settled,
            recorder,
            again: Vec::new(),
            damaged: HashSet::new(),
            read: HashSet::new(),
            rescue: Rescue::of_ended(batch),
            lines: 0,
            bytes: 0,
        })
    }

    /// Reads the files that the batch names and that were not read yet. With the error of one that cannot be read.
    async fn read_files(
        &mut self,
        provider: &dyn BatchProvider,
        credentials: &Credentials,
        object: &BatchObject,
    ) -> Result<Option<ProviderError>, StepError> {
        let mut lost = None;
        for file in [&object.output_file_id, &object.error_file_id].into_iter().flatten() {
            if !self.read.insert(file.clone()) {
                continue;
            }
            if let Err(error) = self.read_file(provider, credentials, file).await? {
                self.context.telemetry.provider_error("download", &error, None);
                lost = Some(error);
            }
        }
        Ok(lost)
    }

    /// A final batch whose file ids are not there yet is read again for a while (providers.md, section 8, `results`). With
    /// the error if they never came: what they would have held was executed and billed.
    async fn with_file_ids(
        &mut self,
        provider: &dyn BatchProvider,
        credentials: &Credentials,
        mut object: BatchObject,
    ) -> Result<(BatchObject, Option<ProviderError>), StepError> {
        self.recorder.flush().await?;
        let started = Instant::now();
        let mut lost = None;
        for attempt in 0.. {
            if !object.results_pending {
                break;
            }
            if started.elapsed() > FILE_ID_PATIENCE {
                let cause = "the ended batch does not name its result files".to_owned();
                lost = Some(ProviderError::Unreadable { operation: "poll", cause });
                break;
            }
            let pause = backoff(attempt, Duration::from_millis(500), Duration::from_secs(15), fastrand::f64());
            self.pause(pause).await?;
            match provider.get(credentials, &object.id).await {
                // A stale replica may show an earlier state once more: only final states count.
                Ok(again) if again.status == object.status => object = again,
                Ok(_) => {}
                Err(error) => self.context.telemetry.provider_error("poll", &error, Some(pause)),
            }
        }
        if let Some(id) = &self.batch.provider.batch_id {
            object.id.clone_from(id);
        }
        Ok((object, lost))
    }

    /// Sleeps, and meanwhile does what the lines' deadline calls for: they are bought in time, although they may be in
    /// results that come later. Fails when the process stops.
    async fn pause(&mut self, wait: Duration) -> Result<(), StepError> {
        let until = Instant::now() + wait;
        loop {
            self.rescue.act(self.context, self.batch).await?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let step = self.rescue.pause(self.context.now()).map_or(left, |due| due.min(left));
            if !self.context.sleep(step).await {
                return Err(StepError::Stopping);
            }
        }
    }

    /// Reads one file to its end, as often as it takes. The inner error: it cannot be read at all.
    async fn read_file(
        &mut self,
        provider: &dyn BatchProvider,
        credentials: &Credentials,
        file: &str,
    ) -> Result<Result<(), ProviderError>, StepError> {
        let started = Instant::now();
        let mut denied = 0;
        for attempt in 0.. {
            let error = match provider.download(credentials, file).await {
                Ok(body) => match self.read_stream(body).await? {
                    None => return Ok(Ok(())),
                    Some(cause) => {
                        ProviderError::NoAnswer { operation: "download", cause, may_have_taken_effect: false }
                    }
                },
                Err(error) => error,
            };
            denied += u32::from(error.is_not_found() || error.is_lasting());
            if denied >= FILE_ATTEMPTS || started.elapsed() >= FILE_PATIENCE {
                return Ok(Err(error));
            }
            // Who is in the part that came need not wait for the rest.
            self.recorder.flush().await?;
            let wait = pause_after(self.context, self.batch, "download", &error, attempt);
            self.pause(wait).await?;
            self.pause(retry_turn(self.context, &self.batch.lane)).await?;
        }
        Ok(Ok(()))
    }

    /// Reads one download; `Some`: it broke off, and why.
    async fn read_stream(&mut self, mut body: crate::body::Body) -> Result<Option<String>, StepError> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        while let Some(frame) = body.frame().await {
            let chunk = match frame {
                Ok(frame) => frame.into_data().unwrap_or_default(),
                Err(error) => return Ok(Some(error.to_string())),
            };
            self.bytes += u64::try_from(chunk.len()).unwrap_or(0);
            splitter.feed(chunk, |line| lines.push(line));
            for (nth, line) in lines.drain(..).enumerate() {
                self.take(&line);
                self.recorder.pace().await?;
                if nth % LINES_AT_ONCE == LINES_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
        if splitter.oversized() > 0 {
            self.context.telemetry.line_unusable(self.batch.id, "too_long");
        }
        if let Some(last) = splitter.finish() {
            self.take(&last);
        }
        self.recorder.pace().await?;
        Ok(None)
    }

    fn take(&mut self, line: &bytes::Bytes) {
        let (id, outcome) = match line::parse(self.batch.lane.endpoint.api(), line) {
            Ok(parsed) => parsed,
            Err(BadLine::Blank) => return,
            Err(bad) => {
                if let BadLine::Damaged(id) = bad {
                    self.damaged.insert(id);
                }
                return self.context.telemetry.line_unusable(self.batch.id, bad.as_str());
            }
        };
        let Ok(at) = self.expected.binary_search(&id) else {
            return self.context.telemetry.line_unusable(self.batch.id, "unknown_id");
        };
        let Some(settled) = self.settled.get_mut(at) else { return };
        if std::mem::replace(settled, true) {
            return self.context.telemetry.line_unusable(self.batch.id, "duplicate");
        }
        self.lines += 1;
        match judge(&outcome) {
            Verdict::Final => {
                let finish = finish_of(
                    self.context,
                    &self.batch.lane,
                    (Service::Batch, Execution::Batch(self.batch.id)),
                    id,
                    outcome,
                );
                self.recorder.push(finish);
            }
            Verdict::Again => self.again.push((id, outcome)),
        }
    }

    /// Writes what is left, and settles the lines that gave no final answer.
    async fn close(mut self, event: BatchEvent, lost_file: Option<ProviderError>) -> Result<Tally, StepError> {
        let mut tally = Tally { answered: self.recorder.flush().await?, ..Tally::default() };
        let again = std::mem::take(&mut self.again);
        let retried = settle::try_again(self.context, self.batch, again).await?;
        tally.add(retried);
        let missing: Vec<RequestId> =
            self.expected.iter().zip(&self.settled).filter_map(|(id, settled)| (!settled).then_some(*id)).collect();
        let (damaged, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(|id| self.damaged.contains(id));
        tally.failed += self.end_damaged(damaged).await?;
        // An earlier run may have settled some of them.
        let records = settle::riding(self.context, self.batch, missing).await?;
        let missing: Vec<RequestId> = records.iter().map(|record| record.request.id).collect();
        if missing.is_empty() {
            return Ok(tally);
        }
        tracing::warn!(batch = %self.batch.id, missing = missing.len(), "lines are in neither result file");
        let settled = match lost_file {
            // Its lines were executed and billed: submitting them again would buy twice.
            Some(error) => {
                let refusal = Refusal::own(format!("the batch's result file cannot be read ({error})"));
                let failed = settle::refuse(self.context, self.batch, &missing, &refusal).await?;
                Tally { failed, ..Tally::default() }
            }
            None => {
                let why = if event == BatchEvent::Complete { "line_missing" } else { "line_not_executed" };
                let refusal =
                    Refusal::own("the batch ended without an answer for this request, more than once: send it live")
                        .or_fall_back("attempts_exhausted");
                settle::requeue_or_refuse(self.context, self.batch, &missing, why, &refusal).await?
            }
        };
        tally.add(settled);
        Ok(tally)
    }

    /// Lines that were executed and cannot be read: errors for those who still wait for them, and in the ledger whatever
    /// became of their requests. One that a live call is about to answer is charged after that: it must not end by this.
    async fn end_damaged(&self, mut ids: Vec<RequestId>) -> Result<usize, StepError> {
        const LOOK: Duration = Duration::from_secs(1);
        let refusal = Refusal::damaged(
            "the provider's answer for this request is damaged: it was executed, and is not bought again",
        );
        let mut failed = 0;
        while !ids.is_empty() {
            let open = self.context.store.records(ids.clone()).await?.into_iter();
            let open: HashSet<RequestId> =
                open.filter(|record| !record.state.is_terminal()).map(|record| record.request.id).collect();
            let riding = settle::riding(self.context, self.batch, open.iter().copied().collect()).await?;
            let riding: HashSet<RequestId> = riding.into_iter().map(|record| record.request.id).collect();
            let (later, now): (Vec<_>, Vec<_>) =
                ids.into_iter().partition(|id| open.contains(id) && !riding.contains(id));
            failed += settle::refuse(self.context, self.batch, &now, &refusal).await?;
            ids = later;
            if !ids.is_empty() && !self.context.sleep(LOOK).await {
                return Err(StepError::Stopping);
            }
        }
        Ok(failed)
    }
}

/// All results are durable: the provider's copies are not needed any more. Files that stay behind expire by themselves.
fn delete_files(context: &Arc<Context>, batch: &BatchRecord, object: &BatchObject) {
    let files: Vec<String> = [&batch.provider.input_file_id, &object.output_file_id, &object.error_file_id]
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let (shared, batch) = (Arc::clone(context), batch.clone());
    context.tasks.spawn("delete files", async move {
        let Some((provider, credentials)) = credentials(&shared, &batch) else { return };
        for file in files {
            if let Err(error) = provider.delete_file(&credentials, &file).await {
                shared.telemetry.provider_error("delete file", &error, None);
            }
        }
    });
}
