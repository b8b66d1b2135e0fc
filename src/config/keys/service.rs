//! The service itself: where it listens and keeps its data, who may call, how it logs and stops.

use crate::config::schema::{Key, Kind, Section, duration, text, texts};

const ADDRESS: Kind = text("an address with a port, such as \"127.0.0.1:5050\"");
const VARIABLE: Kind = text("the name of an environment variable, such as \"OPENAI_API_KEY\"");
const FILE: Kind = text("the path of a PEM file");

/// The top level.
pub(super) const TOP: Section = Section {
    path: "",
    about: "Where nightbus listens and keeps its data.",
    keys: &[
        Key::new("listen", ADDRESS, "Address of the main listener: the one that callers use as their base URL.")
            .default("\"127.0.0.1:5050\"")
            .risk(
                "Beyond loopback anybody who reaches the port can spend money, so nightbus refuses to start without \
                 `[[client_keys]]` or `allow_unauthenticated = true`. Must not overlap with `admin_listen`. Port 0 \
                 takes any free port.",
            ),
        Key::new("admin_listen", ADDRESS, "Address of the admin listener: dashboard, health, metrics, admin API.")
            .default("\"127.0.0.1:5051\"")
            .risk("Beyond loopback nightbus refuses to start without `admin.token` or `admin.token_env`."),
        Key::new("allow_unauthenticated", Kind::Bool, "Lets the main listener, and it alone, listen beyond loopback \
             without `[[client_keys]]`.")
            .default("false")
            .risk("Anybody who reaches the port can use it, and the provider's key too where `api_key_env` is set."),
        Key::new("data_dir", text("the path of a directory"), "Directory of the store and of the key that seals it; \
             made when it is missing.")
            .default("\"nightbus-data\"")
            .risk("Relative to the working directory. Whoever reads it can read the requests in it. One nightbus per directory."),
        Key::new("store", text("\"sqlite\", \"memory\" or \"postgres://…\""), "Where requests are kept: `sqlite` \
             survives crashes and restarts, `memory` does not. `postgres://…` is not in this version.")
            .default("\"sqlite\"")
            .risk("With `memory` every request that is under way, and every answer not yet fetched, is lost with the process."),
        Key::new("retention", duration(1_000), "How long a request and its answer are kept after it ended.")
            .default("\"72h\"")
            .risk("Longer needs more disk; shorter may drop an answer, already paid for, before it is fetched."),
        Key::new("prices", text("the path of a JSON file"), "Prices that go before the built-in ones, in the form of \
             `src/domain/prices.json`. Models that it does not name keep their built-in price; what neither names has \
             none, and is counted as such.")
            .example("\"prices.json\"")
            .risk("Read at start and at a reload. A row replaces the whole built-in row of its model: name all its prices."),
        Key::new("default_provider", text("the name of a provider"), "The provider of `/v1/…`. The others are at `/NAME/v1/…`.")
            .default("\"openai\""),
    ],
};

/// `[shutdown]`
pub(super) const SHUTDOWN: Section = Section {
    path: "shutdown",
    about: "What happens on SIGTERM and Ctrl-C. Nothing submitted is ever cancelled; it goes on after the next start.",
    keys: &[Key::new("grace", duration(0), "How long a stop waits for calls that finish by themselves.")
        .default("\"10s\"")
        .risk("Keep it below the time after which the service manager kills the process.")],
};

/// `[[client_keys]]`
pub(super) const CLIENT_KEYS: Section = Section {
    path: "client_keys[]",
    about: "Callers authenticate with one of these in place of the provider's key, which nightbus then holds \
            (`api_key_env`) and never shows. Without any, callers send the provider's own key.",
    keys: &[
        Key::new("name", text("a name"), "Name of the caller, for rules and the ledger. Required, and used once.")
            .example("\"ci\""),
        Key::new(
            "key_env",
            VARIABLE,
            "Environment variable that holds the key, such as one that begins with \
             `NIGHTBUS_KEY_`. Either this or `key`.",
        )
        .example("\"NIGHTBUS_KEY_CI\""),
        Key::new("key", text("the key itself"), "The key itself: visible ASCII. Used once.")
            .example("\"…\"")
            .risk("Readable by whoever can read the file: prefer `key_env`."),
        Key::new(
            "providers",
            texts("names of providers"),
            "The providers this key may use; without it all. Each \
             of them needs `api_key_env`.",
        )
        .example("[\"openai\"]"),
    ],
};

