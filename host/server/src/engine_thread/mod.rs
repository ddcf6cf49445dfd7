//! One thread owns the engine: it steps while there is work and sleeps on its inbox otherwise.
//!
//! Orders come over a channel and are taken in between two steps. A prompt is cut into tokens by whoever
//! asks, between two orders: that takes its time, and steps would wait for it. Tokens go out over one bounded
//! channel a request and never wait: a client that does not read loses its answer, not the others'
//! time. Nothing here polls, so that an idle server uses no processor.

mod answer;
mod port;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use jackfield_engine::model::PlanDigest;
use jackfield_engine::{Admitted, Encoded, Engine, EngineError, Output, Request, RequestId};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use answer::AnswerSender;
use port::Admission;

pub(crate) use answer::{AnswerStream, End, Ending, Next, Token};
pub(crate) use port::{EnginePort, Permit};

/// What the thread is asked for.
pub(crate) enum Order {
    /// Show a request to the hooks: what they let pass comes back, to be cut into tokens elsewhere.
    Ask(Box<Request>, oneshot::Sender<Result<Admitted, EngineError>>),
    /// Answer a request.
    Enter(Box<Submission>),
    /// Forget the request with this ticket.
    Cancel(u64),
    /// Look: a swap waits for a boundary.
    Wake,
    /// End once nothing runs, at the latest then.
    Drain(Instant),
}

/// A request on its way to the engine.
pub(crate) struct Submission {
    pub(crate) ticket: u64,
    pub(crate) request: Encoded,
    pub(crate) answer: AnswerSender,
    /// Held for as long as the request is in the engine.
    pub(crate) permit: Permit,
    /// Told whether the engine took it.
    pub(crate) taken: oneshot::Sender<Result<PlanDigest, EngineError>>,
}

/// A request in the engine.
struct Running {
    ticket: u64,
    answer: AnswerSender,
    last_token: Option<Instant>,
    permit: Permit,
}

/// The side of the channel that the thread reads, before it has an engine.
pub(crate) struct Inbox {
    orders: Receiver<Order>,
    admission: Arc<Admission>,
}

/// A port to a thread that is yet to be, with room for so many requests.
pub(crate) fn port(requests_max: usize) -> (EnginePort, Inbox) {
    let (sender, orders) = channel();
    let port = EnginePort::new(sender, requests_max);
    let admission = port.admission();
    (port, Inbox { orders, admission })
}

/// The engine with everything that is asked of it.
pub(crate) struct EngineThread {
    engine: Engine,
    orders: Receiver<Order>,
    /// Counts requests that are on their way to the engine, too.
    admission: Arc<Admission>,
    running: BTreeMap<RequestId, Running>,
    tickets: BTreeMap<u64, RequestId>,
    /// Requests whose clients are gone.
    gone: Vec<RequestId>,
    metrics: Arc<Metrics>,
    drain_until: Option<Instant>,
    failures_in_a_row: u32,
}

impl EngineThread {
    pub(crate) fn new(engine: Engine, inbox: Inbox, metrics: Arc<Metrics>) -> Self {
        Self {
            engine,
            orders: inbox.orders,
            admission: inbox.admission,
            running: BTreeMap::new(),
            tickets: BTreeMap::new(),
            gone: Vec::new(),
            metrics,
            drain_until: None,
            failures_in_a_row: 0,
        }
    }

    /// Works until it is told to end and everything is answered, or nobody is left to ask.
    pub(crate) fn run(mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
            if self.drain_until.is_some_and(|until| Instant::now() >= until) {
                return self.end_all(&Ending::Stopped);
            }
            if !self.running.is_empty() {
                self.step();
                continue;
            }
            if self.drain_until.is_some() && self.admission.num_requests() == 0 {
                return;
            }
            // What was offered meanwhile is taken in before the sleep; its offer wakes.
            self.engine.boundary();
            let order = match self.drain_until {
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // A prompt may be on its way still; if its client leaves, nobody says so.
                Some(_) => self.orders.recv_timeout(RETRY_AFTER),
            };
            match order {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Ask(request, answer) => {
                let asked = self.engine.ask(*request);
                if asked.is_err() {
                    self.metrics.requests_refused.add(1);
                }
                // Whoever no longer waits for it has left nothing behind.
                drop(answer.send(asked));
            }
            Order::Enter(submission) => self.enter(*submission),
            Order::Cancel(ticket) => {
                if let Some(request) = self.tickets.get(&ticket).copied() {
                    self.forget(request);
                }
            }
            Order::Wake => {}
            Order::Drain(until) => {
                let earlier = self.drain_until.map_or(until, |other| other.min(until));
                self.drain_until = Some(earlier);
            }
        }
    }

