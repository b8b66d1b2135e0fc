//! A configuration that is read again: what calls see of it at once, and that a mistake changes nothing.

use std::sync::Arc;

use nightbus::app;
use nightbus::config::{self, Overrides};
use nightbus::tasks::Tasks;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::common::client::{ASYNC, CHAT, Client, DEFER, chat, eventually};
use super::common::process::Home;
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

/// Dollars for a million tokens, live and by batch.
fn price_list(live: f64, batch: f64) -> String {
    let row = json!({"provider": "openai", "model": "gpt-6-luna", "input": live, "output": live,
                     "batch_input": batch, "batch_output": batch});
    json!({"schema": 1, "as_of": "2026-11-01", "currency": "USD", "unit": "per 1,000,000 tokens", "models": [row]})
        .to_string()
}

/// What an answer's tokens cost at so many dollars for a million.
fn cost(answer: &Value, price: f64) -> f64 {
    answer["usage"]["total_tokens"].as_f64().unwrap() * price / 1e6
}

#[tokio::test]
async fn timings_and_prices_change_under_requests_that_wait_and_the_status_shows_what_is_in_force() {
    let provider = Provider::start(quick()).await;
    let directory = tempfile::tempdir().unwrap();
    let prices = directory.path().join("prices.json");
    std::fs::write(&prices, price_list(1.0, 0.5)).unwrap();
    let top = format!("store = \"memory\"\nprices = {:?}", prices.to_str().unwrap());
    let text = |tables: &str| toml(&provider.sim.base_url(), &top, tables);
    let file = Arc::new(Mutex::new(text("[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"")));
    let read = Arc::clone(&file);
    let load = move || config::parse(Some(("proxy.toml", read.lock().as_str())), [], &Overrides::default());
    let app = app::start_reloadable(load().unwrap(), Some(Arc::new(load)), Tasks::new()).await.unwrap();
    let (client, admin) = (Client::new(app.main_addr(), KEY), Client::new(app.admin_addr(), ""));
    let mode = || async { admin.get("/api/status").await.json()["deferral"].clone() };
    let id = client.accepted(CHAT, &chat("probe-waits")).await;
    assert_eq!(mode().await, "on");

    std::fs::write(&prices, price_list(8.0, 4.0)).unwrap();
    *file.lock() = text("[batching]\nidle = \"50ms\"\nmax_age = \"1h\"\npoll = \"100ms\"\n[deferral]\nmode = \"off\"");
    let report = admin.post("/api/reload", &[], "").await;
    assert_eq!(report.json()["taken"], json!(["batching.idle", "deferral.mode", "prices"]), "{report:?}");
    assert_eq!(mode().await, "off");
    let answer = client.result(&id).await;
    let paid = client.object(&id).await["cost_usd"].as_f64().unwrap();
    assert!((paid - cost(&answer.json(), 4.0)).abs() < 1e-12, "it left without a flush, at the new price: {paid}");
    let live = client.post(CHAT, &[DEFER], chat("probe-live").to_string()).await;
    assert_eq!(live.header("x-nightbus-passthrough"), "deferral-off");
    eventually("the live call is in the ledger at the new price", || async {
        let sums = admin.get("/api/savings?by=service").await.json();
        let sync = sums["groups"].as_array().unwrap().iter().find(|group| group["key"] == "sync")?.clone();
        let paid = sync["paid_usd"].as_f64().unwrap();
        assert!((paid - cost(&live.json(), 8.0)).abs() < 1e-12, "{sums}");
        Some(())
    })
    .await;
    app.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_changes_nothing() {
    let provider = Provider::start(quick()).await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |cert: &str, key: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(at(cert), made.cert.pem()).unwrap();
        std::fs::write(at(key), made.signing_key.serialize_pem()).unwrap();
    };
    write("one.pem", "one.key");
    write("two.pem", "two.key");
    let text = |cert: &str, key: &str, more: &str| {
        let tls = format!("[tls]\ncert = {:?}\nkey = {:?}\n{more}", at(cert), at(key));
        toml(&provider.sim.base_url(), "store = \"memory\"", &tls)
    };
    let file = Arc::new(Mutex::new(text("one.pem", "one.key", "")));
    let read = Arc::clone(&file);
    let load = move || config::parse(Some(("proxy.toml", read.lock().as_str())), [], &Overrides::default());
    let app = app::start_reloadable(load().unwrap(), Some(Arc::new(load)), Tasks::new()).await.unwrap();
    let admin = Client::new(app.admin_addr(), "");
    let mode = || async { admin.get("/api/status").await.json()["deferral"].clone() };
    *file.lock() = text("two.pem", "one.key", "[deferral]\nmode = \"off\"");
    let refused = admin.post("/api/reload", &[], "").await;
    assert_eq!((refused.status.as_u16(), mode().await), (400, json!("on")), "{refused:?}");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("Nothing was changed. ") && message.contains("two.pem"), "{message}");
    *file.lock() = text("two.pem", "two.key", "[deferral]\nmode = \"off\"");
    let report = admin.post("/api/reload", &[], "").await;
    assert_eq!(report.json()["taken"], json!(["deferral.mode", "tls.cert", "tls.key"]), "{report:?}");
    assert_eq!(mode().await, "off");
    app.shutdown().await;
}

#[tokio::test]
async fn a_hangup_changes_the_log_level_and_says_what_needs_a_restart() {
    let provider = Provider::start(quick()).await;
    let home = Home::new(&provider, "");
    let running = home.start().await;
    running.client.held(CHAT, &chat("probe-quiet")).await;
    assert!(!home.logged().contains("request accepted"), "{}", home.logged());
    let hang_up = || {
        let sent = std::process::Command::new("kill").args(["-HUP", &running.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    home.configure(&provider, "[log]\nlevel = \"info,nightbus=debug\"\n[budget]\ndaily_usd = 5.0");
    hang_up();
    eventually("it is read again", || async {
        home.logged().contains("the configuration was read again").then_some(())
    })
    .await;
    assert!(home.logged().contains("log.level") && home.logged().contains("budget.daily_usd"), "{}", home.logged());
    running.client.held(CHAT, &chat("probe-loud")).await;
    assert!(home.logged().contains("request accepted"), "{}", home.logged());
    home.configure(&provider, "[log]\nlevel = \"dbug\"");
    hang_up();
    eventually("it is refused", || async { home.logged().contains("nothing was changed").then_some(()) }).await;
    assert!(running.terminate().await.success());
}

#[tokio::test]
async fn a_stop_with_nothing_left_to_do_does_not_use_up_its_grace() {
    let provider = Provider::start(quick()).await;
    let running = Home::new(&provider, "[shutdown]\ngrace = \"10m\"").start().await;
    running.client.held(CHAT, &chat("probe-stop")).await;
    // A test that waits for ten minutes fails.
    assert!(running.terminate().await.success());
}
