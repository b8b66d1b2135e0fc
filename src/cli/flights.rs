//! `flights`: test flights as a table, and the decision over one that is grounded.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::admin_client::{AdminArgs, AdminClient, encode};
use super::human;
use super::listing::{age_of, members, show_list};
use super::output::{self, Output, note};
use super::table::{Cell, Side, Table};

/// Providers cache prompts from 1,024 tokens on, which are about so many characters.
const WORTH_CACHING: u64 = 4_096;

/// `nightbus flights`
#[derive(Args, Clone, Debug)]
pub(super) struct FlightsArgs {
    /// List them, or decide over one that is grounded
    #[arg(value_enum, default_value = "list")]
    action: Action,
    /// The flight to decide over, such as flt_0193…
    #[arg(required_if_eq_any([("action", "approve"), ("action", "reject")]))]
    id: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// The last flight of each template
    List,
    /// Submit what waits for it
    Approve,
    /// Refuse what waits for it: 422, nothing is bought
    Reject,
}

/// Lists or decides.
pub(super) async fn flights(args: &FlightsArgs, out: Output) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.admin)?;
    let verdict = match args.action {
        Action::List => return list(args, &client, out).await,
        Action::Approve => "approve",
        Action::Reject => "reject",
    };
    let id = args.id.as_deref().unwrap_or_default();
    let done = client.post(&format!("/api/flights/{}/{verdict}", encode(id))).await?;
    let written = if args.json { output::json(&done) } else { output::line(&human::text(&done, "message")) };
    Ok(written?)
}

async fn list(args: &FlightsArgs, client: &AdminClient, out: Output) -> anyhow::Result<()> {
    let list = client.get("/api/flights").await?;
    if args.json {
        return Ok(output::json(&list)?);
    }
    let mut table = Table::of_ids(&[
        ("ID", Side::Left),
        ("STATE", Side::Left),
        ("MODEL", Side::Left),
        ("TAG", Side::Left),
        ("WAITING", Side::Right),
        ("AGE", Side::Right),
        ("PREFIX", Side::Right),
        ("REASONS", Side::Left),
    ]);
    for flight in members(&list, "data") {
        let reasons: Vec<&str> = members(flight, "reasons").iter().filter_map(|reason| reason.as_str()).collect();
        table.row([
            Cell::new(human::text(flight, "id")),
            Cell::state(&human::text(flight, "state")),
            Cell::new(human::text(flight, "model")),
            Cell::new(human::text(flight, "tag")),
            Cell::new(human::number(human::count(flight, "waiting_requests"))),
            Cell::new(age_of(flight)),
            Cell::new(prefix_of(flight).map_or_else(|| "-".to_owned(), human::number)),
            Cell::new(if reasons.is_empty() { "-".to_owned() } else { reasons.join("; ") }),
        ]);
    }
    show_list(&list, &table, "flights", out)?;
    for flight in members(&list, "data") {
        if let Some(prefix) = prefix_of(flight).filter(|chars| *chars >= WORTH_CACHING) {
            note(&format!(
                "All user messages of {} begin with the same {} characters, enough for a prompt cache: keep them first and equal to the letter, and what differs last; as a system message they would be a part of the template.",
                human::text(flight, "id"),
                human::number(prefix)
            ));
        }
    }
    Ok(())
}

/// The characters with which all user messages of a flight begin.
fn prefix_of(flight: &Value) -> Option<u64> {
    flight.get("shared_prefix_chars").and_then(Value::as_u64)
}
