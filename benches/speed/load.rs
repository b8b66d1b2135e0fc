//! Load: closed loops, a fixed rate, streams, and many connections that are held.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bodies::Bodies;
use crate::http::{Connection, get};
use crate::origin::{STREAM_PATH, TIME_MARK, now_ns};
use crate::outcome::Outcome;

/// What a closed loop came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loop {
    /// Calls answered with the expected status.
    pub(crate) calls: usize,
    /// Other answers and broken connections.
    pub(crate) broken: usize,
    /// How long it ran.
    pub(crate) seconds: f64,
}

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this long.
    Elapsed(Duration),
    /// After so many calls.
    Calls(usize),
}

/// `connections` callers, each sending its next call when the last was answered with `status`.
pub(crate) async fn closed_loop(
    address: SocketAddr,
    connections: usize,
    bodies: &Arc<Bodies>,
    status: u16,
    until: Until,
) -> Outcome<Loop> {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Connection::open(address).await?);
    }
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for mut connection in open {
        let bodies = Arc::clone(bodies);
        callers.spawn(async move {
            let (mut calls, mut broken, mut request) = (0, 0, Vec::new());
            while match until {
                Until::Elapsed(duration) => begun.elapsed() < duration,
                Until::Calls(most) => calls < most / connections,
            } {
                bodies.next(&mut request);
                match connection.call(&request).await {
                    Ok(answer) if answer.status == status => calls += 1,
                    Ok(_) => broken += 1,
                    Err(_) => return (calls, broken + 1),
                }
            }
            (calls, broken)
        });
    }
    let mut done = Loop::default();
    while let Some(caller) = callers.join_next().await {
        let (calls, broken) = caller?;
        done.calls += calls;
        done.broken += broken;
    }
    done.seconds = begun.elapsed().as_secs_f64();
    Ok(done)
}

/// Latencies in microseconds at a fixed rate.
pub(crate) fn fixed_rate(
    address: SocketAddr,
    per_second: u32,
    duration: Duration,
    bodies: &Arc<Bodies>,
) -> Outcome<Vec<f64>> {
    Ok(timed_rate(address, per_second, duration, bodies)?.into_iter().map(|(_, time)| time).collect())
}

/// When each call was sent, and its latency in microseconds, at a fixed rate, whatever the answers take: threads with one connection each, which take
/// turns. Timed by blocking calls, without a runtime's timer in between.
pub(crate) fn timed_rate(
    address: SocketAddr,
    per_second: u32,
    duration: Duration,
    bodies: &Arc<Bodies>,
) -> Outcome<Vec<(Instant, f64)>> {
    const THREADS: u32 = 8;
    let interval = Duration::from_secs(u64::from(THREADS)) / per_second;
    let begin = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (bodies, first) = (Arc::clone(bodies), begin + interval * thread / THREADS);
            std::thread::spawn(move || turns(address, first, interval, begin + duration, &bodies))
        })
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        all.extend(thread.join().map_err(|_panic| "a caller panicked")??);
    }
    Ok(all)
}

fn turns(
    address: SocketAddr,
    first: Instant,
    interval: Duration,
    end: Instant,
    bodies: &Bodies,
) -> Outcome<Vec<(Instant, f64)>> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut times, mut request, mut buffer) = (Vec::new(), Vec::new(), vec![0; 16 * 1024]);
    let mut next = first;
    while next < end {
        bodies.next(&mut request);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        stream.write_all(&request)?;
        let mut got = 0;
        // The origin's answer is a little longer than 1 KiB; its end is known by its length.
        while got < 1_024 {
            let read = stream.read(buffer.get_mut(got..).unwrap_or_default())?;
            if read == 0 {
                return Err("a connection ended".into());
            }
            got += read;
        }
        times.push((sent, sent.elapsed().as_secs_f64() * 1e6));
        next += interval;
    }
    Ok(times)
}

/// What became of the chunks of some streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    /// From sending to receiving, in microseconds.
    pub(crate) times: Vec<f64>,
    /// Chunks that came more than half an interval late.
    pub(crate) held_back: usize,
}

