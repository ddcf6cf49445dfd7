//! Where routes ask the engine: admission, submission, and what is known of the model.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use jackfield_engine::generate::{Gauge, Load};
use jackfield_engine::model::{LoadedModel, PlanDigest};
use jackfield_engine::{Admitted, Encoded, Engine, EngineError, Request};
use tokio::sync::oneshot;

use super::answer::{AnswerStream, answer};
use super::{Order, Submission};

/// The way to the engine, for every thread.
#[derive(Clone)]
pub(crate) struct EnginePort {
    shared: Arc<Shared>,
    orders: Sender<Order>,
}

struct Shared {
    /// There once it is loaded.
    engine: OnceLock<(Arc<LoadedModel>, Gauge)>,
    is_draining: AtomicBool,
    next_ticket: AtomicU64,
    admission: Arc<Admission>,
}

/// How many requests are in the engine, and how many may be.
pub(super) struct Admission {
    used: AtomicUsize,
    max: AtomicUsize,
}

impl Admission {
    /// Requests that are in the engine, or on their way to it.
    pub(super) fn num_requests(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// Room for one request.
pub(crate) struct Permit(Arc<Admission>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

impl EnginePort {
    pub(super) fn new(orders: Sender<Order>, requests_max: usize) -> Self {
        let admission = Admission { used: AtomicUsize::new(0), max: requests_max.into() };
        let shared = Shared {
            engine: OnceLock::new(),
            is_draining: AtomicBool::new(false),
            next_ticket: AtomicU64::new(1),
            admission: Arc::new(admission),
        };
        Self { shared: Arc::new(shared), orders }
    }

    /// The engine is there: requests are taken from here on.
    pub(crate) fn loaded(&self, engine: &Engine) {
        let _ = self.shared.engine.set((engine.shared_model(), engine.gauge()));
    }

    /// How busy the engine is, once it is loaded.
    pub(crate) fn load(&self) -> Option<Load> {
        self.shared.engine.get().map(|(_, gauge)| gauge.read())
    }

    /// The model, once it is loaded.
    pub(crate) fn model(&self) -> Option<&Arc<LoadedModel>> {
        self.shared.engine.get().map(|(model, _)| model)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::Acquire)
    }

    /// Takes no new requests, and ends the engine once the others are answered.
    pub(crate) fn drain(&self, until: Instant) {
        self.shared.is_draining.store(true, Ordering::Release);
        let _ = self.orders.send(Order::Drain(until));
    }

    /// Wakes the engine for a boundary.
    pub(crate) fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let orders = self.orders.clone();
        move || drop(orders.send(Order::Wake))
    }

    /// Changes how many requests may be in the engine, queued ones included.
    pub(crate) fn set_requests_max(&self, max: usize) {
        self.shared.admission.max.store(max, Ordering::Release);
    }

    /// Requests in the engine.
    pub(crate) fn num_requests(&self) -> usize {
        self.shared.admission.num_requests()
    }

    pub(super) fn admission(&self) -> Arc<Admission> {
        Arc::clone(&self.shared.admission)
    }

    /// Room for `n` requests, all or nothing.
    pub(crate) fn admit(&self, n: usize) -> Option<Vec<Permit>> {
        let admission = &self.shared.admission;
        let max = admission.max.load(Ordering::Acquire);
        let grown = |used: usize| used.checked_add(n).filter(|used| *used <= max);
        admission.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).ok()?;
        Some((0..n).map(|_| Permit(Arc::clone(admission))).collect())
    }

    /// Shows a request to the hooks, on the engine's thread, which gives back what they let pass.
    ///
    /// # Errors
    ///
    /// What the engine says; nothing if it is gone.
    pub(crate) async fn ask(&self, request: Request) -> Result<Admitted, Option<EngineError>> {
        let (answer, is_answered) = oneshot::channel();
        self.orders.send(Order::Ask(Box::new(request), answer)).map_err(|_| None)?;
        is_answered.await.map_err(|_| None)?.map_err(Some)
    }

    /// Hands a request to the engine and waits until it was taken.
    ///
    /// # Errors
    ///
    /// What the engine says; nothing if it is gone.
    pub(crate) async fn enter(
        &self,
        request: Encoded,
        permit: Permit,
        unread_max: usize,
    ) -> Result<(PlanDigest, AnswerStream), Option<EngineError>> {
        let ticket = self.shared.next_ticket.fetch_add(1, Ordering::Relaxed);
        let (sender, stream) = answer(ticket, unread_max, self.orders.clone());
        let (taken, is_taken) = oneshot::channel();
        let submission = Submission { ticket, request, answer: sender, permit, taken };
        self.orders.send(Order::Enter(Box::new(submission))).map_err(|_| None)?;
        match is_taken.await {
            Ok(Ok(digest)) => Ok((digest, stream)),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }
}
