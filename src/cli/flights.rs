//! `flights`: test flights as a table, and the decision over one that is grounded.

use clap::{Args, Subcommand};

use super::admin_client::{AdminArgs, AdminClient, encode};
use super::human;
use super::listing::{age_of, members, show_list};
use super::output::{self, Output};
use super::table::{Cell, Side, Table};

/// `nightbus flights`
#[derive(Args, Clone, Debug)]
pub(super) struct FlightsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List them (the default)
    List,
    /// Let what waits for a grounded flight go
    Approve {
        /// The flight, such as flt_0193…
        id: String,
    },
    /// Refuse what waits for a grounded flight: 422, nothing is bought
    Reject {
        /// The flight, such as flt_0193…
        id: String,
    },
}

/// Lists or decides.
pub(super) async fn flights(args: &FlightsArgs, out: Output) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.admin)?;
    let (id, verdict) = match &args.action {
        None | Some(Action::List) => return list(args, &client, out).await,
        Some(Action::Approve { id }) => (id, "approve"),
        Some(Action::Reject { id }) => (id, "reject"),
    };
    let done = client.post(&format!("/api/flights/{}/{verdict}", encode(id))).await?;
    let written = if args.json { output::json(&done) } else { output::line(&human::text(&done, "message")) };
    Ok(written?)
}

async fn list(args: &FlightsArgs, client: &AdminClient, out: Output) -> anyhow::Result<()> {
    let list = client.get("/api/flights").await?;
    if args.json {
        return Ok(output::json(&list)?);
    }
    let mut table = Table::new(&[
        ("ID", Side::Left),
        ("STATE", Side::Left),
        ("MODEL", Side::Left),
        ("TAG", Side::Left),
        ("WAITING", Side::Right),
        ("AGE", Side::Right),
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
            Cell::new(if reasons.is_empty() { "-".to_owned() } else { reasons.join("; ") }),
        ]);
    }
    show_list(&list, &table, "flights", out)
}
