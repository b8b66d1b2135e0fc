//! Every background task of the process, owned: named, counted, cancelled and awaited at shutdown.
//!
//! A panic in one task is contained: it is logged with the task's name, and nothing else stops.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks and waits for them. Clones share the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` in the background. Its result is `None` when it panicked.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(async move {
            match AssertUnwindSafe(future).catch_unwind().await {
                Ok(output) => Some(output),
                Err(panic) => {
                    let message = panic
                        .downcast_ref::<&str>()
                        .map(ToString::to_string)
                        .or_else(|| panic.downcast_ref::<String>().cloned())
                        .unwrap_or_default();
                    tracing::error!(task = name, message, "a background task panicked");
                    None
                }
            }
        })
    }

    /// Runs `future` where it is awaited; if the waiter is dropped first, the rest runs in the background. Costs nothing in
    /// the usual case, where nobody leaves.
    pub fn finish<F>(&self, name: &'static str, future: F) -> Finishing<F>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Finishing { name, tasks: self.clone(), future: Some(Box::pin(future)) }
    }

    /// Is cancelled when the process is asked to stop. Long tasks select on it.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether the process was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks all tasks to stop and waits for them, at most for `grace`. Returns whether all of them ended.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// A future that ends although its waiter leaves. Made by [`Tasks::finish`].
#[derive(Debug)]
pub struct Finishing<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    name: &'static str,
    tasks: Tasks,
    future: Option<Pin<Box<F>>>,
}

impl<F> Future for Finishing<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl<F> Drop for Finishing<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            drop(self.tasks.spawn(self.name, future));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_begun_ends_although_its_waiter_left() {
        let tasks = Tasks::new();
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel();
        let mut begun = Box::pin(tasks.finish("test", async move {
            drop(gone.await);
            done.send(7)
        }));
        assert!(futures_util::poll!(&mut begun).is_pending());
        drop(begun);
        go.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let tasks = Tasks::new();
        assert_eq!(tasks.spawn("panics", async { panic!("on purpose") }).await.unwrap(), None::<()>);
        assert_eq!(tasks.spawn("goes on", async { 1 }).await.unwrap(), Some(1));
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
    }
}
