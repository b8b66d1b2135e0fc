//! `nightbus roi`: the example of docs/audit.md, and what makes no sense.

use serde_json::Value;

use crate::command::nightbus;

/// The arguments for the volume of the example, and more.
macro_rules! roi {
    ($($more:literal),*) => {
        &["roi", "--requests-per-day", "10000", "--input-tokens", "6000", "--output-tokens", "1000", $($more),*]
    };
}
pub(crate) use roi;

const EXAMPLE: &[&str] = roi!("--input-price", "3", "--output-price", "15");

fn priced(how: &[&str]) -> crate::command::Done {
    nightbus(&[roi!().as_slice(), how].concat())
}

#[test]
fn the_documented_example_gives_the_documented_numbers() {
    let done = nightbus(EXAMPLE);
    assert_eq!(done.code, 0, "{}", done.err);
    for number in ["$330.00", "$165.00", "$4,950.00", "$60,225.00", "60,000,000 in, 10,000,000 out"] {
        assert!(done.out.contains(number), "{number} in {}", done.out);
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit.md")).unwrap();
    let typed = page.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(typed.contains(&format!("nightbus {}", EXAMPLE.join(" "))), "the example is not in docs/audit.md");
    assert!(page.contains(&done.out), "docs/audit.md shows another output than\n{}", done.out);
}

#[test]
fn costs_give_a_ratio_and_the_days_until_they_are_paid_back() {
    let costs = ["--dev-cost", "3000", "--opportunity-cost", "300", "--deferrable-share", "0.5", "--json"];
    let done = nightbus(&[EXAMPLE, &costs].concat());
    assert_eq!(done.code, 0, "{}", done.err);
    let json: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["saved_usd_per_day"], 82.5);
    assert_eq!((&json["live_usd_per_day"], &json["batch_usd_per_day"]), (&330.0.into(), &247.5.into()));
    assert_eq!((&json["cost_usd"], &json["roi"]), (&3300.0.into(), &9.125.into()));
    assert_eq!((&json["payback_days"], &json["deferrable_share"]), (&40.0.into(), &0.5.into()));
}

#[test]
fn a_model_brings_its_own_prices_and_an_unknown_one_is_refused() {
    let known = priced(&["--model", "claude-sonnet-4-6"]);
    assert!(known.code == 0 && known.out.contains("$60,225.00"), "{}{}", known.out, known.err);
    let unknown = priced(&["--model", "gpt-of-tomorrow"]);
    assert!(unknown.code == 2 && unknown.err.contains("--input-price"), "{}", unknown.err);
    let no_batch = priced(&["--model", "deepseek-v4-pro"]);
    assert!(no_batch.code == 2 && no_batch.err.contains("no batch price"), "{}", no_batch.err);
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    for wrong in [
        &[][..],
        &["--input-price", "3"],
        &["--model", "gpt-5.4", "--input-price", "3", "--output-price", "15"],
        &["--input-price", "-3", "--output-price", "15"],
        &["--input-price", "three", "--output-price", "15"],
        &["--model", "gpt-5.4", "--deferrable-share", "1.5"],
        &["--model", "gpt-5.4", "--deferrable-share", "-0.1"],
        &["--input-price", "9000000", "--output-price", "9000000"],
    ] {
        let done = priced(wrong);
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{wrong:?}: {}", done.err);
    }
}
