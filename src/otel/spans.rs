//! From what the store keeps of a request or a batch to its spans. Pure.
//!
//! ```text
//!  caller's span (its traceparent)              bat_… : a trace of its own
//!   └─ POST /v1/chat/completions                 nightbus.batch ──links──▶ its first requests' spans
//!       ├─ nightbus.batch_line ────link────────▶
//!       └─ nightbus.live_call
//! ```
//!
//! Ids are digests of the ids that the store has, so that whoever makes a span, or a link to it, comes to the same.
//! Attributes: `http.*` and `error.type` as OpenTelemetry's stable conventions have them; of `gen_ai.*` only the few that say
//! what a call was and took (those conventions are not stable yet); `nightbus.*` is what nobody else has a word for.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use opentelemetry::trace::{
    Event, Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{Config, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks};

use crate::domain::batch::BatchState;
use crate::domain::clock::Micros;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lane::{Endpoint, LaneKey};
use crate::domain::trace::TraceContext;
use crate::store::{BatchRecord, NewRequest, OutcomeSummary, RequestRecord};
use crate::wire::usage::usage;

/// A batch's span links to the spans of so many of its requests: OpenTelemetry's own default limit.
pub(super) const LINKS: usize = 128;

const BATCH: &str = "nightbus.batch";
const BATCH_LINE: &str = "nightbus.batch_line";
const LIVE_CALL: &str = "nightbus.live_call";

/// Makes spans of what has ended.
#[derive(Debug)]
pub(super) struct Spans {
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

/// What a span tells, beside its place.
struct Told {
    name: Cow<'static, str>,
    kind: SpanKind,
    from: Micros,
    to: Micros,
    attributes: Vec<KeyValue>,
}

impl Spans {
    /// With the sampler of `OTEL_TRACES_SAMPLER`: by default what the caller records, and all that has no caller's trace.
    pub(super) fn new() -> Self {
        let scope = InstrumentationScope::builder("nightbus").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { sampler: Config::default().sampler, scope }
    }

    /// The spans of an ended request: its own, and where it was served. `batch`: its last one. None where it is not
    /// sampled, or has not ended.
    pub(super) fn of_request(&self, record: &RequestRecord, batch: Option<&BatchRecord>) -> Vec<SpanData> {
        let request = &record.request;
        let (Some(own), Some(ended), Some(outcome)) =
            (self.request_context(request), record.finished_at, &record.outcome)
        else {
            return Vec::new();
        };
        let told = Told {
            name: format!("POST {}", request.called()).into(),
            kind: SpanKind::Server,
            from: request.created_at,
            to: ended,
            attributes: request_attributes(record, outcome),
        };
        let mut whole = self.span(&own, told);
        if let Some(caller) = request.trace {
            whole.parent_span_id = SpanId::from_bytes(caller.span_id);
            whole.parent_span_is_remote = true;
        }
        if outcome.status_code >= 500 {
            whole.status = Status::Error { description: Cow::Borrowed("") };
            whole.attributes.push(KeyValue::new("error.type", error_type(outcome)));
        }
        let mut spans = vec![whole];
        spans.extend(self.batch_line(record, batch, &own, ended));
        spans.extend(self.live_call(record, &own, ended, outcome));
        spans
    }

    /// Its time in its last batch: until its answer, until a live call took over, or until the batch had ended without one.
    fn batch_line(
        &self,
        record: &RequestRecord,
        batch: Option<&BatchRecord>,
        own: &SpanContext,
        ended: Micros,
    ) -> Option<SpanData> {
        let (id, from) = (record.batch_id?, record.submitted_at?);
        let left = record.live.map(|live| live.since);
        let until = [left, batch.and_then(|batch| batch.ended_at)].into_iter().flatten().fold(ended, Micros::min);
        let mut attributes = vec![KeyValue::new("nightbus.batch.id", id.to_string())];
        if let Some(provider_id) = batch.and_then(|batch| batch.provider.batch_id.clone()) {
            attributes.push(KeyValue::new("nightbus.batch.provider_id", provider_id));
        }
        let place = child(own, BATCH_LINE, record.request.id, id.as_bytes());
        let told = Told { name: BATCH_LINE.into(), kind: SpanKind::Client, from, to: until, attributes };
        let mut span = self.span(&place, told);
        span.parent_span_id = own.span_id();
        span.links = links(self.batch_context(id).into_iter(), 0);
        Some(span)
    }

