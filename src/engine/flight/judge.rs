//! From the pilots' answers to the reasons for which a template is grounded, and what their calls have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::RequestId;
use crate::domain::lane::{Endpoint, Fingerprint};
use crate::domain::request::RequestState;
use crate::engine::context::Context;
use crate::engine::flight::{Stopping, again};
use crate::store::RequestRecord;
use crate::wire::template::user_text;
use crate::wire::verdict::{Fault, Inspected, inspect};

/// Short answers may well be the same, as labels are; from so many bytes on it takes a template that ignores its input.
const SAME_BYTES: usize = 32;

/// What was seen of one pilot.
struct Seen {
    id: RequestId,
    input: Fingerprint,
    inspected: Inspected,
    /// The beginning of the user's own text.
    asked: Option<String>,
}

/// What the pilots tell of their template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// What is wrong with the answers, for people; empty: nothing.
    pub(super) reasons: Vec<String>,
    /// Characters that different user messages have in common at their beginning.
    pub(super) shared_prefix: Option<u32>,
}

/// None: there are no answers, all pilots were cancelled.
pub(super) async fn judge(
    context: &Context,
    endpoint: Endpoint,
    pilots: &[RequestRecord],
) -> Result<Option<Judged>, Stopping> {
    let mut seen = Vec::with_capacity(pilots.len());
    for record in pilots.iter().filter(|record| record.state != RequestState::Cancelled) {
        let id = record.request.id;
        let status = record.outcome.as_ref().map_or(0, |outcome| outcome.status_code);
        let request = again(context, || context.store.bodies(vec![id])).await?.pop().map(|(_, body)| body);
        let answer = again(context, || context.store.result(id)).await?.and_then(|result| result.body);
        let (request, answer) = (request.unwrap_or_default(), answer.unwrap_or_default());
        let inspected = inspect(endpoint, &request, status, &answer);
        seen.push(Seen { id, input: record.request.body_hash, inspected, asked: user_text(endpoint, &request) });
    }
    let judged = |seen: Vec<Seen>| Judged { shared_prefix: shared_prefix(&seen), reasons: sum_up(seen) };
    Ok((!seen.is_empty()).then(|| judged(seen)))
}

/// How many characters all texts begin with; none where there are no two different ones.
fn shared_prefix(seen: &[Seen]) -> Option<u32> {
    let texts: BTreeSet<&str> = seen.iter().filter_map(|one| one.asked.as_deref()).collect();
    // In order, the first and the last differ soonest.
    let (first, last) = (texts.first()?, texts.last().filter(|_| texts.len() > 1)?);
    let alike = first.chars().zip(last.chars()).take_while(|(one, other)| one == other).count();
    u32::try_from(alike).ok()
}

fn sum_up(mut seen: Vec<Seen>) -> Vec<String> {
    let twins: Vec<bool> = seen.iter().map(|one| seen.iter().any(|other| answers_alike(one, other))).collect();
    for (one, has_twin) in seen.iter_mut().zip(twins) {
        if has_twin {
            one.inspected.faults.push(Fault::Identical);
        }
    }
    let mut faults: BTreeMap<&Fault, Vec<RequestId>> = BTreeMap::new();
    for one in &seen {
        for fault in &one.inspected.faults {
            let ids = faults.entry(fault).or_default();
            if ids.last() != Some(&one.id) {
                ids.push(one.id);
            }
        }
    }
    let mut sorted: Vec<_> = faults.into_iter().collect();
    sorted.sort_by_key(|(_, ids)| std::cmp::Reverse(ids.len()));
    let all = seen.len();
    let tell = |(fault, ids): (&Fault, Vec<RequestId>)| {
        let sample = ids.first()?;
        Some(format!("{} of {all}: {fault} (such as {sample})", ids.len()))
    };
    sorted.into_iter().filter_map(tell).collect()
}

fn answers_alike(one: &Seen, other: &Seen) -> bool {
    let said = one.inspected.said.as_ref().filter(|said| said.len() >= SAME_BYTES);
    one.input != other.input && said.is_some() && one.inspected.said == other.inspected.said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;

    fn seen(ids: &IdSource, input: u8, said: &str, faults: Vec<Fault>) -> Seen {
        let inspected = Inspected { faults, said: Some(said.to_owned()) };
        Seen { id: ids.request_id(Micros(1), 0), input: Fingerprint([input; 16]), inspected, asked: None }
    }

    #[test]
    fn what_different_questions_begin_with_is_counted_in_characters() {
        let ids = IdSource::default();
        let prefix = |texts: &[&str]| {
            let seen: Vec<Seen> = texts
                .iter()
                .map(|text| Seen { asked: Some((*text).to_owned()), ..seen(&ids, 1, "", vec![]) })
                .collect();
            shared_prefix(&seen)
        };
        assert_eq!(prefix(&["Übersetze: Bus", "Übersetze: Nacht", "Übersetze: Bahn"]), Some(11));
        assert_eq!(prefix(&["a", "b"]), Some(0));
        assert_eq!(prefix(&["ab", "abc", "ab"]), Some(2));
        assert_eq!((prefix(&["same", "same"]), prefix(&["alone"]), prefix(&[])), (None, None, None));
    }

    #[test]
    fn reasons_are_counted_and_name_a_sample() {
        let ids = IdSource::default();
        let pilots = vec![
            seen(&ids, 1, "a", vec![Fault::Length, Fault::Length]),
            seen(&ids, 2, "b", vec![]),
            seen(&ids, 3, "c", vec![Fault::Refusal, Fault::Length]),
        ];
        let sample = pilots[0].id;
        let told = sum_up(pilots);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("2 of 3: cut off") && told[0].contains(&sample.to_string()), "{told:?}");
        assert!(told[1].starts_with("1 of 3: the model refused"), "{told:?}");
        assert!(sum_up(vec![seen(&ids, 1, "a", vec![])]).is_empty());
    }

    #[test]
    fn long_answers_to_different_inputs_must_differ() {
        let (ids, long) = (IdSource::default(), "I am sorry, but I can only help with the weather.");
        let both =
            |said: &str, other_input| sum_up(vec![seen(&ids, 1, said, vec![]), seen(&ids, other_input, said, vec![])]);
        assert!(both(long, 2)[0].starts_with("2 of 2: the same answer"));
        assert!(both(long, 1).is_empty(), "the same input may have the same answer");
        assert!(both("positive", 2).is_empty(), "labels are alike");
    }
}
