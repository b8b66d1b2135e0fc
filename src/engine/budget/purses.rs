//! Which limits of the budget a request keeps, and what of them is left while a batch is put together: pure.
//!
//! Limits are named by their places in the configuration; `budget` knows whose they are, `plan` puts batches together.

use std::collections::BTreeMap;

use crate::engine::plan::Queued;

/// The limits that a request keeps, by their places in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purses {
    tag: Option<u16>,
    key: Option<u16>,
}

impl Purses {
    /// Of a request whose tag and client key have the limits at these places.
    pub(crate) const fn new(tag: Option<u16>, key: Option<u16>) -> Self {
        Self { tag, key }
    }

    pub(super) fn each(self) -> impl Iterator<Item = u16> {
        [self.tag, self.key].into_iter().flatten()
    }
}

/// What a batch is expected to cost, in nano-dollars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserve {
    total: u64,
    /// Of each limit that its requests keep.
    parts: BTreeMap<u16, u64>,
}

impl Reserve {
    /// Of all these requests.
    pub(crate) fn of<'a>(requests: impl IntoIterator<Item = &'a Queued>) -> Self {
        let mut reserve = Self::default();
        for queued in requests.into_iter().filter(|queued| queued.estimate > 0) {
            reserve.total = reserve.total.saturating_add(queued.estimate);
            for purse in queued.purses.each() {
                let part = reserve.parts.entry(purse).or_default();
                *part = part.saturating_add(queued.estimate);
            }
        }
        reserve
    }

    /// Of all limits together.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Of each limit that its requests keep.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u16, u64)> {
        self.parts.iter().map(|(purse, nanos)| (*purse, *nanos))
    }
}

/// What may still be submitted by limits of tags and client keys, in nano-dollars, while a batch is put together.
#[derive(Debug)]
pub(crate) struct Room(pub(super) Vec<u64>);

impl Room {
    /// What is left of each limit, in their order.
    pub(crate) const fn of(left: Vec<u64>) -> Self {
        Self(left)
    }

    /// Whether the request has room in all of its limits; then it takes it.
    pub(crate) fn pays(&mut self, queued: &Queued) -> bool {
        let lacks = |purse: u16| self.0.get(usize::from(purse)).is_some_and(|left| *left < queued.estimate);
        if queued.purses.each().any(lacks) {
            return false;
        }
        for purse in queued.purses.each() {
            if let Some(left) = self.0.get_mut(usize::from(purse)) {
                *left -= queued.estimate;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::IdSource;
    use crate::engine::tests;

    fn queued(estimate: u64, tag: Option<u16>, key: Option<u16>) -> Queued {
        Queued { estimate, purses: Purses::new(tag, key), ..tests::queued(&IdSource::default()) }
    }

    #[test]
    fn a_reserve_is_the_sum_of_all_and_of_each_limit() {
        assert_eq!(Reserve::of(&[queued(0, Some(0), None)]), Reserve::default(), "nothing is reserved for nothing");
        let reserve = Reserve::of(&[queued(1, Some(0), Some(1)), queued(3, Some(0), None), queued(5, None, None)]);
        assert_eq!((reserve.total(), reserve.parts().collect::<Vec<_>>()), (9, vec![(0, 4), (1, 1)]));
    }

    #[test]
    fn a_request_pays_from_all_of_its_limits_or_from_none() {
        let mut room = Room::of(vec![5, 3]);
        assert!(!room.pays(&queued(4, Some(0), Some(1))), "one of two lacks room");
        assert!(room.pays(&queued(3, Some(0), Some(1))), "exactly what is left, as the refused one took nothing");
        assert_eq!(room.0, [2, 0]);
        assert!(!room.pays(&queued(1, None, Some(1))) && room.pays(&queued(2, Some(0), None)));
        assert!(room.pays(&queued(99, None, None)) && room.pays(&queued(99, Some(7), None)), "no limit, no refusal");
    }
}
