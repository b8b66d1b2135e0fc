//! The strict provider simulator: a stand-in for the live and batch APIs of OpenAI, Anthropic and others (`dialect`), with
//! faults by name.
//!
//! Shipped as `nightbus simulate`, used by `nightbus demo`, and the fake of every integration test. It is written
//! from the provider's specification (providers.md, sections 1, 2, 4 and 8) and shares no code with the engine or the
//! formats in `wire`, so that a misreading there cannot be hidden by the same misreading here. It refuses what the
//! provider refuses, and it counts every execution that would be billed.

mod admin;
mod answers;
mod anthropic;
mod background;
mod batches;
mod content;
mod counters;
mod dialect;
mod faults;
mod files;
mod gemini;
mod life;
mod limits;
mod live;
mod mistral;
mod openrouter;
mod order;
mod output;
mod peek;
mod reply;
mod results;
mod server;
mod state;
mod stream;
mod stream_responses;
mod tampering;
mod together;
mod upload;
mod validate;
mod view;
mod xai;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::sim::state::State;
use crate::tasks::Tasks;

/// What the simulator is like. The defaults are those of `nightbus simulate`.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seconds from the creation of a batch to `completed`. 0: as fast as possible.
    pub batch_seconds: f64,
    /// How long a live call takes.
    pub live_latency: Duration,
    /// Share (0 to 1) of lines and live calls that are answered 429 or 500.
    pub fail_rate: f64,
    /// Faults to inject: `name`, `name:count` or `name:always` (see [`Sim::fault_names`]).
    pub faults: Vec<String>,
    /// Decides order of results, failing lines, and everything else that is random.
    pub seed: u64,
    /// The keys that are accepted; `None`: any non-empty key.
    pub api_keys: Option<Vec<String>>,
    /// Whether a call without a key is refused with 401.
    pub require_key: bool,
    /// Prompt tokens that may be enqueued for each key and model (providers.md, section 1.8); `None`: no limit.
    pub enqueued_token_limit: Option<u64>,
    /// Requests in one batch; `None`: the provider's own (50,000 and 100,000).
    pub max_requests: Option<usize>,
    /// Bytes in one batch; `None`: the provider's own (200,000,000 and 256,000,000).
    pub max_bytes: Option<u64>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 5052)),
            batch_seconds: 3.0,
            live_latency: Duration::from_millis(20),
            fail_rate: 0.0,
            faults: Vec::new(),
            seed: 0,
            api_keys: None,
            require_key: true,
            enqueued_token_limit: None,
            max_requests: None,
            max_bytes: None,
        }
    }
}

/// A running simulator. It serves until the tasks it was started with are asked to stop.
#[derive(Clone, Debug)]
pub struct Sim {
    addr: SocketAddr,
    state: Arc<State>,
}

/// Binds, and serves in the background until `tasks` stop.
///
/// # Errors
/// When the address cannot be bound, or an option is not valid (kind `InvalidInput`: an unknown fault name).
pub async fn start(options: SimOptions, tasks: Tasks) -> std::io::Result<Sim> {
    let listener = server::bind(options.listen)?;
    let addr = listener.local_addr()?;
    let state = State::new(options, tasks.clone())
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
    let state = Arc::new(state);
    tasks.spawn("sim-listener", server::serve(listener, Arc::clone(&state)));
    // Gives the listener its first turn, so that the caller's next connection is accepted at once.
    tokio::task::yield_now().await;
    Ok(Sim { addr, state })
}

impl Sim {
    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL for clients: `http://…/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// What was asked and executed so far; the same as `GET /sim/counters`.
    pub fn counters(&self) -> serde_json::Value {
        admin::counters_json(&self.state)
    }

    /// All faults: name and meaning.
    pub fn fault_names() -> &'static [(&'static str, &'static str)] {
        faults::TABLE
    }

    /// Replaces all faults.
    ///
    /// # Errors
    /// An unknown name or a count that is no number; the text lists the names. Nothing is changed then.
    pub fn set_faults(&self, faults: &[String]) -> Result<(), String> {
        self.state.faults.replace(faults)
    }
}
