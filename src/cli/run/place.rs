//! Where a run's calls go: which provider, with which key, to a nightbus that is there or to one in this process.

use std::net::SocketAddr;

use anyhow::bail;
use clap::Args;

use super::desk::{Address, Desk, Wishes};
use crate::cli::UsageError;
use crate::cli::output::note;
use crate::config::{Config, ProviderConfig, TlsRoots};
use crate::domain::lane::{Api, Endpoint};

/// The options about it.
#[derive(Args, Clone, Debug)]
pub(super) struct Place {
    /// Provider in the configuration [default: the one of the endpoint]
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<String>,
    /// Environment variable with the API key [default: the provider's name and _API_KEY]
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// Main listener of a running nightbus [default: the configured one if it answers]
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// Use a nightbus in this process although one may be running
    #[arg(long, conflicts_with = "server")]
    pub(super) no_server: bool,
}

impl Place {
    /// The provider that is asked.
    pub(super) fn provider<'c>(
        &self,
        config: &'c Config,
        endpoint: Endpoint,
    ) -> Result<&'c ProviderConfig, UsageError> {
        let of_api = |provider: &&ProviderConfig| provider.kind.api() == endpoint.api();
        let found = match (&self.provider, endpoint.api()) {
            (Some(name), _) => config.providers.get(name),
            (None, Api::OpenAi) => config.providers.get(&config.default_provider),
            (None, Api::Anthropic) => config.providers.values().find(of_api),
        };
        found.filter(of_api).ok_or_else(|| {
            let fitting: Vec<&str> =
                config.providers.values().filter(of_api).map(|provider| provider.name.as_str()).collect();
            UsageError(format!(
                "no provider for {endpoint} by that name: take one with --provider ({})",
                fitting.join(", ")
            ))
        })
    }

    /// The caller's key. Each provider has a variable of its own, so that no key goes to another provider.
    pub(super) fn key(&self, provider: &ProviderConfig) -> Result<Option<String>, UsageError> {
        let name = self.key_name(provider);
        let key = std::env::var(&name).ok().filter(|key| !key.is_empty());
        if key.is_none() && self.key_env.is_some() {
            return Err(UsageError(format!("--key-env: the environment variable {name} is not set, or empty")));
        }
        Ok(key)
    }

    /// The variable that it is read from.
    fn key_name(&self, provider: &ProviderConfig) -> String {
        let usual = || format!("{}_API_KEY", provider.name.to_uppercase().replace('-', "_"));
        self.key_env.clone().unwrap_or_else(usual)
    }

    /// What a nightbus in this process cannot do without: a key of the caller, or one in the configuration.
    pub(super) fn needs_key(&self, provider: &ProviderConfig, key: Option<&str>) -> Result<(), UsageError> {
        if key.is_some() || provider.api_key.is_some() {
            return Ok(());
        }
        let name = self.key_name(provider);
        Err(UsageError(format!(
            "no API key for {}: set the environment variable {name}, or name another one with --key-env",
            provider.name
        )))
    }

    /// The running nightbus that a new run is handed to; none: one in this process.
    ///
    /// # Errors
    /// The one that was named does not answer, or one refuses the key.
    pub(super) async fn server(
        &self,
        config: &Config,
        endpoint: Endpoint,
        key: Option<&str>,
    ) -> anyhow::Result<Option<String>> {
        if self.no_server {
            return Ok(None);
        }
        let url = self.server.clone().unwrap_or_else(|| configured(config));
        let address = self.address(config, Some(url.clone()), key.map(ToOwned::to_owned));
        if Desk::new(address, endpoint, Wishes::default())?.probe().await? {
            note(&format!("Handing in at {url}."));
            return Ok(Some(url));
        }
        if self.server.is_some() {
            bail!("no nightbus answers at {url}. Start it with `nightbus serve`, or leave --server out to do without.");
        }
        Ok(None)
    }

    /// How to call `url` (none: the configured listener).
    pub(super) fn address(&self, config: &Config, url: Option<String>, key: Option<String>) -> Address {
        let own = configured(config);
        let url = url.unwrap_or_else(|| own.clone());
        let roots = match &config.tls {
            Some(tls) if url == own => TlsRoots::File(tls.cert.clone()),
            _ => TlsRoots::Auto,
        };
        Address { base: url.trim_end_matches('/').to_owned(), roots, provider: self.provider.clone(), key }
    }
}

/// The configured main listener, as seen from this machine.
fn configured(config: &Config) -> String {
    let mut address: SocketAddr = config.listen;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}
