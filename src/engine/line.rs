//! Whether a call that is held still has its connection: a close that has arrived is noticed only when the
//! connection's task runs, and an equal call may have come first (contract, section 5).
//!
//! Who wants to know asks, and the task that holds the call is woken. A connection looks for its end whenever it runs:
//! on HTTP/1.1 before it polls what it serves, on HTTP/2 just after (that looks at its stream). So a call that was
//! polled twice since the question is there as far as the system knew when it was asked, and one that had been left
//! is dropped instead. Nothing is timed, and a call that nobody asks after pays a lock that nobody else takes.
//! Owned by `engine::orphans`.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Resolves when the call is known to be there; with an error when it has gone.
pub(crate) type Present = oneshot::Receiver<()>;

/// One call on the line, for as long as its connection serves it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: Arc<Mutex<State>>,
}

/// By which others ask after a [`Line`].
#[derive(Debug)]
pub(crate) struct Doorbell(Weak<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The task that holds the call; none: it is still being accepted.
    task: Option<Waker>,
    asked: Vec<oneshot::Sender<()>>,
    /// Those who asked and have been waiting for one turn since.
    asked_before: Vec<oneshot::Sender<()>>,
}

impl Line {
    pub(crate) fn doorbell(&self) -> Doorbell {
        Doorbell(Arc::downgrade(&self.state))
    }

    /// To be called whenever what holds the call is polled.
    pub(crate) fn turn(&self, cx: &Context<'_>) {
        let mut state = self.state.lock();
        if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        let newly = mem::take(&mut state.asked);
        let answered = mem::replace(&mut state.asked_before, newly);
        let once_more = !state.asked_before.is_empty();
        drop(state);
        if once_more {
            cx.waker().wake_by_ref();
        }
        for asker in answered {
            // Who does not wait any more need not hear it.
            asker.send(()).unwrap_or_default();
        }
    }

    /// Runs `work`, which holds the call.
    pub(crate) async fn hold<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.turn(cx);
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl Doorbell {
    /// Whether the call has not ended.
    pub(crate) fn works(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Asks; none: it has gone, or came so lately that it is still being accepted.
    pub(crate) fn ring(&self) -> Option<Present> {
        let state = self.0.upgrade()?;
        let mut state = state.lock();
        let task = state.task.clone()?;
        let (asker, present) = oneshot::channel();
        state.asked.push(asker);
        drop(state);
        task.wake();
        Some(present)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn a_call_is_there_when_it_was_polled_twice_since_the_question() {
        let line = Line::default();
        let bell = line.doorbell();
        assert!(bell.works() && bell.ring().is_none(), "nobody holds it yet");
        let mut held = Box::pin(line.hold(pending::<()>()));
        assert!(poll!(&mut held).is_pending());
        let mut present = bell.ring().unwrap();
        assert!(poll!(&mut held).is_pending());
        let mut later = bell.ring().unwrap();
        assert!(poll!(&mut present).is_pending(), "the connection may look after it has polled the call");
        assert!(poll!(&mut held).is_pending());
        assert_eq!(poll!(&mut present), Poll::Ready(Ok(())));
        assert!(poll!(&mut later).is_pending(), "each question has two turns of its own");
        assert!(poll!(&mut held).is_pending());
        assert_eq!(poll!(&mut later), Poll::Ready(Ok(())));
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_is_gone() {
        let line = Line::default();
        let bell = line.doorbell();
        line.turn(&Context::from_waker(Waker::noop()));
        let present = bell.ring().unwrap();
        drop(line);
        assert!(present.await.is_err() && !bell.works() && bell.ring().is_none());
    }
}
