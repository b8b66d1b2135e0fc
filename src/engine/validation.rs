//! What follows on a refused file: the provider refuses it as a whole, whoever's line is at fault, and executes nothing of
//! it (providers.md, sections 0 and 1.9).
//!
//! Named lines get their error and the rest is tried again; a full provider queue is waited for; a fault that a line may
//! have caused without being named is looked for (`bisect`); anything else is every caller's error. Called by `collect`
//! (a batch that failed) and `submit` (a file that is too large to be taken).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::batch::BatchEvent;
use crate::domain::ids::RequestId;
use crate::engine::context::Context;
use crate::engine::dispatch::Message;
use crate::engine::plan::estimated_tokens;
use crate::engine::quota::told_limit;
use crate::engine::run::StepError;
use crate::engine::settle::{
    Again, BATCH_REFUSED, Refusal, Tally, end_batch, fail_all, queued_of, refuse, requeue, requeue_or_refuse, riding,
};
use crate::engine::view::HeldBack;
use crate::store::{BatchRecord, RequestRecord};
use crate::upstream::provider::ProviderError;
use crate::wire::batch::{BatchFault, BatchObject};

/// How long a lane waits after the provider's queue was full, unless one of its own batches ends before. Shorter where
/// batches are polled so often that this would be long.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(30);

/// So many of these waits a request may be refused alone that seems larger than the whole queue: an hour.
const ALONE_AND_REFUSED: u32 = 120;

/// The provider's word for a full queue.
const QUEUE_FULL: &str = "token_limit_exceeded";

/// Faults that only nightbus itself can have made.
const OURS: [&str; 5] = ["duplicate_custom_id", "mismatched_model", "invalid_json_line", "invalid_url", "empty_file"];

/// Parts of the codes of faults that no line has caused: the model, the credential, the money.
const NO_LINES_FAULT: [&str; 8] =
    ["model_not_found", "model_not_supported", "quota", "billing", "api_key", "permission", "organization", "account"];

/// The provider refused the whole file.
pub(crate) async fn refused(
    context: &Arc<Context>,
    batch: &BatchRecord,
    object: &BatchObject,
) -> Result<(), StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    let first = object.errors.first();
    if let Some(fault) = object.errors.iter().find(|fault| fault.code == QUEUE_FULL && fault.line.is_none()) {
        return queue_full(context, batch, lines, fault).await;
    }
    for fault in object.errors.iter().filter(|fault| OURS.contains(&fault.code.as_str())) {
        tracing::error!(batch = %batch.id, code = fault.code, line = fault.line, "a batch file of ours was malformed");
    }
    let named: BTreeMap<RequestId, &BatchFault> =
        object.errors.iter().filter_map(|fault| Some((*lines.get(fault.line?.checked_sub(1)?)?, fault))).collect();
    if !named.is_empty() {
        return named_lines(context, batch, lines, named).await;
    }
    let refusal = first.map_or_else(
        || Refusal::own("the provider refused the batch without saying why: try again, or send the call live"),
        Refusal::from_whole_fault,
    );
    match first {
        Some(fault) if is_lost_file(fault) => {
            let tally = requeue_or_refuse(context, batch, &lines, "input_file_lost", &refusal).await?;
            end_batch(context, batch, BatchEvent::Fail, tally, Some(fault.message.clone())).await
        }
        Some(fault) if NO_LINES_FAULT.iter().any(|word| fault.code.contains(word)) => {
            fail_all(context, batch, &refusal).await
        }
        _ => search(context, batch, lines, refusal).await,
    }
}

/// "Cannot find file" (providers.md, section 1.9).
fn is_lost_file(fault: &BatchFault) -> bool {
    fault.code == "invalid_request" && fault.message.to_ascii_lowercase().contains("cannot find file")
}

/// Callers never see a full queue; a request that the queue could not take if it were empty ends.
async fn queue_full(
    context: &Arc<Context>,
    batch: &BatchRecord,
    lines: Vec<RequestId>,
    fault: &BatchFault,
) -> Result<(), StepError> {
    let told = told_limit(&fault.message);
    context.tell(Message::QueueFull { lane: Arc::clone(&batch.lane), told });
    let records = riding(context, batch, lines).await?;
    let bytes = records.iter().map(|record| queued_of(context, &record.request).line_bytes).sum();
    let wait = QUEUE_FULL_WAIT.min(context.settings().batching.poll * 3);
    let waits_since = records.first().map_or(Duration::ZERO, |first| context.now().since(first.request.created_at));
    // Not at once: the estimate of an image in base64 is far above the truth, and others may fill the queue.
    if records.len() == 1
        && told.is_some_and(|told| estimated_tokens(bytes) / 2 > told)
        && waits_since > wait * ALONE_AND_REFUSED
    {
        let refusal = Refusal::from_fault(fault).or_fall_back("too_large_for_the_queue");
        return fail_all(context, batch, &refusal).await;
    }
    let how = Again { hold_back: Some((wait, HeldBack::QueueFull)), apart: context.suspects.part_of(batch.id) };
    let requeued = requeue(context, batch, records, QUEUE_FULL, how).await?;
    let tally = Tally { requeued, ..Tally::default() };
    end_batch(context, batch, BatchEvent::Fail, tally, Some(fault.message.clone())).await
}

