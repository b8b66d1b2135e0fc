//! The keys of `proxy.toml`, section by section: data only. `schema` says what the fields mean.

mod callbacks;
mod calls;
mod service;
mod spending;

use super::schema::Section;

/// Every section, in documented order.
pub(in crate::config) const SECTIONS: &[Section] = &[
    service::TOP,
    calls::PROVIDERS,
    calls::DEFERRAL,
    calls::RULES,
    calls::BATCHING,
    calls::HOLD,
    calls::LIMITS,
    service::SHUTDOWN,
    calls::UPSTREAM,
    service::CLIENT_KEYS,
    service::CORS,
    service::ADMIN,
    service::ADMIN_TLS,
    service::TLS,
    service::LOG,
    service::OTEL,
    spending::FLIGHT,
    spending::BUDGET,
    spending::BUDGET_LIMITS,
    callbacks::CALLBACKS,
    calls::ROUTES,
];
