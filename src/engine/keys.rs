//! Idempotency keys of calls that are being accepted right now: until a request is durable, the store cannot tell that
//! its key is taken (contract, section 5).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::ids::RequestId;
use crate::domain::lane::Fingerprint;

type Taken = HashMap<Fingerprint, (RequestId, Fingerprint)>;

/// Keys that are taken but may not be in the store yet.
#[derive(Clone, Debug, Default)]
pub struct IdempotencyKeys {
    taken: Arc<Mutex<Taken>>,
}

/// Holds a key until the request is durable or refused.
#[derive(Debug)]
pub struct Reservation {
    key: Fingerprint,
    taken: Arc<Mutex<Taken>>,
}

impl IdempotencyKeys {
    /// Takes `key` for a request with this body, or tells who has it.
    pub fn reserve(
        &self,
        key: Fingerprint,
        id: RequestId,
        body: Fingerprint,
    ) -> Result<Reservation, (RequestId, Fingerprint)> {
        let mut taken = self.taken.lock();
        if let Some(holder) = taken.get(&key) {
            return Err(*holder);
        }
        taken.insert(key, (id, body));
        Ok(Reservation { key, taken: Arc::clone(&self.taken) })
    }

    /// Whether a request with this id is being accepted under some key.
    pub fn holds(&self, id: RequestId) -> bool {
        self.taken.lock().values().any(|(holder, _)| *holder == id)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.taken.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Micros;
    use crate::domain::ids::IdSource;

    #[test]
    fn a_key_is_taken_until_it_is_let_go() {
        let keys = IdempotencyKeys::default();
        let (key, body) = (Fingerprint([1; 16]), Fingerprint([2; 16]));
        let id = IdSource::default().request_id(Micros(1), 1);
        let reservation = keys.reserve(key, id, body).unwrap();
        assert_eq!(keys.reserve(key, id, body).unwrap_err(), (id, body));
        drop(reservation);
        assert!(keys.reserve(key, id, body).is_ok());
    }
}
