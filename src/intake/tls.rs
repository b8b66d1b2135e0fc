//! TLS for the listeners: the configured certificate, HTTP/2 or HTTP/1.1 by ALPN.
//!
//! The only file under `intake` that builds rustls configurations. Started by `app`; renewed files are taken without a
//! restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;

/// A certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", file.display())]
pub struct TlsError {
    /// The file at fault.
    pub file: PathBuf,
    /// Why.
    pub cause: String,
}

/// How often the files are looked at. Mounted secrets are swapped by symbolic link, which no file watch sees reliably.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The certificate in use; connections that are open keep theirs.
#[derive(Debug)]
pub struct Certificate {
    files: RwLock<TlsConfig>,
    current: RwLock<Arc<CertifiedKey>>,
}

/// A certificate that was read and fits its key, and is not in use yet.
#[derive(Debug)]
pub struct Renewal {
    files: TlsConfig,
    certified: Arc<CertifiedKey>,
}

impl Renewal {
    /// Reads the certificate chain and the key.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or key and certificate do not belong together.
    pub fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { files: files.clone(), certified: Arc::new(read(files)?) })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

impl Certificate {
    /// Reads the certificate chain and the key.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or key and certificate do not belong together.
    pub fn load(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let Renewal { files, certified } = Renewal::read(config)?;
        Ok(Arc::new(Self { files: RwLock::new(files), current: RwLock::new(certified) }))
    }

    /// New connections get this one from now on.
    pub fn renew(&self, renewal: Renewal) {
        *self.files.write() = renewal.files;
        *self.current.write() = renewal.certified;
    }

    /// A listener's configuration with this certificate; offers `h2` and `http/1.1`.
    ///
    /// # Errors
    /// None that a working build of rustls knows.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(&self.files.read().cert, &error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(server))
    }

    /// Takes a renewed certificate as soon as both files belong together; until then the old one stays in use.
    pub async fn reload_when_changed(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.written_at();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let now = self.written_at();
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => {
                    tracing::info!(cert = %now.0.cert.display(), "the renewed certificate is in use");
                    seen = now;
                }
                Err(error) => tracing::warn!(%error, "the renewed certificate cannot be used yet; the old one stays"),
            }
        }
    }

    fn reload(&self) -> Result<(), TlsError> {
        let files = self.files.read().clone();
        self.renew(Renewal::read(&files)?);
        Ok(())
    }

    /// Which files there are, and when they were written.
    fn written_at(&self) -> (TlsConfig, [Option<SystemTime>; 2]) {
        let files = self.files.read().clone();
        let at = [&files.cert, &files.key].map(|file| std::fs::metadata(file).and_then(|data| data.modified()).ok());
        (files, at)
    }
}

fn fail(file: &Path, cause: &dyn std::fmt::Display) -> TlsError {
    TlsError { file: file.into(), cause: cause.to_string() }
}

fn read(config: &TlsConfig) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(&config.cert, &error))?;
    if chain.is_empty() {
        return Err(fail(&config.cert, &"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| fail(&config.key, &error))?;
    let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| fail(&config.key, &error))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|error| fail(&config.cert, &error))?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_loads_and_a_wrong_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let config = TlsConfig { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
        std::fs::write(&config.cert, made.cert.pem()).unwrap();
        let error = Certificate::load(&config).unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        std::fs::write(&config.key, made.signing_key.serialize_pem()).unwrap();
        let loaded = Certificate::load(&config).unwrap();
        assert_eq!(loaded.server_config().unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        std::fs::write(&config.cert, "").unwrap();
        let error = Certificate::load(&config).unwrap_err();
        assert!(error.to_string().contains("cert.pem"), "{error}");
    }

    #[test]
    fn a_renewed_pair_is_taken_and_a_half_renewed_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
        let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let write = |cert: &str, key: &str| {
            std::fs::write(&config.cert, cert).unwrap();
            std::fs::write(&config.key, key).unwrap();
        };
        let (old, new) = (made(), made());
        write(&old.cert.pem(), &old.signing_key.serialize_pem());
        let loaded = Certificate::load(&config).unwrap();
        let in_use = || loaded.current.read().cert.first().map(|cert| cert.as_ref().to_vec());
        write(&new.cert.pem(), &old.signing_key.serialize_pem());
        assert!(loaded.reload().is_err());
        assert_eq!(in_use(), Some(old.cert.der().as_ref().to_vec()));
        write(&new.cert.pem(), &new.signing_key.serialize_pem());
        loaded.reload().unwrap();
        assert_eq!(in_use(), Some(new.cert.der().as_ref().to_vec()));
    }
}
