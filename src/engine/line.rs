//! Whether a call that is held still has its connection: a close that has arrived is noticed only when the
//! connection's task runs, and an equal call may have come first (contract, section 5).
//!
//! Who wants to know asks, and the task that holds the call is woken. A connection looks for its end whenever it runs:
//! on HTTP/1.1 before it polls what it serves, on HTTP/2 just after (that looks at its stream). So a call that was
//! polled twice since the question is there as far as the system knew when it was asked, and one that had been left
//! is dropped instead. Nothing is timed, and a call that nobody asks after pays a lock that nobody else takes.
//!
//! On HTTP/2 a call has a task of its own, which hears of a reset when the connection's task has read it. There the
//! question goes to the [`Carrier`] first, which hands it on when it has read all that had arrived. On HTTP/1.1 the
//! carrier is told to ask the system for an end: the runtime hears of one only some time after it has arrived.
//!
//! What nobody can know: a client that sends the new call before it takes back the old one has, at that moment, two
//! calls on the line, and they stay two requests.
//! Lines are owned by `engine::orphans`, carriers by `intake::carried`.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// A connection that carries calls. Clones are the same connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carrier {
    /// HTTP/1.1: the task that reads it is the one that holds the call.
    carries_one: bool,
    /// Whether `asked` holds anything; spares every other read the lock.
    has_asked: Arc<AtomicBool>,
    reading: Arc<Mutex<Reading>>,
}

#[derive(Debug, Default)]
struct Reading {
    /// The task that reads; none: it has not begun, or has ended.
    task: Option<Waker>,
    asked: Vec<Question>,
}

/// A question on its way to its line.
#[derive(Debug)]
pub(crate) struct Question {
    line: Weak<Mutex<State>>,
    asker: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    carrier: Option<Carrier>,
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

    /// The connection that the call came on. To be called before it is held.
    pub(crate) fn set_carrier(&self, carrier: Option<Carrier>) {
        self.state.lock().carrier = carrier;
    }

    /// To be called whenever what holds the call is polled.
    pub(crate) fn turn(&self, cx: &Context<'_>) {
        let mut state = self.state.lock();
        if state.task.is_none() && !state.asked.is_empty() {
            // Asked while it was being accepted: only now it is known whom to ask.
            state.task = Some(cx.waker().clone());
            let (early, carrier) = (mem::take(&mut state.asked), state.carrier.clone());
            drop(state);
            for asker in early {
                Question { line: Arc::downgrade(&self.state), asker }.put(carrier.as_ref());
            }
            return;
        }
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

    /// Asks; none: it has gone. One that is still being accepted answers when that is over.
    pub(crate) fn ring(&self) -> Option<Present> {
        let line = self.0.upgrade()?;
        let (asker, present) = oneshot::channel();
        let mut state = line.lock();
        if state.task.is_none() {
            state.asked.push(asker);
            return Some(present);
        }
        let carrier = state.carrier.clone();
        drop(state);
        Question { line: Weak::clone(&self.0), asker }.put(carrier.as_ref());
        Some(present)
    }
}

impl Carrier {
    /// An HTTP/1.1 connection.
    pub(crate) fn of_one_call() -> Self {
        Self { carries_one: true, ..Self::default() }
    }

    /// Whether an end that the runtime has not heard of yet is to be looked for: on HTTP/1.1, when somebody has asked.
    pub(crate) fn looks_for_end(&self) -> bool {
        self.carries_one && self.has_asked.swap(false, Ordering::AcqRel)
    }

    fn ask(&self, question: Question) {
        if self.carries_one {
            self.has_asked.store(true, Ordering::Release);
            return question.hand_on();
        }
        let mut reading = self.reading.lock();
        let Some(task) = reading.task.clone() else {
            // It reads nothing any more: its calls have been told, and look at their streams.
            drop(reading);
            return question.hand_on();
        };
        reading.asked.push(question);
        self.has_asked.store(true, Ordering::Release);
        drop(reading);
        task.wake();
    }

    /// To be called before the connection is read: what is to be handed on if the read finds nothing, and to be put back
    /// if it finds something.
    pub(crate) fn before_read(&self, cx: &Context<'_>) -> Vec<Question> {
        if self.carries_one {
            return Vec::new();
        }
        let mut reading = self.reading.lock();
        if !reading.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            reading.task = Some(cx.waker().clone());
        }
        if !self.has_asked.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        mem::take(&mut reading.asked)
    }

    /// There was something to read: there may be more.
    pub(crate) fn put_back(&self, questions: Vec<Question>) {
        if !questions.is_empty() {
            self.reading.lock().asked.extend(questions);
            self.has_asked.store(true, Ordering::Release);
        }
    }

    /// Nothing is read any more.
    pub(crate) fn ended(&self) {
        let mut reading = self.reading.lock();
        reading.task = None;
        let asked = mem::take(&mut reading.asked);
        drop(reading);
        asked.into_iter().for_each(Question::hand_on);
    }
}

impl Question {
    fn put(self, carrier: Option<&Carrier>) {
        match carrier {
            Some(carrier) => carrier.ask(self),
            None => self.hand_on(),
        }
    }

    /// To the task that holds the call. One that has ended is known to have gone: the asker is dropped.
    pub(crate) fn hand_on(self) {
        let Some(line) = self.line.upgrade() else { return };
        let mut state = line.lock();
        state.asked.push(self.asker);
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
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
        let mut early = bell.ring().unwrap();
        let mut held = Box::pin(line.hold(pending::<()>()));
        assert!(poll!(&mut held).is_pending() && poll!(&mut early).is_pending(), "nobody held it yet");
        assert!(poll!(&mut held).is_pending() && poll!(&mut early).is_pending());
        assert!(poll!(&mut held).is_pending());
        assert_eq!(poll!(&mut early), Poll::Ready(Ok(())));
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

    #[tokio::test]
    async fn a_call_on_http_2_is_asked_when_its_connection_has_read_what_had_arrived() {
        let (line, carrier) = (Line::default(), Carrier::default());
        line.set_carrier(Some(carrier.clone()));
        let cx = Context::from_waker(Waker::noop());
        assert!(carrier.before_read(&cx).is_empty());
        line.turn(&cx);
        let mut present = line.doorbell().ring().unwrap();
        line.turn(&cx);
        line.turn(&cx);
        assert!(poll!(&mut present).is_pending(), "its connection has not read");
        let asked = carrier.before_read(&cx);
        carrier.put_back(asked);
        line.turn(&cx);
        line.turn(&cx);
        assert!(poll!(&mut present).is_pending(), "there was something to read");
        carrier.before_read(&cx).into_iter().for_each(Question::hand_on);
        line.turn(&cx);
        assert!(poll!(&mut present).is_pending());
        line.turn(&cx);
        assert_eq!(poll!(&mut present), Poll::Ready(Ok(())));
    }

    #[tokio::test]
    async fn what_was_asked_of_a_connection_that_ends_goes_to_its_calls() {
        let (line, carrier) = (Line::default(), Carrier::default());
        line.set_carrier(Some(carrier.clone()));
        let cx = Context::from_waker(Waker::noop());
        assert!(carrier.before_read(&cx).is_empty());
        line.turn(&cx);
        let mut before = line.doorbell().ring().unwrap();
        carrier.ended();
        let mut after = line.doorbell().ring().unwrap();
        line.turn(&cx);
        line.turn(&cx);
        assert_eq!((poll!(&mut before), poll!(&mut after)), (Poll::Ready(Ok(())), Poll::Ready(Ok(()))));
    }
}