    fn enter(&mut self, submission: Submission) {
        let Submission { ticket, request, answer, permit, taken } = submission;
        match self.engine.enter(request) {
            Ok(id) => {
                let running = Running { ticket, answer, last_token: None, permit };
                self.running.insert(id, running);
                self.tickets.insert(ticket, id);
                // Whoever no longer waits for this cancels as well.
                let _ = taken.send(Ok(self.engine.digest()));
            }
            Err(error) => {
                self.metrics.requests_refused.add(1);
                drop(permit);
                drop(taken.send(Err(error)));
            }
        }
    }

    fn step(&mut self) {
        let (running, gone, metrics) = (&mut self.running, &mut self.gone, &*self.metrics);
        let tickets = &mut self.tickets;
        // One moment serves all tokens of a step.
        let mut now = None;
        let result = self.engine.step(&mut |output| match output {
            Output::Token {
                request,
                token,
                logprob,
                top_logprobs,
                prompt,
                text,
                pieces,
                digest,
            } => {
                let Some(to) = running.get_mut(&request) else { return };
                let now = *now.get_or_insert_with(Instant::now);
                if let Some(last) = to.last_token.replace(now) {
                    metrics.inter_token_seconds.observe(now - last);
                }
                let (text, top, prompt) = (text.to_owned(), top_logprobs.to_vec(), prompt.to_vec());
                let (pieces, digest) = (pieces.to_vec(), *digest);
                let token = Token { token, logprob, top, prompt, text, pieces, digest };
                if !to.answer.push(token) {
                    gone.push(request);
                }
            }
            Output::Finished { request, reason, text, pieces, stats, error, .. } => {
                let Some(to) = running.remove(&request) else { return };
                tickets.remove(&to.ticket);
                metrics.finished(reason, &stats, error.is_some());
                let ending = Ending::Done { reason, stats, error: error.cloned() };
                // Whoever is answered may ask again at once: there is room by then.
                drop(to.permit);
                to.answer.end(ending, text, pieces);
            }
        });
        for request in std::mem::take(&mut self.gone) {
            self.forget(request);
        }
        match result {
            Ok(_) => self.failures_in_a_row = 0,
            Err(error) => self.failed(&error),
        }
    }

    /// The backend failed: the step is tried again, since a swap may have caused it and be taken
    /// back meanwhile.
    fn failed(&mut self, error: &EngineError) {
        tracing::error!("step: {error}");
        self.failures_in_a_row += 1;
        if self.failures_in_a_row > FAILURES_IN_A_ROW_MAX {
            self.failures_in_a_row = 0;
            self.end_all(&Ending::Failed(error.to_string()));
            return;
        }
        match self.orders.recv_timeout(RETRY_AFTER) {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    /// Ends a request without an answer.
    fn forget(&mut self, request: RequestId) {
        self.engine.cancel(request);
        if let Some(running) = self.running.remove(&request) {
            self.tickets.remove(&running.ticket);
            self.metrics.cancelled.add(1);
        }
    }

    fn end_all(&mut self, ending: &Ending) {
        for (request, running) in std::mem::take(&mut self.running) {
            self.engine.cancel(request);
            drop(running.permit);
            running.answer.end(ending.clone(), "", &[]);
        }
        self.tickets.clear();
    }
}

/// Steps that may fail one after the other before every request is given up.
const FAILURES_IN_A_ROW_MAX: u32 = 20;

/// Time between two tries; what is ordered meanwhile is done.
const RETRY_AFTER: Duration = Duration::from_millis(50);
