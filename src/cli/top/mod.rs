//! `nightbus top`: the running proxy on one screen, drawn anew every second until q is pressed.
//!
//! What is shown is made by `view`, which is pure; the terminal is taken and given back by `terminal`. A proxy that stops
//! answering does not end it: the screen says so and keeps asking. A terminal that changes its size is drawn anew at once.
//!
//! Without a library for such screens: this one is text from its top to its end, by the tables of the other commands, and asks for
//! one key (docs/dependencies.md).

mod terminal;
mod view;

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::terminal::{Key, Screen};
use self::view::{Seen, Size};
use super::UsageError;
use super::admin_client::{AdminArgs, AdminClient};
use super::output::Output;
use super::signals::until_stopped;
use crate::domain::clock::{Clock as _, SystemClock};

/// More batches than a screen has lines.
const BATCHES: &str = "/api/batches?state=open&limit=100";
/// Keys are waited for so many times between two looks, a tenth of a second each.
const WAITS: u32 = 10;
/// For the runtime to see a signal.
const TURN: Duration = Duration::from_millis(1);

/// `nightbus top`
#[derive(Args, Clone, Debug)]
pub(super) struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Draws until it is asked to stop.
///
/// # Errors
/// Standard input or output is no terminal; nobody answers at the beginning.
pub(super) async fn top(args: &TopArgs, out: Output) -> anyhow::Result<()> {
    if !terminal::is_there() {
        let message = "top draws on a terminal, and this is none that it can draw on: `nightbus status` says the same as text, `nightbus status --json` for programs";
        return Err(UsageError(message.to_owned()).into());
    }
    let client = AdminClient::new(&args.admin)?;
    let mut seen = look(&client).await?;
    let mut stopped = std::pin::pin!(until_stopped()?);
    let screen = Screen::open()?;
    loop {
        let mut drawn = (0, 0);
        for _ in 0..WAITS {
            let (columns, rows) = terminal::size();
            if drawn != (columns, rows) {
                let size = Size { columns, rows, colours: out.colours() };
                terminal::draw(&view::draw(&seen, SystemClock.now().unix_seconds(), size))?;
                drawn = (columns, rows);
            }
            if screen.key()? == Some(Key::Quit) || tokio::time::timeout(TURN, &mut stopped).await.is_ok() {
                return Ok(());
            }
        }
        match look(&client).await {
            Ok(now) => seen = now,
            Err(error) => seen.trouble = Some(format!("{error:#}")),
        }
    }
}

async fn look(client: &AdminClient) -> anyhow::Result<Seen> {
    let status: Value = client.get("/api/status").await?;
    let batches: Value = client.get(BATCHES).await?;
    Ok(Seen { status, batches, trouble: None })
}