async fn named_lines(
    context: &Arc<Context>,
    batch: &BatchRecord,
    lines: Vec<RequestId>,
    named: BTreeMap<RequestId, &BatchFault>,
) -> Result<(), StepError> {
    let mut tally = Tally::default();
    for (id, fault) in &named {
        tally.failed += refuse(context, batch, &[*id], &Refusal::from_fault(fault)).await?;
    }
    let rest: Vec<RequestId> = lines.into_iter().filter(|id| !named.contains_key(id)).collect();
    let records = riding(context, batch, rest).await?;
    let how = Again { apart: context.suspects.part_of(batch.id), ..Again::default() };
    tally.requeued = requeue(context, batch, records, "another_line_was_refused", how).await?;
    let message = named.values().next().map(|fault| fault.message.clone());
    end_batch(context, batch, BatchEvent::Fail, tally, message).await
}

/// Any line may be at fault: the halves ride again, each apart. What is alone, or has been halved often enough, ends; its
/// live call tells the truth of it where one is allowed and nothing shows that the fault is a line's.
async fn search(
    context: &Arc<Context>,
    batch: &BatchRecord,
    lines: Vec<RequestId>,
    refusal: Refusal,
) -> Result<(), StepError> {
    let mut first = riding(context, batch, lines).await?;
    let Some(parts) = context.suspects.halve(batch.id, first.len()) else {
        let found = first.len() == 1 && context.suspects.others_passed(batch.id);
        // Not to be remembered: this says nothing of the model.
        let fall_back = refusal.fall_back.filter(|_| !found).map(|_| "refused_without_a_line");
        return fail_all(context, batch, &Refusal { fall_back, ..refusal }).await;
    };
    tracing::warn!(
        batch = %batch.id, lines = first.len(), code = refusal.code,
        "the provider refused a file and named no line: its halves are tried on their own"
    );
    let second = first.split_off(first.len() / 2);
    let mut tally = Tally::default();
    // The second half first: each goes to the queue's front.
    for (records, apart) in [second, first].into_iter().zip(parts) {
        let how = Again { apart: Some(apart), ..Again::default() };
        tally.requeued += requeue(context, batch, records, "search_for_a_bad_line", how).await?;
    }
    end_batch(context, batch, BatchEvent::Fail, tally, Some(refusal.message)).await
}

/// The provider, or something on the way to it, does not take a body of this length: two batches are made of it, and
/// further ones stay below. A line that is too large alone is its caller's error.
pub(crate) async fn too_large(
    context: &Arc<Context>,
    batch: &BatchRecord,
    length: u64,
    error: &ProviderError,
) -> Result<(), StepError> {
    let lines = context.store.batch_lines(batch.id).await?;
    let records: Vec<RequestRecord> = riding(context, batch, lines).await?;
    if records.len() < 2 {
        let refusal = Refusal::from_provider(error);
        // A smaller request of the same model may well be taken: not to be remembered.
        let fall_back = refusal.fall_back.map(|why| if why == BATCH_REFUSED { "too_large" } else { why });
        return fail_all(context, batch, &Refusal { fall_back, ..refusal }).await;
    }
    let largest = records.iter().map(|record| queued_of(context, &record.request).line_bytes).max().unwrap_or(0);
    // With room for a line to spare, or two halves would become three batches.
    let most = (length / 2).saturating_add(largest / 2);
    tracing::warn!(batch = %batch.id, length, most, "the provider does not take so large a file: it is split");
    context.tell(Message::TooLarge { lane: Arc::clone(&batch.lane), most });
    let requeued = requeue(context, batch, records, "file_too_large", Again::default()).await?;
    let tally = Tally { requeued, ..Tally::default() };
    end_batch(context, batch, BatchEvent::Fail, tally, Some(error.to_string())).await
}
