//! A nightbus in this process, on a data directory of its own, for as long as a run takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;

use super::grounded::{self, Grounded};
use crate::app::{self, App};
use crate::cli::UsageError;
use crate::cli::output::note;
use crate::config::{Config, DeferralMode, ProviderConfig, StoreKind};
use crate::domain::lane::Endpoint;
use crate::store::flights::FlightState;
use crate::tasks::Tasks;
use crate::upstream::capability::Capability;

const GRACE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// While it lives, calls are taken.
#[derive(Debug)]
pub(super) struct Own {
    app: App,
}

/// Whether one could do the work.
///
/// # Errors
/// An endpoint that the provider does not batch.
pub(super) fn is_possible(config: &Config, provider: &ProviderConfig, endpoint: Endpoint) -> Result<(), UsageError> {
    if Capability::of(provider, &config.batching).endpoints.contains(&endpoint) {
        Ok(())
    } else {
        Err(UsageError(format!("the provider {} has no batches for {endpoint}", provider.name)))
    }
}

impl Own {
    /// Starts it as configured, but for what only a service needs.
    ///
    /// # Errors
    /// A data directory that cannot be used.
    pub(super) async fn start(config: &Config, data_dir: &Path) -> anyhow::Result<Self> {
        let mut config = config.clone();
        config.listen = ([127, 0, 0, 1], 0).into();
        config.admin_listen = ([127, 0, 0, 1], 0).into();
        data_dir.clone_into(&mut config.data_dir);
        config.store = StoreKind::Sqlite;
        config.deferral.mode = DeferralMode::On;
        config.shutdown.grace = GRACE;
        // Both are for strangers, who do not get here: only loopback is listened on.
        (config.tls, config.admin.tls) = (None, None);
        config.client_keys.clear();
        let app = app::start(config, Tasks::new()).await.context("nightbus cannot start in this process")?;
        note(&format!("Dashboard while it runs: http://{}", app.admin_addr()));
        Ok(Self { app })
    }

    /// Where calls are taken.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.app.main_addr())
    }

    /// Says when a test flight is grounded, since the run stands still until somebody decides. Does not end.
    pub(super) async fn tell_of_flights(&self) -> ! {
        let mut told = BTreeSet::new();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for (flight, _waiting) in self.app.engine().flights() {
                if flight.state == FlightState::Grounded && told.insert(flight.id.to_string()) {
                    let grounded = Grounded { id: flight.id.to_string(), reasons: flight.reasons };
                    grounded::tell(&grounded, Some(self.app.admin_addr()));
                }
            }
        }
    }

    /// The ordered stop; what is submitted goes on at the provider.
    pub(super) async fn stop(self) {
        self.app.shutdown().await;
    }
}
