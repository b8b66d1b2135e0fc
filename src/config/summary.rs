//! The configuration as it is in force, for `nightbus check-config`.

use std::time::Duration;

use super::types::*;

/// Every key that has a value, by path, and the value as TOML writes it. Secrets read `(set)`.
pub fn summary(config: &Config) -> Vec<(String, String)> {
    let mut lines = Lines::default();
    lines.top(config);
    for provider in config.providers.values() {
        lines.provider(provider);
    }
    lines.routes(&config.routes);
    lines.deferral(&config.deferral);
    lines.batching(&config.batching);
    lines.service(config);
    for (index, key) in config.client_keys.iter().enumerate() {
        lines.text(&format!("client_keys[{index}].name"), &key.name);
        lines.secret(&format!("client_keys[{index}].key"), true);
        if let Some(providers) = &key.providers {
            lines.texts(&format!("client_keys[{index}].providers"), providers);
        }
    }
    lines.access(config);
    lines.later(config);
    if let Some(otel) = &config.otel {
        otel.endpoint.iter().for_each(|endpoint| lines.text("otel.endpoint", endpoint));
        otel.service_name.iter().for_each(|name| lines.text("otel.service_name", name));
    }
    lines.0
}

#[derive(Default)]
struct Lines(Vec<(String, String)>);

impl Lines {
    fn plain(&mut self, key: &str, value: &impl ToString) {
        self.0.push((key.to_owned(), value.to_string()));
    }

    fn optional(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.plain(key, &value);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        self.plain(key, &toml::Value::String(text.to_owned()));
    }

    fn texts(&mut self, key: &str, texts: &[impl AsRef<str>]) {
        let entries = texts.iter().map(|text| toml::Value::String(text.as_ref().to_owned())).collect();
        self.plain(key, &toml::Value::Array(entries));
    }

    fn duration(&mut self, key: &str, duration: Duration) {
        self.plain(key, &format!("\"{}\"", short(duration)));
    }

    fn secret(&mut self, key: &str, is_set: bool) {
        if is_set {
            self.plain(key, &"(set)");
        }
    }

    fn top(&mut self, config: &Config) {
        self.text("listen", &config.listen.to_string());
        self.text("admin_listen", &config.admin_listen.to_string());
        self.plain("allow_unauthenticated", &config.allow_unauthenticated);
        self.text("data_dir", &config.data_dir.display().to_string());
        let store = match config.store {
            StoreKind::Sqlite => "sqlite",
            StoreKind::Memory => "memory",
        };
        self.text("store", store);
        self.duration("retention", config.retention);
        if let Some(file) = &config.price_file {
            self.text("prices", &file.display().to_string());
        }
        self.text("default_provider", &config.default_provider);
    }

    fn routes(&mut self, routes: &[RouteConfig]) {
        for (index, route) in routes.iter().enumerate() {
            let key = |name: &str| format!("routes[{index}].{name}");
            self.text(&key("model"), route.model.glob().glob());
            self.text(&key("provider"), &route.provider);
            if let Some(rename) = &route.rename {
                self.text(&key("rename"), rename);
            }
        }
    }

    fn provider(&mut self, provider: &ProviderConfig) {
        let key = |name: &str| format!("providers.{}.{name}", provider.name);
        self.text(&key("kind"), provider.kind.as_str());
        self.text(&key("base_url"), &provider.base_url.to_string());
        if let Some(own) = &provider.api_key {
            self.text(&key("api_key_env"), &own.env);
        }
        if let Some(version) = &provider.api_version {
            self.text(&key("api_version"), version);
        }
        if let Some(window) = &provider.completion_window {
            self.text(&key("completion_window"), window);
        }
        if provider.cache_hour {
            self.text(&key("cache_ttl"), "1h");
        }
        if let Some(pause) = provider.min_poll {
            self.duration(&key("min_poll"), pause);
        }
        if let Some(patience) = provider.creation_patience {
            self.duration(&key("creation_patience"), patience);
        }
        if let Some(prefix) = &provider.endpoint_prefix {
            self.text(&key("endpoint_prefix"), prefix);
        }
        self.optional(&key("max_requests"), provider.max_requests);
        self.optional(&key("max_bytes"), provider.max_bytes);
        self.optional(&key("in_flight_tokens"), provider.in_flight_tokens);
        self.optional(&key("batches_per_hour"), provider.batches_per_hour);
        self.optional(&key("max_live_calls"), provider.max_live_calls);
        if let Some(windows) = &provider.background_windows {
            self.texts(&key("background_windows"), windows);
        }
        if let Some(endpoints) = &provider.endpoints {
            self.texts(&key("endpoints"), endpoints);
        }
        if let Some(webhooks) = &provider.webhooks {
            self.text(&key("webhook_secret_env"), &webhooks.env);
        }
    }

