//! Limits beside each other, what a batch takes of them, and when it is free again.

use super::*;
use crate::config::BudgetLimit;
use crate::domain::ids::IdSource;
use crate::engine::tests::queued;

const DOLLAR: u64 = 1_000_000_000;

fn budget() -> Budget {
    let limit = |scope, daily_usd| BudgetLimit { scope, daily_usd };
    Budget::new(&BudgetConfig {
        daily_usd: Some(10.0),
        limits: vec![
            limit(BudgetScope::Tag("eval".to_owned()), 2.0),
            limit(BudgetScope::ClientKey("ci".to_owned()), 3.0),
        ],
    })
}

/// A request that is expected to cost a dollar.
fn dollar(budget: &Budget, tag: Option<&str>, key: Option<&str>) -> Queued {
    Queued { estimate: DOLLAR, purses: budget.purses(tag, key), ..queued(&IdSource::default()) }
}

#[test]
fn a_request_keeps_the_limits_of_its_tag_and_of_its_key() {
    let budget = budget();
    let mut room = budget.room();
    let both = dollar(&budget, Some("eval"), Some("ci"));
    assert!(room.pays(&both) && room.pays(&both));
    assert!(!room.pays(&both) && !room.pays(&dollar(&budget, Some("eval"), None)), "the tag's two dollars are spent");
    assert!(room.pays(&dollar(&budget, Some("other"), Some("ci"))), "the key has one left");
    assert!(!room.pays(&dollar(&budget, None, Some("ci"))));
    assert!(room.pays(&dollar(&budget, Some("other"), Some("other"))), "nobody limits it");
    assert_eq!(budget.purses(Some("ci"), Some("eval")), Purses::default(), "a tag is no key");
}

#[test]
fn what_a_batch_reserved_is_free_when_the_ledger_was_asked_after_its_end() {
    let budget = budget();
    let batch = [dollar(&budget, Some("eval"), Some("ci")), dollar(&budget, None, Some("ci"))];
    let reserve = Reserve::of(&batch);
    let left = || (budget.left(), budget.room().0);
    budget.reserve(&reserve);
    assert_eq!(left(), (Some(8 * DOLLAR), vec![DOLLAR, DOLLAR]));
    budget.give_back(&reserve);
    assert_eq!(left(), (Some(8 * DOLLAR), vec![DOLLAR, DOLLAR]), "its price may not be in what was seen of the ledger");
    let looked = |spent: [i64; 3], ended: i64| {
        let mut standing = budget.standing.lock();
        standing.all().zip(spent).fold(false, |better, (limit, spent)| better | limit.looked(spent, ended, false))
    };
    let half = 500_000_000;
    assert!(looked([half; 3], signed(DOLLAR)));
    assert_eq!(left(), (Some(8 * DOLLAR + DOLLAR / 2), vec![DOLLAR + DOLLAR / 2, DOLLAR + DOLLAR / 2]));
    assert!(looked([half; 3], signed(DOLLAR)), "the rest of it");
    assert!(!looked([half; 3], 0), "nothing has changed");
}

#[test]
fn only_the_limit_that_has_no_room_says_that_it_is_used_up() {
    let budget = budget();
    let now = Micros::from_unix_seconds(86_400 * 3 + 60);
    let [first, second, third] = [(); 3].map(|()| dollar(&budget, Some("eval"), Some("ci")));
    budget.reserve(&Reserve::of([&first, &second]));
    assert_eq!(budget.used_up(Some("eval"), Some("ci"), now), None);
    let eval = BudgetScope::Tag("eval".to_owned());
    assert_eq!(budget.hold_aside(std::slice::from_ref(&third)), std::slice::from_ref(&eval));
    assert_eq!(budget.hold_aside(&[third]), [], "it was said");
    let view = budget.used_up(Some("eval"), Some("ci"), now).unwrap();
    assert_eq!((view.scope, view.resets_at), (Some(eval), Micros::from_unix_seconds(86_400 * 4)));
    assert_eq!((budget.used_up(None, Some("ci"), now), budget.used_up(Some("x"), None, now)), (None, None));
    let mut standing = budget.standing.lock();
    assert!(standing.all().fold(false, |better, limit| better | limit.looked(0, 0, true)));
    drop(standing);
    assert_eq!(budget.used_up(Some("eval"), Some("ci"), now), None, "a new day");
}

#[test]
fn without_limits_nothing_is_kept() {
    let none = Budget::new(&BudgetConfig { daily_usd: None, limits: Vec::new() });
    assert!(!none.is_kept() && none.left().is_none() && none.view(Micros::from_unix_seconds(0)).is_empty());
    assert!(none.room().pays(&dollar(&none, Some("eval"), None)));
}
