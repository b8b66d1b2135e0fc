//! Callbacks in memory, by request and id.

use std::collections::BTreeMap;

use crate::domain::clock::Micros;
use crate::domain::ids::{CallbackId, RequestId};
use crate::store::{Callback, CallbackState, CallbackUpdate, NewCallback};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    kept: BTreeMap<(i64, CallbackId), Callback>,
}

impl Callbacks {
    pub(super) fn add(&mut self, new: NewCallback, ended: bool) {
        let due = ended.then_some(new.at);
        self.kept.entry((new.request.sequence(), new.id)).or_insert(Callback {
            id: new.id,
            request: new.request,
            url: new.url,
            state: if ended { CallbackState::Pending } else { CallbackState::Waiting },
            created_at: new.at,
            since: due,
            due_at: due,
            attempts: Vec::new(),
        });
    }

    pub(super) fn ended(&mut self, request: RequestId, at: Micros) {
        let sequence = request.sequence();
        let first = CallbackId::from_bytes([0; 16]);
        for (_, callback) in self.kept.range_mut((sequence, first)..).take_while(|((of, _), _)| *of == sequence) {
            if callback.state == CallbackState::Waiting {
                callback.state = CallbackState::Pending;
                (callback.since, callback.due_at) = (Some(at), Some(at));
            }
        }
    }

    pub(super) fn due(&self, limit: usize) -> Vec<Callback> {
        let mut due: Vec<&Callback> = self.kept.values().filter(|callback| callback.due_at.is_some()).collect();
        due.sort_by_key(|callback| (callback.due_at, callback.id));
        due.into_iter().take(limit).cloned().collect()
    }

    fn find(&mut self, id: CallbackId) -> Option<&mut Callback> {
        self.kept.values_mut().find(|callback| callback.id == id)
    }

    pub(super) fn record(&mut self, update: CallbackUpdate) -> bool {
        self.find(update.id).is_some_and(|callback| {
            callback.state = update.state;
            callback.due_at = update.due_at;
            callback.attempts.push(update.attempt);
            true
        })
    }

    pub(super) fn redeliver(&mut self, id: CallbackId, at: Micros) -> Option<bool> {
        self.find(id).map(|callback| {
            let ended = callback.state != CallbackState::Waiting;
            if ended {
                callback.state = CallbackState::Pending;
                (callback.since, callback.due_at) = (Some(at), Some(at));
            }
            ended
        })
    }

    pub(super) fn list(&self, state: Option<CallbackState>, after: Option<CallbackId>, limit: usize) -> Vec<Callback> {
        let after = after.and_then(|after| self.kept.keys().find(|(_, id)| *id == after));
        let older = self.kept.iter().rev().filter(|(key, _)| after.is_none_or(|after| *key < after));
        let wanted =
            older.map(|(_, callback)| callback).filter(|callback| state.is_none_or(|state| callback.state == state));
        wanted.take(limit).cloned().collect()
    }

    pub(super) fn expire(&mut self, before: Micros, is_kept: impl Fn(RequestId) -> bool) {
        self.kept.retain(|_, callback| callback.created_at >= before || is_kept(callback.request));
    }
}
