//! What happens to calls: providers, deferral, batches, held connections, limits, the way out.

use crate::config::kinds::ProviderKind;
use crate::config::schema::{Key, Kind, Section, count, duration, text};

/// What providers of any kind can batch (providers.md, sections 1.3 and 2).
const ENDPOINTS: &[&str] =
    &["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations", "/v1/messages"];
const SERVICES: &[&str] = &["flex", "background_8h", "background_2h", "sync", "none"];
/// Background windows (providers.md, section 1.12).
const WINDOWS: &[&str] = &["8h", "2h"];
const BELOW: &str = "The provider's own limit holds as well.";

/// `[providers.NAME]`
pub(super) const PROVIDERS: Section = Section {
    path: "providers.*",
    about: "The providers, by name. The name is the path prefix (`/NAME/v1/…`): lower-case letters, digits, `-`, \
            `_`; not `v1`, `batch`, `nightbus`. `openai` is always there, and so is `anthropic` unless another \
            provider of that kind or `[[client_keys]]` are configured.",
    keys: &[
        Key::new(
            "kind",
            Kind::Choice(ProviderKind::NAMES),
            "The API it speaks. Batches: `openai` (it fits everybody with OpenAI's Files and Batches), `azure`, `groq`, \
             `dashscope`, `doubleword`, `gemini`, `mistral`, `together`, `xai`, `openrouter`, and `anthropic` (Messages and Message Batches). Live only, with \
             no discount: `vllm`, `openai-compatible`. The provider called `anthropic` is of that kind without being told.",
        )
        .default("\"openai\""),
        Key::new(
            "base_url",
            text("a URL such as \"https://api.openai.com/v1\""),
            "Where its API begins, with the \
             `/v1`. Required for kinds `azure`, `vllm` and `openai-compatible`, and for providers of kind `openai` or `anthropic` \
             with another name; otherwise the kind's own.",
        )
        .example("\"https://api.openai.com/v1\"")
        .risk("Over `http://` keys and prompts travel in the clear."),
        Key::new(
            "api_key_env",
            text("the name of an environment variable, such as \"OPENAI_API_KEY\""),
            "Environment \
             variable with the key that nightbus sends. Without it the caller's own credential is sent.",
        )
        .example("\"OPENAI_API_KEY\"")
        .risk("Without `[[client_keys]]` everybody who reaches the listener spends from this key."),
        Key::new("max_requests", count(1), "Most requests in one batch of this provider.").example("50000").risk(BELOW),
        Key::new("max_bytes", Kind::Size, "Most bytes in one batch of this provider.").example("200000000").risk(BELOW),
        Key::new(
            "in_flight_tokens",
            Kind::Count { min: 1, max: u64::MAX / 2 },
            "Most prompt tokens in unfinished \
             batches, per model.",
        )
        .example("2000000")
        .risk("Too high, and the provider refuses batches; nightbus then waits and submits them again."),
        Key::new("batches_per_hour", count(1), "Most batches created in one hour.").example("2000").risk(BELOW),
        Key::new(
            "api_version",
            text("a version such as \"2025-04-01-preview\""),
            "Kind `azure`: sent as `api-version` with every call that has none. Without it nothing is added, which is right \
             for a `base_url` that ends in `/openai/v1`.",
        )
        .example("\"2025-04-01-preview\""),
        Key::new(
            "completion_window",
            text("hours or days, such as \"24h\" or \"7d\""),
            "How long a batch may take, as the provider writes it. Kinds `groq` (to `7d`), `dashscope` (to `336h`), `doubleword` \
             (`24h`, `1h`), `mistral` (to `168h`), `vllm`, `openai-compatible`; all others know `24h`, which is everybody's default.",
        )
        .example("\"24h\"")
        .risk("What the provider has not done after it is submitted again."),
        Key::new(
            "min_poll",
            duration(0),
            "Shortest pause between two looks at one batch, whatever `batching.poll` says. Kind `azure`: `60s`; all others: none.",
        )
        .example("\"60s\"")
        .risk("Answers are found so much later."),
        Key::new(
            "creation_patience",
            duration(0),
            "Kind `openrouter`, whose batches cannot be looked up: how long requests wait when the call that creates their batch got no \
             answer, before they end with 502 `batch_failed`. They are not sent again: the batch may run, and be billed. Default `1h`.",
        )
        .example("\"1h\"")
        .risk("Their callers wait as long, for an answer that cannot come; meanwhile deadlines are met by live calls."),
        Key::new(
            "endpoint_prefix",
            text("a path such as \"/api/v1\""),
            "Kind `openrouter`: what stands before `/chat/completions` in the call that creates a batch. Default `/api/v1`; whether \
             `/v1` is right is not known.",
        )
        .example("\"/api/v1\""),
        Key::new(
            "cache_ttl",
            Kind::Choice(&["1h"]),
            "Kind `anthropic`: `\"cache_control\": {\"type\": \"ephemeral\"}` without a `ttl` asks for one hour in deferred calls, as \
             if the caller had written it; bodies that name a `ttl` anywhere, and live calls, stay as they are. Lines of a batch \
             seldom run within the five minutes that are meant otherwise.",
        )
        .example("\"1h\"")
        .risk("Writing to the cache for an hour costs twice the input price instead of 1.25 times: worth it where many calls share a prefix."),
        Key::new(
            "max_live_calls",
            Kind::Count { min: 1, max: 65_536 },
            "For providers without batches (`vllm`, `openai-compatible`): marked calls wait in the \
             queue, and so many of them run live at a time. There is no discount, and they say so. Without it they go live at once.",
        )
        .example("8"),
        Key::new(
            "background_windows",
            Kind::Texts { what: "windows", choices: WINDOWS },
            "Kind `openai`: the windows in which Responses calls may be answered in the background, 40 and 30 percent below the \
             live price (services `background_8h` and `background_2h`). Without it both; `[]`: none.",
        )
        .example("[\"8h\", \"2h\"]")
        .risk("A model that has none refuses them once, and is not asked again for hours."),
        Key::new(
            "webhook_secret_env",
            text("the name of an environment variable"),
            "Environment variable that holds the secret (`whsec_…`) of the provider's webhooks. With it \
             `POST /nightbus/v1/webhooks/NAME` takes `batch.completed`, `batch.failed`, `batch.expired` and `batch.cancelled`, \
             and the batch is looked at at once. For providers with OpenAI's batch API.",
        )
        .example("\"OPENAI_WEBHOOK_SECRET\"")
        .risk("The route needs no client key: the signature is all that lets a message in. Polling goes on without it."),
        Key::new(
            "endpoints",
            Kind::Texts { what: "endpoints", choices: ENDPOINTS },
            "The endpoints that can be \
             batched; calls to others pass through. Without it what the kind can.",
        )
        .example("[\"/v1/chat/completions\", \"/v1/embeddings\"]"),
    ],
};

