//! Reading the configuration again: everything that can fail comes first, so that it is taken as a whole or not at all.
//!
//! What is taken is decided by `config::reload`; here it is handed to those who act by it. Called by `POST /api/reload`
//! and by SIGHUP, one at a time.

use std::error::Error;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Loader;
use crate::admin::{Reload, ReloadError, ReloadReport};
use crate::config::{self, Config, InForce, Reloaded, TlsConfig};
use crate::engine::Engine;
use crate::intake::service::Intake;
use crate::intake::tls::{Certificate, Renewal, TlsError};
use crate::telemetry::logging;

/// Those who act by the configuration.
pub(super) struct Reloader {
    pub(super) loader: Loader,
    pub(super) in_force: InForce,
    pub(super) intake: Arc<RwLock<Intake>>,
    pub(super) engine: Engine,
    /// The main listener's.
    pub(super) certificate: Option<Arc<Certificate>>,
    pub(super) admin_certificate: Option<Arc<Certificate>>,
}

impl Reloader {
    /// As the admin listener and the command line call it.
    pub(super) fn into_reload(self) -> Reload {
        let one_at_a_time = Mutex::new(self);
        Arc::new(move || one_at_a_time.lock().reload().map_err(ReloadError))
    }

    fn reload(&self) -> Result<ReloadReport, Box<dyn Error + Send + Sync>> {
        let old = self.in_force.get();
        let Reloaded { config, taken, needs_restart } = config::reload(&old, &(self.loader)()?);
        let config = Arc::new(config);
        let renewals = [
            renewal(self.certificate.as_ref(), config.tls.as_ref())?,
            renewal(self.admin_certificate.as_ref(), config.admin.tls.as_ref())?,
        ];
        logging::set_level(&config.log.level)?;
        // From here on nothing fails.
        for (certificate, renewal) in renewals.into_iter().flatten() {
            certificate.renew(renewal);
        }
        self.take(config);
        tracing::info!(?taken, ?needs_restart, "the configuration was read again");
        Ok(ReloadReport { taken, needs_restart })
    }

    fn take(&self, config: Arc<Config>) {
        self.engine.reconfigure(&config);
        let next = self.intake.read().with_config(Arc::clone(&config));
        *self.intake.write() = next;
        self.in_force.set(config);
    }
}

/// The files are read even if they have the same names: they may have been renewed a moment ago.
fn renewal<'a>(
    certificate: Option<&'a Arc<Certificate>>,
    files: Option<&TlsConfig>,
) -> Result<Option<(&'a Arc<Certificate>, Renewal)>, TlsError> {
    let (Some(certificate), Some(files)) = (certificate, files) else { return Ok(None) };
    Ok(Some((certificate, Renewal::read(files)?)))
}