    /// Its time as a live call, retries and pauses between them included.
    fn live_call(
        &self,
        record: &RequestRecord,
        own: &SpanContext,
        ended: Micros,
        outcome: &OutcomeSummary,
    ) -> Option<SpanData> {
        let live = record.live?;
        let mut attributes = vec![KeyValue::new("nightbus.service", live.service.as_str())];
        if live.sent_at.is_some() && outcome.service.as_deref() == Some(live.service.as_str()) {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(outcome.status_code)));
        }
        let place = child(own, LIVE_CALL, record.request.id, &[]);
        let told = Told { name: LIVE_CALL.into(), kind: SpanKind::Client, from: live.since, to: ended, attributes };
        let mut span = self.span(&place, told);
        span.parent_span_id = own.span_id();
        Some(span)
    }

    /// The span of an ended batch, from its intent to its last durable answer. `linked`: the first of its requests.
    pub(super) fn of_batch(&self, batch: &BatchRecord, linked: &[RequestRecord]) -> Option<SpanData> {
        let place = self.batch_context(batch.id)?;
        let ended = batch.ended_at?;
        let told = Told {
            name: BATCH.into(),
            kind: SpanKind::Internal,
            from: batch.created_at,
            to: ended,
            attributes: batch_attributes(batch),
        };
        let mut span = self.span(&place, told);
        let lines = usize::try_from(batch.line_count).unwrap_or(usize::MAX);
        let contexts = linked.iter().filter_map(|record| self.request_context(&record.request));
        span.links = links(contexts, lines.saturating_sub(LINKS));
        if let Some(at) = batch.submitted_at {
            let mut events = SpanEvents::default();
            events.events.push(Event::new("nightbus.batch.submitted", time(at), Vec::new(), 0));
            span.events = events;
        }
        if batch.state == BatchState::Failed {
            span.status = Status::Error { description: Cow::Borrowed("") };
            span.attributes.push(KeyValue::new("error.type", "batch_failed"));
        }
        Some(span)
    }

    /// Where a request's own span is; none: it is not sampled.
    fn request_context(&self, request: &NewRequest) -> Option<SpanContext> {
        self.root(request.trace, &[b"request", request.id.as_bytes()])
    }

    /// Where a batch's span is.
    fn batch_context(&self, id: BatchId) -> Option<SpanContext> {
        self.root(None, &[b"batch", id.as_bytes()])
    }

    /// The outermost span of ours, in the caller's trace or at the beginning of one of its own.
    fn root(&self, caller: Option<TraceContext>, named: &[&[u8]]) -> Option<SpanContext> {
        let (trace_id, span_id) = derived(named);
        let (parent, trace_id, flags) = match caller {
            Some(caller) => {
                let (trace_id, flags) = (TraceId::from_bytes(caller.trace_id), TraceFlags::new(caller.flags));
                let span = SpanId::from_bytes(caller.span_id);
                let remote = SpanContext::new(trace_id, span, flags, true, TraceState::default());
                (Some(Context::new().with_remote_span_context(remote)), trace_id, flags)
            }
            None => (None, trace_id, TraceFlags::NOT_SAMPLED),
        };
        let sampled = self.sampler.should_sample(parent.as_ref(), trace_id, "", &SpanKind::Server, &[], &[]);
        (sampled.decision == SamplingDecision::RecordAndSample)
            .then(|| SpanContext::new(trace_id, span_id, flags.with_sampled(true), false, TraceState::default()))
    }

    fn span(&self, place: &SpanContext, told: Told) -> SpanData {
        SpanData {
            span_context: place.clone(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: told.kind,
            name: told.name,
            start_time: time(told.from),
            // The clock may have been set back in between.
            end_time: time(told.to.max(told.from)),
            attributes: told.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// A span below one of ours.
fn child(of: &SpanContext, name: &str, request: RequestId, more: &[u8]) -> SpanContext {
    let (_, span_id) = derived(&[name.as_bytes(), request.as_bytes(), more]);
    SpanContext::new(of.trace_id(), span_id, of.trace_flags(), false, TraceState::default())
}

fn request_attributes(record: &RequestRecord, outcome: &OutcomeSummary) -> Vec<KeyValue> {
    let request = &record.request;
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.route", request.called().as_str()),
        KeyValue::new("http.response.status_code", i64::from(outcome.status_code)),
        KeyValue::new("nightbus.request.id", request.id.to_string()),
        KeyValue::new("nightbus.state", record.state.as_str()),
        KeyValue::new("nightbus.attempts", i64::from(record.attempts)),
    ];
    attributes.extend(lane_attributes(&request.lane));
    let texts =
        [("nightbus.service", &outcome.service), ("nightbus.tag", &request.tag), ("nightbus.client_key", &request.key)];
    attributes.extend(texts.into_iter().filter_map(|(key, text)| Some(KeyValue::new(key, text.clone()?))));
    if let Some(usage) = outcome.usage_json.as_deref().and_then(|json| usage(request.lane.endpoint.api(), json)) {
        attributes.push(KeyValue::new("gen_ai.usage.input_tokens", count(usage.input)));
        attributes.push(KeyValue::new("gen_ai.usage.output_tokens", count(usage.output)));
    }
    attributes
}

fn batch_attributes(batch: &BatchRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("nightbus.batch.id", batch.id.to_string()),
        KeyValue::new("nightbus.batch.state", batch.state.as_str()),
        KeyValue::new("nightbus.batch.lines", i64::from(batch.line_count)),
    ];
    attributes.extend(lane_attributes(&batch.lane));
    if let Some(id) = &batch.provider.batch_id {
        attributes.push(KeyValue::new("nightbus.batch.provider_id", id.clone()));
    }
    attributes
}

fn lane_attributes(lane: &LaneKey) -> impl Iterator<Item = KeyValue> {
    let operation = match lane.endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Messages => Some("chat"),
        Endpoint::Completions => Some("text_completion"),
        Endpoint::Embeddings => Some("embeddings"),
        Endpoint::Moderations => None,
    };
    let named = [
        KeyValue::new("nightbus.provider", lane.provider.to_string()),
        KeyValue::new("gen_ai.request.model", lane.model.to_string()),
    ];
    named.into_iter().chain(operation.map(|operation| KeyValue::new("gen_ai.operation.name", operation)))
}

/// nightbus's own code, or else the status.
fn error_type(outcome: &OutcomeSummary) -> String {
    outcome.error.as_ref().map_or_else(|| outcome.status_code.to_string(), |(code, _)| code.clone())
}

fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}

fn links(contexts: impl Iterator<Item = SpanContext>, dropped: usize) -> SpanLinks {
    let mut links = SpanLinks::default();
    links.links = contexts.map(Link::with_context).collect();
    links.dropped_count = u32::try_from(dropped).unwrap_or(u32::MAX);
    links
}

/// A trace and a span that follow from what they are named after. Both are random enough to sample by.
fn derived(named: &[&[u8]]) -> (TraceId, SpanId) {
    let hash = digest(&SHA256, &named.concat());
    let (trace, rest) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 16], &[]));
    let span = rest.first_chunk().unwrap_or(&[0; 8]);
    (TraceId::from_bytes(*trace), SpanId::from_bytes(*span))
}

fn time(at: Micros) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}
