//! What the suite has to know of a kind to call it: where the simulator has it, and what its callers send.

use serde_json::{Value, json};

use super::common::client::{CHAT, Client, DEFER, Reply};
use super::common::provider::Provider;
use super::common::proxy::{Proxy, toml};

/// A kind.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Below the simulator's address.
    base: &'static str,
    model: &'static str,
    /// The list of batches, below `base`.
    batches: &'static str,
    /// How the simulator cancels one, below its address: `{base}` and `{id}`.
    cancel: &'static str,
    anthropic: bool,
    /// One whose creation got no answer can be found again.
    pub(crate) finds: bool,
}

const fn chat(name: &'static str, base: &'static str, model: &'static str) -> Kind {
    Kind { name, base, model, batches: "/batches", cancel: "{base}/batches/{id}/cancel", anthropic: false, finds: true }
}

pub(crate) const OPENAI: Kind = chat("openai", "/v1", "gpt-6-luna");
pub(crate) const ANTHROPIC: Kind = Kind {
    batches: "/messages/batches",
    cancel: "{base}/messages/batches/{id}/cancel",
    anthropic: true,
    ..chat("anthropic", "/v1", "claude-haiku-5-5")
};
pub(crate) const AZURE: Kind = chat("azure", "/azure/openai/v1", "gpt-6-luna");
pub(crate) const GROQ: Kind = chat("groq", "/groq/openai/v1", "openai/gpt-oss-120b");
pub(crate) const DASHSCOPE: Kind = chat("dashscope", "/dashscope/compatible-mode/v1", "qwen-plus");
pub(crate) const DOUBLEWORD: Kind = chat("doubleword", "/doubleword/v1", "Qwen/Qwen3-30B");
pub(crate) const MISTRAL: Kind = Kind {
    batches: "/batch/jobs",
    cancel: "{base}/batch/jobs/{id}/cancel",
    ..chat("mistral", "/mistral/v1", "mistral-small-latest")
};
pub(crate) const XAI: Kind = Kind { cancel: "{base}/batches/{id}:cancel", ..chat("xai", "/xai/v1", "grok-4.3") };
pub(crate) const OPENROUTER: Kind = Kind {
    // The button of the web site.
    cancel: "{base}/by-hand/{id}",
    finds: false,
    ..chat("openrouter", "/openrouter/api/v1", "openai/gpt-6-luna")
};
pub(crate) const GEMINI: Kind = Kind {
    // The id has its `batches/`.
    cancel: "/gemini/v1beta/{id}:cancel",
    ..chat("gemini", "/gemini/v1beta/openai", "gemini-3.5-flash")
};
pub(crate) const TOGETHER: Kind = chat("together", "/together/v1", "meta-llama/Llama-4-Scout");

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

impl Kind {
    /// nightbus over the simulator's dialect, whose lanes leave when they are let go; `store`: a line of the configuration.
    pub(crate) async fn proxy(&self, provider: &Provider, store: &str) -> Proxy {
        let sim = provider.sim.base_url();
        let flight = "[flight]\nenabled = false\n[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"";
        // The harness writes the first provider's table by itself.
        let table = if self.name == "openai" { String::new() } else { self.table(provider) };
        Proxy::from_toml(&toml(&sim, store, &format!("{table}{flight}"))).await
    }

    /// Its table in the configuration.
    pub(crate) fn table(&self, provider: &Provider) -> String {
        let (name, base) = (self.name, format!("http://{}{}", provider.sim.addr(), self.base));
        let more = if self.finds { "" } else { "creation_patience = \"1s\"\n" };
        format!("[providers.{name}]\nkind = \"{name}\"\nbase_url = \"{base}\"\nmin_poll = \"100ms\"\n{more}")
    }

    /// A call with this text; a marker in it comes back in the answer.
    pub(crate) fn body(&self, text: &str) -> Value {
        let mut body = json!({"model": self.model, "messages": [{"role": "user", "content": text}]});
        if self.anthropic {
            body["max_tokens"] = json!(64);
        }
        body
    }

    pub(crate) const fn is_anthropic(&self) -> bool {
        self.anthropic
    }

    fn path(&self) -> String {
        let path = if self.anthropic { "/v1/messages" } else { CHAT };
        format!("/{}{path}", self.name)
    }

    /// Sends a marked call, with more headers.
    pub(crate) async fn post(&self, client: &Client, text: &str, more: &[(&str, &str)]) -> Reply {
        let own: &[(&str, &str)] = if self.anthropic { &[DEFER, VERSION] } else { &[DEFER] };
        client.post(&self.path(), &[own, more].concat(), self.body(text).to_string()).await
    }

    /// The text of an answer.
    pub(crate) fn text(&self, reply: &Reply) -> String {
        assert_eq!(reply.status, 200, "{}: {reply:?}", self.name);
        let body = reply.json();
        let text = if self.anthropic {
            &body["content"].as_array().unwrap().last().unwrap()["text"]
        } else {
            &body["choices"][0]["message"]["content"]
        };
        text.as_str().unwrap().to_owned()
    }

    /// How often a batch was created.
    pub(crate) async fn creations(&self, provider: &Provider) -> usize {
        let path = format!("{}{}", self.base, self.batches);
        let calls = provider.requests(&path).await;
        calls.iter().filter(|call| call["method"] == "POST" && call["path"] == path.as_str()).count()
    }

    /// Cancels a batch at the provider, behind nightbus's back.
    pub(crate) async fn cancel(&self, provider: &Provider, key: &str, batch: &str) -> u16 {
        let path = self.cancel.replace("{base}", self.base).replace("{id}", batch);
        if self.name == "gemini" {
            let client = Client::new(provider.sim.addr(), "");
            return client.post(&path, &[("x-goog-api-key", key)], "").await.status.as_u16();
        }
        let client = Client::new(provider.sim.addr(), key);
        let headers: &[(&str, &str)] = if self.anthropic { &[VERSION] } else { &[] };
        client.post(&path, headers, "").await.status.as_u16()
    }
}