/// `[cors]`
pub(super) const CORS: Section = Section {
    path: "cors",
    about: "Web pages. By default no page may call nightbus through somebody's browser.",
    keys: &[
        Key::new(
            "allow_origins",
            texts("origins such as \"https://app.example.com\""),
            "Origins of the pages that may call the main listener.",
        )
        .default("[]")
        .risk("Each page of a listed origin can spend money. `*` and `null` are refused."),
        Key::new(
            "allow_hosts",
            texts("host names"),
            "Public names under which the main listener is called, such as `llm.example.com`. Needed only where nightbus \
             holds a provider's key (`api_key_env`) and callers need none (no `[[client_keys]]`), and then for `GET` alone: \
             addresses, names without a dot and private ones (`.local`, `.internal`, `.test`, `.home.arpa`) always pass.",
        )
        .default("[]")
        .risk("A name that others control lets their pages read what nightbus's key can read (DNS rebinding)."),
    ],
};

/// `[admin]`
pub(super) const ADMIN: Section = Section {
    path: "admin",
    about: "The admin listener.",
    keys: &[
        Key::new(
            "token",
            text("the token itself"),
            "Token that every admin call must carry. `NIGHTBUS_ADMIN_TOKEN` \
             sets it too.",
        )
        .example("\"…\"")
        .risk("Readable by whoever can read the file: prefer `token_env` or `NIGHTBUS_ADMIN_TOKEN`."),
        Key::new("token_env", VARIABLE, "Environment variable that holds the token. Either this or `token`.")
            .example("\"MY_ADMIN_TOKEN\""),
        Key::new(
            "allowed_hosts",
            texts("host names"),
            "`Host` values that the admin listener accepts beside \
             loopback ones: the names under which it is reached.",
        )
        .default("[]")
        .risk("A name that others control lets their pages reach the dashboard (DNS rebinding)."),
        Key::new("show_bodies", Kind::Bool, "Lets the dashboard show the bodies of requests and answers.")
            .default("false")
            .risk("Prompts and answers of all callers become visible to whoever may see the dashboard."),
    ],
};

/// `[tls]`
pub(super) const TLS: Section = Section {
    path: "tls",
    about: "TLS on the main listener; without it plain TCP. Give both or neither.",
    keys: &[
        Key::new("cert", FILE, "Certificate chain of the server, PEM.").example("\"/etc/nightbus/tls.crt\""),
        Key::new("key", FILE, "Its private key, PEM.").example("\"/etc/nightbus/tls.key\""),
    ],
};

/// `[admin.tls]`
pub(super) const ADMIN_TLS: Section = Section {
    path: "admin.tls",
    about: "TLS on the admin listener; without it plain TCP. Give both or neither.",
    keys: &[
        Key::new("cert", FILE, "Certificate chain of the admin listener, PEM; may be that of the main one.")
            .example("\"/etc/nightbus/tls.crt\"")
            .risk(
                "The commands that ask this listener need `--admin https://NAME:PORT` with a name that is in the \
                 certificate, and `--admin-ca` where its authority is not one that the system trusts.",
            ),
        Key::new("key", FILE, "Its private key, PEM.").example("\"/etc/nightbus/tls.key\""),
    ],
};

/// `[log]`
pub(super) const LOG: Section = Section {
    path: "log",
    about: "The log goes to standard error. It never holds bodies or keys.",
    keys: &[
        Key::new("format", Kind::Choice(&["text", "json"]), "Lines for people or JSON for machines.")
            .default("\"text\""),
        Key::new(
            "level",
            text("a level such as \"info\", or \"info,nightbus=debug\""),
            "What is logged: `off`, \
             `error`, `warn`, `info`, `debug`, `trace`, also by module as `nightbus=debug`.",
        )
        .default("\"info\"")
        .risk("`debug` and `trace` cost time on every call."),
    ],
};

/// `[otel]`
pub(super) const OTEL: Section = Section {
    path: "otel",
    about: "Spans for an OpenTelemetry collector: one for each deferred request, where it was served, and each batch \
            (docs/operations.md, \"Traces\"). Only in builds with the feature `otel`, such as the container image. The \
            standard variables `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, \
            `OTEL_TRACES_SAMPLER` and `OTEL_SDK_DISABLED` hold, too; what is set here goes before them.",
    keys: &[
        Key::new(
            "endpoint",
            text("the address of a collector, such as \"http://127.0.0.1:4318\""),
            "Base address of the collector, for OTLP over HTTP: spans are sent to `/v1/traces` below it. Without it, and \
             without `OTEL_EXPORTER_OTLP_ENDPOINT`, nothing is sent.",
        )
        .example("\"http://127.0.0.1:4318\"")
        .risk("Models, tags, names of client keys and ids go there; bodies, answers and keys never do."),
        Key::new("service_name", text("a name"), "`service.name` of the spans; without it `OTEL_SERVICE_NAME`, or else \
             `nightbus`.")
            .example("\"nightbus-nightly\""),
    ],
};
