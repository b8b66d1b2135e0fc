//! The simulated provider, and a tap on the way to it that shows what went over the wire in both directions.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nightbus::sim::{self, Sim, SimOptions};
use nightbus::tasks::Tasks;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::Client;

/// The provider of one test.
pub(crate) struct Provider {
    pub(crate) sim: Sim,
    pub(crate) tasks: Tasks,
}

/// Batches of a fifth of a second.
pub(crate) fn quick() -> SimOptions {
    SimOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        batch_seconds: 0.2,
        live_latency: std::time::Duration::ZERO,
        ..SimOptions::default()
    }
}

impl Provider {
    pub(crate) async fn start(options: SimOptions) -> Self {
        let tasks = Tasks::new();
        Self { sim: sim::start(options, tasks.clone()).await.unwrap(), tasks }
    }

    pub(crate) async fn quick() -> Self {
        Self::start(quick()).await
    }

    pub(crate) async fn with_faults(faults: &[&str]) -> Self {
        Self::start(SimOptions { faults: faults.iter().map(ToString::to_string).collect(), ..quick() }).await
    }

    pub(crate) fn set_faults(&self, faults: &[&str]) {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        self.sim.set_faults(&faults).unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.sim.addr(), "")
    }

    pub(crate) fn counters(&self) -> Value {
        self.sim.counters()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counters()[name].as_u64().unwrap_or_else(|| panic!("no counter {name}"))
    }

    pub(crate) fn fired(&self, fault: &str) -> u64 {
        self.counters()["faults_fired"][fault].as_u64().unwrap_or(0)
    }

    /// Executions by marker.
    pub(crate) async fn executions(&self) -> Value {
        self.client().get("/sim/executions").await.json()
    }

    pub(crate) async fn executions_of(&self, probe: &str) -> u64 {
        self.executions().await[probe].as_u64().unwrap_or(0)
    }

    /// All batches, newest first.
    pub(crate) async fn batches(&self) -> Vec<Value> {
        self.client().get("/sim/batches").await.json()["data"].as_array().unwrap().clone()
    }

    /// The last calls whose path begins with `path`, newest first.
    pub(crate) async fn requests(&self, path: &str) -> Vec<Value> {
        let list = self.client().get(&format!("/sim/requests?limit=1000&path={path}")).await.json();
        list["data"].as_array().unwrap().clone()
    }

    pub(crate) async fn batch_seconds(&self, seconds: f64) {
        let settings = json!({"batch_seconds": seconds}).to_string();
        assert_eq!(self.client().post("/sim/settings", &[], settings).await.status, 200);
    }
}

/// One exchange.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) sent: Bytes,
    pub(crate) status: u16,
    pub(crate) answered: Bytes,
}

/// Stands before the provider and keeps every exchange.
#[derive(Clone)]
pub(crate) struct Tap {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Exchange>>>,
}

impl Tap {
    pub(crate) async fn before(provider: &Provider) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Self { addr: listener.local_addr().unwrap(), seen: Arc::default() };
        let http: Http<HttpConnector, Full<Bytes>> = Http::builder(TokioExecutor::new()).build_http();
        let (seen, to, tasks) = (Arc::clone(&tap.seen), provider.sim.addr(), provider.tasks.clone());
        provider.tasks.spawn("tap", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, http) = (Arc::clone(&seen), http.clone());
                let service = service_fn(move |request| relay(Arc::clone(&seen), http.clone(), to, request));
                tasks.spawn("tapped", async move {
                    let builder = hyper::server::conn::http1::Builder::new();
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        tap
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    pub(crate) fn all(&self) -> Vec<Exchange> {
        self.seen.lock().clone()
    }

    /// The lines of all uploaded input files, as text.
    pub(crate) fn input_lines(&self) -> Vec<String> {
        let uploads = self.all().into_iter().filter(|seen| seen.method == Method::POST && seen.path == "/v1/files");
        uploads
            .flat_map(|upload| {
                let form = String::from_utf8(upload.sent.to_vec()).unwrap();
                form.lines().filter(|line| line.starts_with('{')).map(ToOwned::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The lines of all result files that were downloaded.
    pub(crate) fn result_lines(&self) -> Vec<String> {
        let downloads = self.all().into_iter().filter(|seen| seen.path.ends_with("/content"));
        downloads
            .flat_map(|file| {
                String::from_utf8(file.answered.to_vec()).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }
}

async fn relay(
    seen: Arc<Mutex<Vec<Exchange>>>,
    http: Http<HttpConnector, Full<Bytes>>,
    to: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, String> {
    let (mut parts, body) = request.into_parts();
    let sent = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let mut exchange = Exchange {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers.clone(),
        sent: sent.clone(),
        status: 0,
        answered: Bytes::new(),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{to}{path}").parse().unwrap();
    let response =
        http.request(Request::from_parts(parts, Full::new(sent))).await.map_err(|error| error.to_string())?;
    let (parts, body) = response.into_parts();
    let answered = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    exchange.status = parts.status.as_u16();
    exchange.answered = answered.clone();
    seen.lock().push(exchange);
    Ok(Response::from_parts(parts, Full::new(answered)))
}