/// `[deferral]`
pub(super) const DEFERRAL: Section = Section {
    path: "deferral",
    about: "Which calls may wait. First match decides: the header `x-nightbus-defer`, the path prefix `/batch`, a \
            model that ends in `:batch`, the rules, `default`.",
    keys: &[
        Key::new("mode", Kind::Choice(&["on", "observe", "off"]), "`on`: calls that may wait are deferred. `off`: \
             everything passes through live. `observe`: the same, and calls that would have been deferred are noted in the \
             ledger with what batch would have cost (`nightbus savings --observed`).")
            .default("\"on\""),
        Key::new("default", Kind::Bool, "Whether a call that nothing marks is deferred.")
            .default("false")
            .risk("With `true` interactive calls may wait for hours too."),
        Key::new("fallback", Kind::Texts { what: "services", choices: SERVICES }, "Services for requests with a \
             deadline, and for those that batch cannot serve, tried in this order: `flex`, `background_8h`, `background_2h`, `sync`. \
             `[]` or `[\"none\"]`: such requests fail. Where it names neither background window, a request with a deadline \
             is served by those of `background_windows` that are in time before `sync`.")
            .default("[\"sync\"]")
            .risk("`sync` costs the full price."),
    ],
};

/// `[[deferral.rules]]`
pub(super) const RULES: Section = Section {
    path: "deferral.rules[]",
    about: "Rules for calls that are not marked by header, path or model. All conditions of a rule must hold (at \
            least one is needed); the first rule that fits decides. In globs `*` also matches `/`.",
    keys: &[
        Key::new("model", text("a glob"), "Glob on the body's `model`.").example("\"gpt-5*\""),
        Key::new("path", text("a glob"), "Glob on the path as the client sent it.").example("\"/v1/embeddings\""),
        Key::new("user_agent", text("a glob"), "Glob on the `User-Agent` header.").example("\"nightly-eval/*\""),
        Key::new("tag", text("a tag: up to 64 letters, digits, \".\", \"_\", \"-\""), "The value of `x-nightbus-tag`.")
            .example("\"nightly-eval\""),
        Key::new("key", text("the name of a client key"), "The `name` of the client key.").example("\"ci\""),
        Key::new("defer", Kind::Bool, "The decision. Required.").example("true"),
    ],
};

/// `[[routes]]`
pub(super) const ROUTES: Section = Section {
    path: "routes[]",
    about: "Which provider serves a model, for calls whose path names no provider. The first route that fits decides. A \
            provider of the same API shape gets the call as it is; chat completions for a provider of kind `anthropic` \
            are translated, and the answer back. The caller's own key goes to no other provider: such a provider needs \
            `api_key_env`.",
    keys: &[
        Key::new("model", text("a glob"), "Glob on the body's `model`, without `:batch`. Required.")
            .example("\"claude-*\""),
        Key::new("provider", text("the name of a provider"), "The provider that gets the call. Required.")
            .example("\"anthropic\""),
        Key::new("rename", text("the name of a model"), "The model name it is sent with; without it, the caller's.")
            .example("\"claude-haiku-5-5\""),
    ],
};

