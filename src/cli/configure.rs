//! The options of `serve`, and `check-config`, which reads the same configuration and starts nothing.

use std::path::PathBuf;

use clap::Args;

use super::output::{self, Output};
use crate::config::{self, Config, ConfigErrors, Overrides};

/// `nightbus serve`
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// Configuration file [default: proxy.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Main listener, such as 127.0.0.1:5050
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Admin listener, such as 127.0.0.1:5051
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Base URL of the default provider, such as https://api.openai.com/v1
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Where the store and its key live
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// sqlite or memory
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
}

impl ServeArgs {
    /// The configuration that these options, the environment and the file give together.
    ///
    /// # Errors
    /// All mistakes of all three.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        config::load(self.config.as_deref(), config::environment(), &self.overrides())
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            admin_listen: self.admin_listen.clone(),
            upstream: self.upstream.clone(),
            data_dir: self.data_dir.clone(),
            store: self.store.clone(),
        }
    }
}

/// `nightbus check-config`
#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Print what is in force as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is in force, secrets left out, or fails with all mistakes.
pub(super) fn check(args: &CheckArgs, out: Output) -> anyhow::Result<()> {
    let config = args.serve.load()?;
    let summary = config::summary(&config);
    if args.json {
        let prices = ("prices_as_of".to_owned(), config.prices.as_of().into());
        let object = summary.into_iter().map(|(key, value)| (key, value.into())).chain([prices]).collect();
        return Ok(output::json(&serde_json::Value::Object(object))?);
    }
    out.pairs(&summary)?;
    let prices = &config.prices;
    output::line(&format!("Prices: {} models, as of {}.", prices.len(), prices.as_of()))?;
    Ok(output::line("The configuration is valid.")?)
}
