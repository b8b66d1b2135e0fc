//! What the demonstration says at its end: the small table, its JSON, and the lines to paste. Pure.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::job::{JobReport, MODEL};
use crate::cli::human;
use crate::domain::money::Money;

/// Calls, batches, time and money.
pub(super) fn table(report: &JobReport, calls: u64, batches: u64) -> Vec<(String, String)> {
    let own = if report.answered == calls { ", each with an answer of its own" } else { "" };
    let mut rows = vec![
        ("Calls", human::number(calls)),
        ("Answered", format!("{}{own}", human::number(report.answered))),
        ("Batches", human::number(batches)),
        ("Time", human::span(report.took)),
        ("Live price", priced(report, report.paid + report.saved)),
        ("Paid", priced(report, report.paid)),
        ("Saved", saved(report)),
    ];
    if report.flown > 0 {
        let flown = format!("{} of them, live and at the live price, before the rest was submitted", report.flown);
        rows.insert(2, ("Test flight", flown));
    }
    if report.wrong > 0 {
        rows.insert(2, ("Wrong answers", human::number(report.wrong)));
    }
    if report.failed > 0 {
        rows.insert(2, ("Failed", human::number(report.failed)));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Never a guess: without prices the amount is unknown, with some it says for how many.
fn priced(report: &JobReport, amount: Money) -> String {
    match report.priced {
        0 => "unknown".to_owned(),
        priced if priced < report.answered => {
            format!("{} for {priced} of the answers", human::usd(amount.as_usd_f64()))
        }
        _ => human::usd(amount.as_usd_f64()),
    }
}

fn saved(report: &JobReport) -> String {
    let live = report.paid + report.saved;
    if report.priced == 0 || live <= Money::ZERO {
        return priced(report, report.saved);
    }
    format!("{} ({:.0} %)", priced(report, report.saved), 100.0 * report.saved.as_usd_f64() / live.as_usd_f64())
}

/// The same for programs; money is null where no price is known.
pub(super) fn json(report: &JobReport, calls: u64, batches: u64) -> Value {
    let money = |amount: Money| if report.priced == 0 { Value::Null } else { json!(amount.as_usd_f64()) };
    json!({
        "calls": calls,
        "answered": report.answered,
        "wrong_answers": report.wrong,
        "failed": report.failed,
        "first_failure": report.first_failure,
        "test_flight": report.flown,
        "batches": batches,
        "seconds": report.took.as_secs_f64(),
        "labels": report.labels,
        "priced": report.priced,
        "live_usd": money(report.paid + report.saved),
        "paid_usd": money(report.paid),
        "saved_usd": money(report.saved),
    })
}

/// What to paste into another terminal while the demonstration stays up.
pub(super) fn hints(main: SocketAddr, admin: SocketAddr) -> String {
    format!(
        r#"nightbus listening on http://{main}
admin listening on http://{admin}

Every call to http://{main}/batch/v1 rides in a batch. Paste into another terminal:

Python  (pip install openai)
  OPENAI_BASE_URL=http://{main}/batch/v1 OPENAI_API_KEY=sk-demo python3 -c 'from openai import OpenAI; print(OpenAI().chat.completions.create(model="{MODEL}", messages=[{{"role": "user", "content": "Good evening"}}]).choices[0].message.content)'

Node  (npm install openai)
  OPENAI_BASE_URL=http://{main}/batch/v1 OPENAI_API_KEY=sk-demo node --input-type=module -e 'import OpenAI from "openai"; const r = await new OpenAI().chat.completions.create({{model: "{MODEL}", messages: [{{role: "user", content: "Good evening"}}]}}); console.log(r.choices[0].message.content)'

curl
  curl -si http://{main}/v1/chat/completions -H 'authorization: Bearer sk-demo' -H 'content-type: application/json' -H 'x-nightbus-defer: true' -d '{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Good evening"}}]}}'

Watch
  nightbus status --admin http://{admin}
  http://{admin}/

Press Ctrl-C to stop."#
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(answered: u64, priced: u64) -> JobReport {
        let (took, half_a_cent) = (Duration::from_millis(5_200), "0.005".parse().unwrap());
        JobReport { answered, priced, paid: half_a_cent, saved: half_a_cent, took, ..JobReport::default() }
    }

    fn value(rows: &[(String, String)], name: &str) -> Option<String> {
        rows.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn money_is_shown_only_where_it_is_known() {
        let rows = table(&report(300, 300), 300, 1);
        assert_eq!(value(&rows, "Live price").as_deref(), Some("$0.0100"));
        assert_eq!(value(&rows, "Saved").as_deref(), Some("$0.005000 (50 %)"));
        let partly = table(&report(300, 200), 300, 1);
        assert_eq!(value(&partly, "Paid").as_deref(), Some("$0.005000 for 200 of the answers"));
        let none = table(&report(300, 0), 300, 1);
        assert_eq!(value(&none, "Saved").as_deref(), Some("unknown"));
        assert_eq!(json(&report(300, 0), 300, 1)["saved_usd"], Value::Null);
    }

    #[test]
    fn calls_that_flew_are_told() {
        let flown = table(&JobReport { flown: 5, ..report(300, 300) }, 300, 1);
        assert!(value(&flown, "Test flight").is_some_and(|told| told.starts_with("5 of them, live")));
        assert!(value(&table(&report(300, 300), 300, 1), "Test flight").is_none());
    }

    #[test]
    fn what_went_wrong_has_its_own_rows() {
        let mut bad = report(297, 297);
        (bad.wrong, bad.failed) = (2, 1);
        let rows = table(&bad, 300, 1);
        assert_eq!(value(&rows, "Answered").as_deref(), Some("297"));
        assert_eq!((value(&rows, "Failed"), value(&rows, "Wrong answers")), (Some("1".into()), Some("2".into())));
        assert!(value(&table(&report(300, 300), 300, 1), "Failed").is_none());
    }

    #[test]
    fn lines_to_paste_name_the_right_ports() {
        let text = hints(([127, 0, 0, 1], 4001).into(), ([127, 0, 0, 1], 4002).into());
        assert!(
            text.contains("http://127.0.0.1:4001/batch/v1") && text.contains("--admin http://127.0.0.1:4002"),
            "{text}"
        );
        assert!(!text.contains("{{") && !text.contains("{main}"), "{text}");
    }
}
