//! The wrapper under a real hyper connection over an in-memory pipe of any width.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::body::{self, Body};

const INTERIM: &str = "HTTP/1.1 102 Processing\r\n\r\n";

fn get(number: usize) -> String {
    format!("GET /{number} HTTP/1.1\r\nhost: x\r\n\r\n")
}

fn answer(number: usize, length: usize) -> String {
    let body = number.to_string().repeat(length);
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Serves one connection with `handler`, which gets each call's sender.
async fn serve<F, R>(io: DuplexStream, handler: F)
where
    F: Fn(Request<Incoming>, InterimSender) -> R,
    R: Future<Output = Response<Body>>,
{
    let (io, calls) = wrap(io);
    let handler = &handler;
    let service = service_fn(move |request| {
        let (sender, open) = calls.open();
        let handling = handler(request, sender);
        async move {
            let response = handling.await;
            drop(open);
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .auto_date_header(false)
        .pipeline_flush(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service)
        .await
        .unwrap();
}

fn numbered(request: &Request<Incoming>) -> usize {
    request.uri().path().trim_start_matches('/').parse().unwrap()
}

async fn read(client: &mut DuplexStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn interim_responses_come_while_the_handler_is_pending_and_the_status_after_them() {
    let (mut client, io) = tokio::io::duplex(1024);
    let (senders, mut sent) = mpsc::unbounded_channel();
    let finish = tokio::sync::Notify::new();
    let server = serve(io, |request, sender| {
        senders.send(sender).unwrap();
        let finish = &finish;
        async move {
            finish.notified().await;
            Response::new(body::full(numbered(&request).to_string()))
        }
    });
    let test = async {
        let mut old = Vec::new();
        // One connection, several calls: each has its own signs of life.
        for number in 1..=3 {
            client.write_all(get(number).as_bytes()).await.unwrap();
            let sender: InterimSender = sent.recv().await.unwrap();
            for _sign in 0..number {
                assert!(sender.send());
                assert_eq!(read(&mut client, INTERIM.len()).await, INTERIM);
            }
            assert!(old.iter().all(|sender: &InterimSender| !sender.send()), "an ended call asks for nothing");
            finish.notify_one();
            let expected = answer(number, 1);
            assert_eq!(read(&mut client, expected.len()).await, expected);
            assert!(!sender.send());
            old.push(sender);
        }
        drop(client);
    };
    tokio::join!(server, test);
}

#[tokio::test]
async fn a_sender_outside_the_connections_task_wakes_it() {
    let (mut client, io) = tokio::io::duplex(1024);
    let (senders, mut sent) = mpsc::unbounded_channel();
    let tasks = crate::tasks::Tasks::new();
    let server = tasks.spawn(
        "server",
        serve(io, move |_request, sender| {
            senders.send(sender).unwrap();
            std::future::pending()
        }),
    );
    client.write_all(get(1).as_bytes()).await.unwrap();
    let sender = sent.recv().await.unwrap();
    for _sign in 0..3 {
        assert!(sender.send());
        assert_eq!(read(&mut client, INTERIM.len()).await, INTERIM);
    }
    drop(client);
    // The end of the connection drops the handler, and with it the call.
    assert!(server.await.is_ok());
    assert!(!sender.send());
}

#[tokio::test]
async fn a_full_pipe_splits_an_interim_response_but_nothing_gets_into_it() {
    // Three bytes at a time: the head is ready long before the interim response is out.
    let (mut client, io) = tokio::io::duplex(3);
    let server = serve(io, |request, sender| async move {
        assert!(sender.send());
        tokio::task::yield_now().await;
        Response::new(body::full(numbered(&request).to_string()))
    });
    let test = async {
        client.write_all(get(7).as_bytes()).await.unwrap();
        let expected = format!("{INTERIM}{}", answer(7, 1));
        assert_eq!(read(&mut client, expected.len()).await, expected);
        drop(client);
    };
    tokio::join!(server, test);
}

#[tokio::test]
async fn wishes_for_a_client_that_does_not_read_do_not_pile_up() {
    let (mut client, io) = tokio::io::duplex(INTERIM.len() + 5);
    let server = serve(io, |_request, sender| async move {
        for _sign in 0..100 {
            sender.send();
            tokio::task::yield_now().await;
        }
        Response::new(body::full("1"))
    });
    let test = async {
        client.write_all(get(1).as_bytes()).await.unwrap();
        for _turn in 0..500 {
            tokio::task::yield_now().await;
        }
        let expected = format!("{INTERIM}{INTERIM}{}", answer(1, 1));
        assert_eq!(read(&mut client, expected.len()).await, expected);
        drop(client);
    };
    tokio::join!(server, test);
}

#[tokio::test]
async fn a_handler_that_ends_at_once_sends_no_interim_response() {
    let (mut client, io) = tokio::io::duplex(1024);
    let server = serve(io, |_request, sender| async move {
        assert!(sender.send());
        Response::new(body::full("1"))
    });
    let test = async {
        client.write_all(get(1).as_bytes()).await.unwrap();
        let expected = answer(1, 1);
        assert_eq!(read(&mut client, expected.len()).await, expected);
        drop(client);
    };
    tokio::join!(server, test);
}

/// One call of a random conversation.
#[derive(Clone, Debug)]
struct Step {
    /// For each sign of life: how often the handler yields before it.
    signs: Vec<u8>,
    /// How long the answer is.
    length: usize,
    /// Sent without waiting for the answer to the call before.
    pipelined: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (proptest::collection::vec(0_u8..4, 0..6), 0_usize..600, any::<bool>())
        .prop_map(|(signs, length, pipelined)| Step { signs, length, pipelined });
    proptest::collection::vec(step, 1..8)
}

/// What the client must see: for each call at most as many interim responses as asked for, then its own answer.
fn check(mut stream: &str, steps: &[Step]) -> Result<(), TestCaseError> {
    for (number, step) in steps.iter().enumerate() {
        let mut interim = 0;
        while let Some(rest) = stream.strip_prefix(INTERIM) {
            interim += 1;
            stream = rest;
        }
        prop_assert!(interim <= step.signs.len(), "call {} has {} interim responses", number, interim);
        let expected = answer(number, step.length);
        prop_assert!(stream.starts_with(&expected), "call {}: {:?}", number, stream);
        stream = stream.get(expected.len()..).unwrap_or_default();
    }
    prop_assert_eq!(stream, "");
    Ok(())
}

async fn converse(steps: &[Step], width: usize) -> String {
    let (client, io) = tokio::io::duplex(width);
    let received = Rc::new(RefCell::new(String::new()));
    let server = serve(io, |request, sender| {
        let number = numbered(&request);
        let Step { signs, length, .. } = steps[number].clone();
        async move {
            for yields in signs {
                for _turn in 0..yields {
                    tokio::task::yield_now().await;
                }
                sender.send();
            }
            Response::new(body::full(number.to_string().repeat(length)))
        }
    });
    let (mut reader, mut writer) = tokio::io::split(client);
    let progress = tokio::sync::Notify::new();
    let write = async {
        for (number, step) in steps.iter().enumerate() {
            let answers = || received.borrow().matches("200 OK").count();
            while !step.pipelined && answers() < number {
                progress.notified().await;
            }
            writer.write_all(get(number).as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        let whole: usize = steps.iter().enumerate().map(|(number, step)| answer(number, step.length).len()).sum();
        let mut buffer = [0; 64];
        let without_interim = || received.borrow().replace(INTERIM, "").len();
        while without_interim() < whole {
            let count = reader.read(&mut buffer).await.unwrap();
            assert!(count > 0, "cut off after {:?}", received.borrow());
            received.borrow_mut().push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            progress.notify_one();
        }
    };
    tokio::select! {
        () = server => panic!("the server ended first"),
        () = write => unreachable!("the writer waits for ever"),
        () = read => {}
    }
    received.take()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_stream_is_always_in_order(steps in steps(), width in 1_usize..200) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(20), converse(&steps, width)).await
        });
        check(&stream.expect("took too long"), &steps)?;
    }
}
