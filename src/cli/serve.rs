//! `nightbus serve`: runs until a signal asks it to stop.

use std::sync::Arc;

use anyhow::Context as _;

use super::configure::ServeArgs;
use super::output::line;
use super::signals::{hangups, until_stopped};
use crate::app;
use crate::tasks::Tasks;
use crate::telemetry::logging;
use crate::threads;

/// Loads the configuration, starts everything, says where, and waits.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let config = args.load()?;
    logging::init(config.log.json, &config.log.level)?;
    let scheme = |encrypted: bool| if encrypted { "https" } else { "http" };
    let (main, admin) = (scheme(config.tls.is_some()), scheme(config.admin.tls.is_some()));
    let runtime = threads::runtime()?;
    let served = runtime.block_on(async {
        let stopped = until_stopped()?;
        let tasks = Tasks::new();
        let again = args.clone();
        let loader: app::Loader = Arc::new(move || again.load());
        let mut hangups = hangups()?;
        let app = app::start_reloadable(config, Some(loader), tasks).await.context("nightbus cannot start")?;
        line(&format!("nightbus listening on {main}://{}", app.main_addr()))?;
        line(&format!("admin listening on {admin}://{}", app.admin_addr()))?;
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                () = hangups.next() => {
                    if let Some(Err(errors)) = app.reload() {
                        tracing::error!(%errors, "the configuration was not read again: nothing was changed");
                    }
                }
            }
        }
        tracing::info!("stopping");
        app.shutdown().await;
        Ok(())
    });
    // Uploads and polls that are under way are not waited for: they are settled at the next start.
    runtime.shutdown_background();
    served
}
