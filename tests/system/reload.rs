//! A configuration that is read again: what calls see of it at once, and that a mistake changes nothing.

use std::sync::Arc;

use nightbus::app;
use nightbus::config::{self, Overrides};
use nightbus::tasks::Tasks;
use parking_lot::Mutex;
use serde_json::json;

use super::common::client::{ASYNC, CHAT, Client, chat};
use super::common::provider::{Provider, quick};
use super::common::proxy::{KEY, toml};

#[tokio::test]
async fn rules_change_without_a_restart_and_a_mistake_changes_nothing() {
    let provider = Provider::start(quick()).await;
    let text = |tables: &str| toml(&provider.sim.base_url(), "store = \"memory\"", tables);
    let file = Arc::new(Mutex::new(text("")));
    let read = Arc::clone(&file);
    let load = move || config::parse(Some(("proxy.toml", read.lock().as_str())), [], &Overrides::default());
    let app = app::start_reloadable(load().unwrap(), Some(Arc::new(load)), Tasks::new()).await.unwrap();
    let (client, admin) = (Client::new(app.main_addr(), KEY), Client::new(app.admin_addr(), ""));
    let status = || async { client.post(CHAT, &[ASYNC], chat("probe-rule").to_string()).await.status.as_u16() };
    assert_eq!(status().await, 200, "live");
    *file.lock() = text("[deferral]\ndefault = true\nmode = \"sometimes\"");
    let refused = admin.post("/api/reload", &[], "").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, "invalid_request".to_owned()));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("deferral.mode"), "{refused:?}");
    assert_eq!(status().await, 200, "as before");
    *file.lock() = text("[deferral]\ndefault = true\n[flight]\nenabled = false");
    let report = admin.post("/api/reload", &[], "").await;
    assert_eq!(report.status, 200, "{report:?}");
    assert_eq!(report.json()["taken"], json!(["deferral.default"]));
    assert_eq!(status().await, 202, "deferred from now on");
    app.shutdown().await;
}
