//! `flush`, `cancel`, `reload`, `healthcheck`: what changes or probes a running nightbus.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::UsageError;
use super::admin_client::{AdminArgs, AdminClient, encode};
use super::human;
use super::output;
use crate::domain::ids::{BatchId, RequestId};

/// Container runtimes give a check a few seconds.
const HEALTH_PATIENCE: Duration = Duration::from_secs(3);

/// `nightbus flush`
#[derive(Args, Clone, Debug)]
pub(super) struct FlushArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

/// `nightbus cancel`
#[derive(Args, Clone, Debug)]
pub(super) struct CancelArgs {
    /// A queued request (req_…) or a batch that has not ended (bat_…)
    id: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

/// `nightbus reload`
#[derive(Args, Clone, Debug)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print the API's JSON
    #[arg(long)]
    json: bool,
}

/// `nightbus healthcheck`
#[derive(Args, Clone, Debug)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Submits what is queued.
pub(super) async fn flush(args: &FlushArgs) -> anyhow::Result<()> {
    let done = AdminClient::new(&args.admin)?.post("/api/flush").await?;
    show(&done, args.json, &human::text(&done, "message"))
}

/// Withdraws a request, or cancels a batch.
pub(super) async fn cancel(args: &CancelArgs) -> anyhow::Result<()> {
    let client = AdminClient::new(&args.admin)?;
    let id = encode(&args.id);
    if args.id.parse::<RequestId>().is_ok() {
        let request = client.delete(&format!("/api/requests/{id}")).await?;
        return show(&request, args.json, &format!("{} is cancelled.", args.id));
    }
    if args.id.parse::<BatchId>().is_ok() {
        let done = client.post(&format!("/api/batches/{id}/cancel")).await?;
        return show(&done, args.json, &human::text(&done, "message"));
    }
    let message = format!(
        "{:?} is neither a request (req_…) nor a batch (bat_…). `nightbus requests` and `nightbus batches` list them.",
        args.id
    );
    Err(UsageError(message).into())
}

/// Has the configuration read again.
pub(super) async fn reload(args: &ReloadArgs) -> anyhow::Result<()> {
    let done = AdminClient::new(&args.admin)?.post("/api/reload").await?;
    let keys = |name: &str| {
        let keys = done.get(name).and_then(Value::as_array).into_iter().flatten();
        keys.filter_map(Value::as_str).map(|key| format!("\n  {key}")).collect::<String>()
    };
    let said = [("In force from now on:", keys("taken")), ("After a restart:", keys("needs_restart"))];
    let said: Vec<String> =
        said.into_iter().filter(|(_, keys)| !keys.is_empty()).map(|(title, keys)| format!("{title}{keys}")).collect();
    let text = if said.is_empty() { "Nothing has changed.".to_owned() } else { said.join("\n") };
    show(&done, args.json, &text)
}

/// Fails unless `/healthz` answers.
pub(super) async fn healthcheck(args: &HealthArgs) -> anyhow::Result<()> {
    AdminClient::new(&args.admin)?.is_alive(HEALTH_PATIENCE).await
}

fn show(answer: &Value, json: bool, text: &str) -> anyhow::Result<()> {
    let written = if json { output::json(answer) } else { output::line(text) };
    Ok(written?)
}
