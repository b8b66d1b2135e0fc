//! TLS for the listeners: the configured certificate, HTTP/2 or HTTP/1.1 by ALPN.
//!
//! The only file under `intake` that builds rustls configurations. Called once at start by `app`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

/// Reads the certificate chain and the key, and offers `h2` and `http/1.1`.
///
/// # Errors
/// When a file cannot be read or parsed, or key and certificate do not belong together.
pub fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let fail = |file: &Path, cause: &dyn std::fmt::Display| TlsError { file: file.into(), cause: cause.to_string() };
    let chain = CertificateDer::pem_file_iter(&config.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fail(&config.cert, &error))?;
    if chain.is_empty() {
        return Err(fail(&config.cert, &"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| fail(&config.key, &error))?;
    let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(&config.cert, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| fail(&config.cert, &error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(server))
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
        let error = server_config(&config).unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        std::fs::write(&config.key, made.signing_key.serialize_pem()).unwrap();
        assert_eq!(server_config(&config).unwrap().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        std::fs::write(&config.cert, "").unwrap();
        let error = server_config(&config).unwrap_err();
        assert!(error.to_string().contains("cert.pem"), "{error}");
    }
}
