//! TLS towards providers: which authorities are trusted, loaded when the first `https` upstream is used.
//!
//! Invariants: the crypto provider is named, never the process default; only HTTP/1.1 is negotiated, because one
//! HTTP/2 connection would carry all calls and stall at the provider's stream limit. Called by `upstream::connect`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use crate::config::TlsRoots;
use crate::upstream::error::UpstreamError;

/// A TLS client configuration made at its first use: a sidecar in front of a plain-text gateway never pays for it.
#[derive(Debug)]
pub(crate) struct LazyTls {
    roots: TlsRoots,
    config: OnceCell<Arc<ClientConfig>>,
}

impl LazyTls {
    /// Checks a configured file at once, so that a wrong path stops the start rather than the first call.
    pub(crate) fn new(roots: TlsRoots) -> Result<Self, UpstreamError> {
        if let TlsRoots::File(path) = &roots {
            from_file(path)?;
        }
        Ok(Self { roots, config: OnceCell::new() })
    }

    /// For roots that another client has checked at the start.
    pub(super) fn of_checked(roots: TlsRoots) -> Self {
        Self { roots, config: OnceCell::new() }
    }

    /// The configuration. A failure is not kept: the next call tries again.
    pub(super) async fn get(&self) -> Result<Arc<ClientConfig>, UpstreamError> {
        self.config.get_or_try_init(|| load(self.roots.clone())).await.cloned()
    }
}

/// Reads files, so it runs beside the runtime.
async fn load(roots: TlsRoots) -> Result<Arc<ClientConfig>, UpstreamError> {
    tokio::task::spawn_blocking(move || client_config(&roots))
        .await
        .map_err(|error| UpstreamError::Config { cause: error.to_string() })?
}

fn client_config(roots: &TlsRoots) -> Result<Arc<ClientConfig>, UpstreamError> {
    let store = match roots {
        TlsRoots::Auto => Some(from_system()).filter(|store| !store.is_empty()).unwrap_or_else(bundled),
        TlsRoots::System => {
            Some(from_system()).filter(|store| !store.is_empty()).ok_or_else(|| UpstreamError::Config {
                cause: "the system has no trusted certificates; set tls_roots = \"bundled\"".into(),
            })?
        }
        TlsRoots::Bundled => bundled(),
        TlsRoots::File(path) => from_file(path)?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamError::Config { cause: error.to_string() })?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn from_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system certificate cannot be loaded");
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    store
}

fn bundled() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

fn from_file(path: &Path) -> Result<RootCertStore, UpstreamError> {
    let fail = |why: &dyn std::fmt::Display| UpstreamError::Config {
        cause: format!("tls_roots file {}: {why}", path.display()),
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fail(&error))? {
        store.add(certificate.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
    }
    if store.is_empty() {
        return Err(fail(&"no certificate in it"));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_file_stops_the_start_and_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.pem");
        let error = LazyTls::new(TlsRoots::File(missing)).unwrap_err();
        assert!(error.cause().contains("missing.pem"), "{error}");
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        let error = LazyTls::new(TlsRoots::File(empty)).unwrap_err();
        assert!(error.cause().contains("no certificate"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_loaded_before_the_first_use() {
        let tls = LazyTls::new(TlsRoots::Bundled).unwrap();
        assert!(!tls.config.initialized());
        let config = tls.get().await.unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
        assert!(tls.config.initialized());
    }
}