    fn deferral(&mut self, deferral: &DeferralConfig) {
        let mode = match deferral.mode {
            DeferralMode::On => "on",
            DeferralMode::Observe => "observe",
            DeferralMode::Off => "off",
        };
        self.text("deferral.mode", mode);
        self.plain("deferral.default", &deferral.default);
        let names = deferral.fallback.iter().map(|service| service.as_str());
        self.texts("deferral.fallback", &names.collect::<Vec<_>>());
        for (index, rule) in deferral.rules.iter().enumerate() {
            let key = |name: &str| format!("deferral.rules[{index}].{name}");
            for (name, glob) in [("model", &rule.model), ("path", &rule.path), ("user_agent", &rule.user_agent)] {
                if let Some(glob) = glob {
                    self.text(&key(name), glob.glob().glob());
                }
            }
            for (name, text) in [("tag", &rule.tag), ("key", &rule.key)] {
                if let Some(text) = text {
                    self.text(&key(name), text);
                }
            }
            self.plain(&key("defer"), &rule.defer);
        }
    }

    fn batching(&mut self, batching: &BatchingConfig) {
        self.duration("batching.idle", batching.idle);
        self.duration("batching.max_age", batching.max_age);
        self.plain("batching.max_attempts", &batching.max_attempts);
        self.duration("batching.poll", batching.poll);
        self.optional("batching.max_requests", batching.max_requests);
        self.optional("batching.max_bytes", batching.max_bytes);
        self.optional("batching.in_flight_tokens", batching.in_flight_tokens);
    }

    fn service(&mut self, config: &Config) {
        self.duration("hold.commit_after", config.hold.commit_after);
        self.duration("hold.heartbeat", config.hold.heartbeat);
        self.duration("hold.orphan_grace", config.hold.orphan_grace);
        self.plain("hold.interim_102", &config.hold.interim_102);
        self.plain("limits.max_body_bytes", &config.limits.max_body_bytes);
        self.plain("limits.max_queued_requests", &config.limits.max_queued_requests);
        self.plain("limits.max_held_connections", &config.limits.max_held_connections);
        self.duration("shutdown.grace", config.shutdown.grace);
        self.duration("upstream.connect_timeout", config.upstream.connect_timeout);
        self.duration("upstream.first_byte_timeout", config.upstream.first_byte_timeout);
        self.duration("upstream.idle_timeout", config.upstream.idle_timeout);
        let roots = match &config.upstream.tls_roots {
            TlsRoots::Auto => "auto".to_owned(),
            TlsRoots::System => "system".to_owned(),
            TlsRoots::Bundled => "bundled".to_owned(),
            TlsRoots::File(file) => file.display().to_string(),
        };
        self.text("upstream.tls_roots", &roots);
    }

    fn access(&mut self, config: &Config) {
        self.texts("cors.allow_origins", &config.cors.allow_origins);
        self.secret("admin.token", config.admin.token.is_some());
        self.texts("cors.allow_hosts", &config.cors.allow_hosts);
        self.texts("admin.allowed_hosts", &config.admin.allowed_hosts);
        self.plain("admin.show_bodies", &config.admin.show_bodies);
        for (table, tls) in [("admin.tls", &config.admin.tls), ("tls", &config.tls)] {
            if let Some(tls) = tls {
                self.text(&format!("{table}.cert"), &tls.cert.display().to_string());
                self.text(&format!("{table}.key"), &tls.key.display().to_string());
            }
        }
        self.text("log.format", if config.log.json { "json" } else { "text" });
        self.text("log.level", &config.log.level);
        self.secret("NIGHTBUS_MASTER_KEY", config.master_key.is_some());
    }

    fn budget(&mut self, budget: &BudgetConfig) {
        self.optional("budget.daily_usd", budget.daily_usd);
        for (index, limit) in budget.limits.iter().enumerate() {
            let key = |name: &str| format!("budget.limits[{index}].{name}");
            let (of, name) = limit.scope.named();
            self.text(&key(of), name);
            self.plain(&key("daily_usd"), &limit.daily_usd);
        }
    }

    fn later(&mut self, config: &Config) {
        self.plain("flight.enabled", &config.flight.enabled);
        self.plain("flight.min_requests", &config.flight.min_requests);
        self.plain("flight.size", &config.flight.size);
        self.duration("flight.ground_timeout", config.flight.ground_timeout);
        self.budget(&config.budget);
        self.secret("callbacks.secret", config.callbacks.signer.is_some());
        self.plain("callbacks.allow_private", &config.callbacks.allow_private);
        let allow: Vec<String> = config.callbacks.allow.iter().map(ToString::to_string).collect();
        self.texts("callbacks.allow", &allow);
    }
}

/// In the largest unit that is exact.
fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}