/// `streams` event streams at once.
pub(crate) fn streams(address: SocketAddr, streams: u32, duration: Duration) -> Outcome<Chunks> {
    let threads: Vec<_> = (0..streams)
        .map(|_| {
            // Not all in the same millisecond of the interval.
            std::thread::sleep(crate::origin::INTERVAL / streams);
            std::thread::spawn(move || receive(address, duration))
        })
        .collect();
    let mut all = Chunks::default();
    for thread in threads {
        let one = thread.join().map_err(|_panic| "a listener panicked")??;
        all.times.extend(one.times);
        all.held_back += one.held_back;
    }
    Ok(all)
}

fn receive(address: SocketAddr, duration: Duration) -> Outcome<Chunks> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(&crate::http::post(STREAM_PATH, "", br#"{"stream":true}"#))?;
    let end = Instant::now() + duration;
    let (mut buffer, mut chunks, mut first) = (vec![0; 64 * 1024], Chunks::default(), true);
    while Instant::now() < end {
        let read = stream.read(&mut buffer)?;
        let received = now_ns();
        if read == 0 {
            return Err("a stream ended".into());
        }
        let data = buffer.get(..read).unwrap_or_default();
        for at in memchr::memmem::find_iter(data, TIME_MARK) {
            let digits = data.get(at + TIME_MARK.len()..).and_then(|rest| rest.get(..20)).unwrap_or_default();
            let Some(sent) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            // The first chunk comes with the head and the way upstream.
            if std::mem::take(&mut first) {
                continue;
            }
            let late = Duration::from_nanos(received.saturating_sub(sent));
            chunks.held_back += usize::from(late > crate::origin::INTERVAL / 2);
            chunks.times.push(late.as_secs_f64() * 1e6);
        }
    }
    Ok(chunks)
}

/// Connections that wait for their answers.
#[derive(Debug)]
pub(crate) struct Held {
    /// When each was answered 200.
    waiting: JoinSet<Option<Instant>>,
}

impl Held {
    /// Opens `count` connections, 256 at a time, and sends one call on each.
    pub(crate) async fn open(address: SocketAddr, count: usize, bodies: &Bodies) -> Outcome<Self> {
        let mut waiting = JoinSet::new();
        let mut request = Vec::new();
        for opened in 0..count {
            let mut connection = Connection::open(address).await?;
            bodies.next(&mut request);
            connection.send(&request).await?;
            waiting.spawn(async move {
                let good = connection.answer().await.is_ok_and(|answer| answer.status == 200);
                good.then(Instant::now)
            });
            if opened % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Self { waiting })
    }

    /// Waits for all answers; who has none by the end of `patience` counts as broken.
    pub(crate) async fn answered(mut self, patience: Duration) -> Outcome<Answered> {
        let (mut times, until, all) = (Vec::new(), Instant::now() + patience, self.waiting.len());
        while let Ok(Some(answered)) = tokio::time::timeout_at(until, self.waiting.join_next()).await {
            times.extend(answered?);
        }
        let broken = all - times.len();
        let now = Instant::now();
        let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
        Ok(Answered { broken, first: first.unwrap_or(now), last: last.unwrap_or(now) })
    }
}

/// How the held connections ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// Not with 200.
    pub(crate) broken: usize,
    /// The first answer.
    pub(crate) first: Instant,
    /// The last answer.
    pub(crate) last: Instant,
}

impl Answered {
    /// From the first answer to the last.
    pub(crate) fn seconds(&self) -> f64 {
        (self.last - self.first).as_secs_f64()
    }
}

/// A field of the admin listener's status.
pub(crate) async fn status(admin: SocketAddr, pointer: &str) -> Outcome<u64> {
    let mut connection = Connection::open(admin).await?;
    let text = connection.text(&get("/api/status")).await?;
    let status: serde_json::Value = serde_json::from_str(&text)?;
    let field = status.pointer(pointer).and_then(serde_json::Value::as_u64);
    field.ok_or_else(|| format!("no {pointer} in {text}").into())
}

/// Waits until a field of the status is at least `wanted`.
pub(crate) async fn until_status(admin: SocketAddr, pointer: &str, wanted: usize, patience: Duration) -> Outcome<()> {
    let end = Instant::now() + patience;
    loop {
        let value = status(admin, pointer).await?;
        if usize::try_from(value)? >= wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{pointer} is {value} and not {wanted}").into());
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
