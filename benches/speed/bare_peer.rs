//! The peer of handing out answers: a bare hyper server that holds each call until it is told to answer all of them.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{Connection, get};
use crate::log_peer::announce;
use crate::origin::listen;
use crate::outcome::Outcome;
use crate::provider::completion;

/// What it says when it is ready, before its address.
pub(crate) const READY: &str = "bare peer listening on http://";

/// Serves until it is killed; each answer has about `answer_bytes`.
pub(crate) fn run(answer_bytes: usize) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(Bytes::from(completion(answer_bytes))))
}

/// Has the peer at `address` answer everybody.
pub(crate) async fn release(address: SocketAddr) -> Outcome<()> {
    Connection::open(address).await?.call(&get("/release")).await?;
    Ok(())
}

async fn serve(body: Bytes) -> Outcome<()> {
    let listener = listen()?;
    announce(&format!("{READY}{}", listener.local_addr()?))?;
    let released = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (released, body) = (released.clone(), body.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, released.clone(), body.clone()));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    released: watch::Sender<bool>,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        released.send_replace(true);
        return Ok(Response::new(Full::default()));
    }
    // Read to its end, as nightbus has to.
    drop(request.into_body().collect().await);
    // The sender lives as long as the process.
    drop(released.subscribe().wait_for(|released| *released).await);
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