/// `[batching]`
pub(super) const BATCHING: Section = Section {
    path: "batching",
    about: "When a lane's requests are submitted: whichever of `idle`, `max_age` and the limits comes first.",
    keys: &[
        Key::new("idle", duration(0), "A lane is submitted when nothing arrived for this long.")
            .default("\"5s\"")
            .risk("Shorter makes more and smaller batches. Above `max_age` it has no effect."),
        Key::new("max_age", duration(0), "A lane is submitted when its oldest request is this old.")
            .default("\"60s\"")
            .risk("Shorter makes more batches, and providers limit batches per hour."),
        Key::new(
            "max_attempts",
            Kind::Count { min: 1, max: 100 },
            "How often one request may ride in a batch, \
             where lines end expired or with 429 or 5xx.",
        )
        .default("3"),
        Key::new(
            "poll",
            duration(100),
            "Longest time between two polls of one batch; younger batches are polled more often.",
        )
        .default("\"10s\"")
        .risk("Longer delays answers by as much."),
        Key::new("max_requests", count(1), "Most requests in one batch.").example("50000").risk(BELOW),
        Key::new("max_bytes", Kind::Size, "Most bytes in one batch file.").example("\"200MB\"").risk(BELOW),
        Key::new(
            "in_flight_tokens",
            Kind::Count { min: 1, max: u64::MAX / 2 },
            "Most prompt tokens in unfinished \
             batches, per provider and model.",
        )
        .example("2000000")
        .risk(BELOW),
    ],
};

/// `[hold]`
pub(super) const HOLD: Section = Section {
    path: "hold",
    about: "Connections of callers that wait for their answer.",
    keys: &[
        Key::new(
            "commit_after",
            duration(0),
            "When the `200` of a held call goes out, for clients that interim \
             responses cannot keep waiting. Half of an announced timeout where that is shorter.",
        )
        .default("\"25s\"")
        .risk("Longer than a client's timeout, and the client gives up. Earlier, and fewer failures show as a status."),
        Key::new("heartbeat", duration(1_000), "Time between two signs of life.")
            .default("\"15s\"")
            .risk("Keep it below the idle time-out of every proxy in between."),
        Key::new(
            "orphan_grace",
            duration(0),
            "How long a request that is not yet submitted is kept when its caller is gone.",
        )
        .default("\"10m\"")
        .risk("Shorter than the time in which a caller comes back, and its place in the queue is lost."),
        Key::new(
            "interim_102",
            Kind::Bool,
            "Keep clients that are known to read past it waiting with `102 \
             Processing`, so that the real status can follow.",
        )
        .default("true"),
    ],
};

/// `[limits]`
pub(super) const LIMITS: Section = Section {
    path: "limits",
    about: "Bounds of what nightbus takes on.",
    keys: &[
        Key::new(
            "max_body_bytes",
            Kind::Size,
            "Largest body of a deferred call; above it 413. Calls that pass through have no limit.",
        )
        .default("33554432")
        .risk("Bodies of calls that may be deferred are held in memory until they are durable."),
        Key::new(
            "max_queued_requests",
            Kind::Count { min: 1, max: u64::MAX / 2 },
            "Most requests that wait to be \
             submitted; above it 429 `queue_full`.",
        )
        .default("1000000")
        .risk("Each takes disk for its body and some memory."),
        Key::new(
            "max_held_connections",
            Kind::Count { min: 1, max: u64::MAX / 2 },
            "Most connections that wait for an answer.",
        )
        .default("100000")
        .risk("Each takes an open file (`ulimit -n`) and some memory."),
    ],
};

/// `[upstream]`
pub(super) const UPSTREAM: Section = Section {
    path: "upstream",
    about: "Connections to providers.",
    keys: &[
        Key::new("connect_timeout", duration(1), "Until a connection stands, TLS included.").default("\"10s\""),
        Key::new("first_byte_timeout", duration(1), "From a request to the head of its response, and the longest time of a live call that serves a deferred request (for \
             `flex` half as much again).")
            .default("\"10m\"")
            .risk("Large models take minutes until a live call is answered: shorter cuts such calls off, already paid for."),
        Key::new("idle_timeout", duration(1), "Between two pieces of a body.")
            .default("\"10m\"")
            .risk("Streams that pause for longer are cut off."),
        Key::new("tls_roots", text("\"auto\", \"system\", \"bundled\" or the path of a PEM file"), "Which certificate \
             authorities are trusted: `system` (honours `SSL_CERT_FILE`), `bundled` (Mozilla's), a PEM file, or \
             `auto`: the system's if there are any, else the bundled.")
            .default("\"auto\""),
    ],
};
