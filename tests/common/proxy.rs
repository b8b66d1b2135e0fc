//! nightbus in the test's own process, quick enough for tests.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use nightbus::app::{self, App};
use nightbus::config::{self, Overrides};
use nightbus::tasks::Tasks;

use super::client::{Client, eventually};
use super::provider::Provider;

/// A running nightbus.
pub(crate) struct Proxy {
    app: App,
    pub(crate) client: Client,
}

/// The key most tests call with.
pub(crate) const KEY: &str = "sk-caller";

/// What all tests share; `top` holds keys of the file's top level, `tables` whole tables.
pub(crate) fn toml(base_url: &str, top: &str, tables: &str) -> String {
    let mut text = format!(
        "listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{top}\n\
         [providers.openai]\nbase_url = \"{base_url}\"\n{tables}\n"
    );
    let anthropic = format!("base_url = \"{base_url}\"\n");
    // With client keys every provider that they may use must have a key of nightbus's own.
    let more = if tables.contains("[[client_keys]]") { "" } else { anthropic.as_str() };
    for (table, keys) in [
        ("[providers.anthropic]", more),
        ("[batching]", "idle = \"60ms\"\nmax_age = \"5s\"\npoll = \"100ms\"\n"),
        ("[shutdown]", "grace = \"300ms\"\n"),
    ] {
        if !tables.contains(table) && !keys.is_empty() {
            text.push_str(&format!("{table}\n{keys}"));
        }
    }
    text
}

impl Proxy {
    /// In memory, over the simulator.
    pub(crate) async fn over(provider: &Provider) -> Self {
        Self::with(provider, "").await
    }

    /// In memory, over the simulator, with more configuration.
    pub(crate) async fn with(provider: &Provider, tables: &str) -> Self {
        Self::from_toml(&toml(&provider.sim.base_url(), "store = \"memory\"", tables)).await
    }

    /// On disk.
    pub(crate) async fn on_disk(provider: &Provider, data_dir: &Path, tables: &str) -> Self {
        let top = format!("data_dir = {:?}", data_dir.to_str().unwrap());
        Self::from_toml(&toml(&provider.sim.base_url(), &top, tables)).await
    }

    pub(crate) async fn from_toml(text: &str) -> Self {
        Self::with_environment(text, &[]).await
    }

    pub(crate) async fn with_environment(text: &str, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = config::parse(Some(("proxy.toml", text)), environment, &Overrides::default())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let app = app::start(config, Tasks::new()).await.unwrap();
        let client = Client::new(app.main_addr(), KEY);
        Self { app, client }
    }

    pub(crate) fn admin(&self) -> Client {
        Client::new(self.app.admin_addr(), "")
    }

    pub(crate) const fn app(&self) -> &App {
        &self.app
    }

    /// What came of `calls`, of which `count` wait for the same batch before it leaves, however slowly they come; from then
    /// on nothing waits for the idle time, which may be as long as it likes.
    pub(crate) async fn together<T>(&self, count: usize, calls: impl Future<Output = T>) -> T {
        let queued = || self.app.engine().queued_requests();
        let leaving = async {
            eventually("all wait together", || async { (queued() >= count as u64).then_some(()) }).await;
            let mut pace = tokio::time::interval(Duration::from_millis(25));
            loop {
                self.flush().await;
                pace.tick().await;
            }
        };
        tokio::select! {
            biased;
            outcome = calls => outcome,
            () = leaving => unreachable!("it goes on until the calls are done"),
        }
    }

    /// Lets go what waits for a batch now.
    pub(crate) async fn flush(&self) {
        assert_eq!(self.admin().post("/api/flush", &[], "").await.status, 200);
    }

    /// The ordered stop.
    pub(crate) async fn stop(self) {
        self.app.shutdown().await;
    }
}
