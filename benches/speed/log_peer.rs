//! The peer of durable intake: a bare hyper server that appends each body to a log, many of them with one `fdatasync`.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::origin::listen;
use crate::outcome::Outcome;

struct Append {
    body: Bytes,
    done: oneshot::Sender<()>,
}

/// Serves until it is killed.
pub(crate) fn run(log: &Path, sync_delay: Duration) -> Outcome<()> {
    let file = File::create(log)?;
    let (appends, queue) = channel();
    std::thread::spawn(move || write(file, &queue, sync_delay));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(appends))
}

async fn serve(appends: Sender<Append>) -> Outcome<()> {
    let listener = listen()?;
    announce(&format!("log peer listening on http://{}", listener.local_addr()?))?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let appends = appends.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, appends.clone()));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>, appends: Sender<Append>) -> Outcome<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?.to_bytes();
    let (done, written) = oneshot::channel();
    appends.send(Append { body, done })?;
    written.await?;
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"object\":\"request\",\"state\":\"queued\"}")));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Takes all that waits, writes it at once, syncs once, and answers.
fn write(mut file: File, queue: &Receiver<Append>, sync_delay: Duration) -> std::io::Result<()> {
    let mut group = Vec::new();
    let mut buffer = Vec::new();
    while let Ok(first) = queue.recv() {
        group.push(first);
        group.extend(queue.try_iter());
        buffer.clear();
        for append in &group {
            buffer.extend_from_slice(&append.body);
        }
        file.write_all(&buffer)?;
        file.sync_data()?;
        if !sync_delay.is_zero() {
            std::thread::sleep(sync_delay);
        }
        for append in group.drain(..) {
            // A caller that left needs no answer.
            append.done.send(()).unwrap_or_default();
        }
    }
    Ok(())
}

pub(crate) fn announce(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}
