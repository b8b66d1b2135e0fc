//! What goes out to a provider: HTTP client, TLS, the batch APIs and what each kind can do.
