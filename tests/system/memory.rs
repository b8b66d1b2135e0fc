//! Memory of the real process while it writes a large input file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::common::client::{ASYNC, CHAT, DEFER, chat, eventually};
use super::common::process::{Home, peak_memory};
use super::common::provider::Provider;

/// 1,024 lines of 64 KB: 64 MiB, a third of the provider's largest file. The build with debug assertions takes long
/// for the whole of it, and what is not a stream shows here as well.
const LINES: usize = 1_024;
const LINE_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn a_large_input_file_is_written_as_a_stream() {
    let provider = Provider::quick().await;
    let home = Home::new(
        &provider,
        "[batching]\nidle = \"1h\"\nmax_age = \"1h\"\npoll = \"100ms\"\n[flight]\nenabled = false",
    );
    let running = home.start().await;
    let client = running.client.clone();
    let next = Arc::new(AtomicUsize::new(0));
    let mut rng = fastrand::Rng::with_seed(1);
    let noise: String = (0..LINE_BYTES + LINES * 7).map(|_| rng.alphanumeric()).collect();
    let callers = (0..16).map(|_| {
        let (client, next, noise) = (client.clone(), Arc::clone(&next), &noise);
        async move {
            loop {
                let at = next.fetch_add(1, Ordering::SeqCst);
                if at >= LINES {
                    return;
                }
                // Each line its own part of a text that compresses badly, so that the store is large as well.
                let start = at * 7;
                let reply =
                    client.post(CHAT, &[DEFER, ASYNC], chat(&noise[start..start + LINE_BYTES]).to_string()).await;
                assert_eq!(reply.status, 202, "{reply:?}");
            }
        }
    });
    join_all(callers).await;
    let before = peak_memory(running.id());
    let flushed = client.post("/nightbus/v1/flush", &[], "").await.json();
    assert_eq!(flushed["requests"], LINES);
    eventually("the file is uploaded", || async {
        (provider.count("bytes_uploaded") > u64::try_from(LINES * LINE_BYTES).unwrap()).then_some(())
    })
    .await;
    let grown = peak_memory(running.id()) - before;
    assert_eq!(provider.count("files"), 1, "one file");
    assert!(grown < 40 << 20, "grew by {} MiB for a file of {} MiB", grown >> 20, (LINES * LINE_BYTES) >> 20);
    eventually("all lines are answered", || async {
        (provider.count("lines_executed") == u64::try_from(LINES).unwrap()).then_some(())
    })
    .await;
    running.kill().await;
}
