//! Answers of a batch that is still running, where the provider shows them (providers.md, section 4.11): their callers need not
//! wait for the others.
//!
//! Only a help: what is not read here, or cannot be, is read when the batch has ended, with everything else. An answer is
//! recorded once, whoever reads it. Called by `poll` between two looks.

use http_body_util::BodyExt as _;

use std::sync::Arc;

use crate::body::Body;
use crate::domain::service::Service;
use crate::engine::context::Context;
use crate::engine::lines::LineSplitter;
use crate::engine::outcome::{Verdict, finish_of, judge};
use crate::engine::recorder::Recorder;
use crate::engine::run::{StepError, credentials};
use crate::store::BatchRecord;
use crate::store::ledger::Execution;
use crate::wire::batch::BatchObject;
use crate::wire::line;

/// How far a running batch's output was read; nothing of it is durable but the answers.
#[derive(Debug, Default)]
pub(crate) struct Early {
    lines: u64,
    ends: bool,
}

impl Early {
    /// Records what the batch has answered since the last look. Fails only with the store.
    pub(crate) async fn read(
        &mut self,
        context: &Arc<Context>,
        batch: &BatchRecord,
        object: &BatchObject,
    ) -> Result<(), StepError> {
        let Some(file) = object.output_file_id.as_ref().filter(|_| !self.ends) else { return Ok(()) };
        let Some((provider, credentials)) = credentials(context, batch) else { return Ok(()) };
        if !provider.capability().partial_results {
            return Ok(());
        }
        let part = match provider.download_from(&credentials, file, self.lines).await {
            Ok(part) => part,
            Err(error) => {
                context.telemetry.provider_error("download", &error, None);
                return Ok(());
            }
        };
        let whole = record(context, batch, part.body).await?;
        if whole {
            (self.lines, self.ends) = (part.lines, part.ends);
        }
        Ok(())
    }
}

/// Records the answers of a download; `false`: it broke off.
async fn record(context: &Arc<Context>, batch: &BatchRecord, mut body: Body) -> Result<bool, StepError> {
    let mut expected = context.store.batch_lines(batch.id).await?;
    expected.sort_unstable();
    let mut recorder = Recorder::new(Arc::clone(context), Arc::new(batch.clone()));
    let mut splitter = LineSplitter::default();
    let mut lines = Vec::new();
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            whole = false;
            break;
        };
        splitter.feed(frame.into_data().unwrap_or_default(), |line| lines.push(line));
        for line in lines.drain(..) {
            // Lines that cannot be read, or that say anything but a final answer, are the harvest's business.
            let Ok((id, outcome)) = line::parse(batch.lane.endpoint.api(), &line) else { continue };
            if expected.binary_search(&id).is_ok() && judge(&outcome) == Verdict::Final {
                let served = (Service::Batch, Execution::Batch(batch.id));
                recorder.push(finish_of(context, &batch.lane, served, id, outcome));
            }
            recorder.pace().await?;
        }
    }
    let answered = recorder.flush().await?;
    if answered > 0 {
        tracing::info!(batch = %batch.id, answered, "answers came before the end of their batch");
    }
    Ok(whole)
}
