//! What happens, while it happens: events of the bus as server-sent events.
//!
//! Every reader subscribes for itself and unsubscribes when it leaves, so that nobody pays while
//! nobody reads. A reader that is slow loses events, and is told how many.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::Stream;
use jackfield_runtime::Bus;
use plugin_api::events::{Flow, Record, Subscriptions};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::board::host;
use crate::app::App;
use crate::error::ApiError;
use crate::routes::responses::Errors;

/// Everything that happens from here on, as server-sent events: JSON with a `topic` each.
#[utoipa::path(
    get,
    path = "/events",
    tag = "Plugins",
    responses(
        (status = 200, description = "Until you leave", body = String, content_type = "text/event-stream"),
        Errors,
    ),
)]
pub(crate) async fn tail(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let none = || ApiError::not_there("events", "this server was started without a board");
    let bus = app.board.as_ref().ok_or_else(none)?.bus.clone();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let name = format!("http-events-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (sender, events) = channel(EVENTS_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    bus.subscribe(&host(&name), subscriptions(&sender, &lost));
    let tail = Tail { events, lost, bus, name, has_begun: false };
    let mut response = Response::new(Body::from_stream(tail));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Numbers of every topic; names and reasons where plugins change or fail.
fn subscriptions(sender: &Sender<Value>, lost: &Arc<AtomicU64>) -> Subscriptions {
    let send = {
        let (sender, lost) = (sender.clone(), Arc::clone(lost));
        move |event: Value| {
            if sender.try_send(event).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut on = Subscriptions::new();
    let tell = send.clone();
    on.after_swap(move |e, _| {
        tell(json!({
            "topic": "after-swap", "kind": e.kind, "name": e.name, "generation": e.generation,
            "is_mid_stream": e.is_mid_stream, "prepare_us": e.prepare_us, "wait_us": e.wait_us,
        }));
        Flow::Continue
    });
    let tell = send.clone();
    on.after_rollback(move |e, _| {
        tell(json!({
            "topic": "after-rollback", "kind": e.kind, "name": e.name, "generation": e.generation,
            "reason": e.reason,
        }));
        Flow::Continue
    });
    let tell = send.clone();
    on.on_fault(move |e, _| {
        tell(json!({
            "topic": "on-fault", "kind": e.kind, "name": e.plugin, "request": e.request,
            "error": e.error.to_string(),
        }));
        Flow::Continue
    });
    on.observe(move |record: &Record, _| {
        // Told above, with names.
        if ["after-swap", "after-rollback", "on-fault"].contains(&record.topic) {
            return;
        }
        let mut event = Map::new();
        event.insert("topic".to_owned(), record.topic.into());
        event.insert("request".to_owned(), record.request.into());
        event.extend(record.iter().map(|(name, value)| (name.to_owned(), value.into())));
        send(Value::Object(event));
    });
    on
}

struct Tail {
    events: Receiver<Value>,
    lost: Arc<AtomicU64>,
    bus: Bus,
    name: String,
    has_begun: bool,
}

impl Stream for Tail {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Poll::Ready(Some(Ok(Bytes::from_static(b": events follow\n\n"))));
        }
        let Some(event) = ready!(self.events.poll_recv(cx)) else { return Poll::Ready(None) };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let mut text = format!("data: {event}\n\n");
        if lost > 0 {
            text += &format!("data: {}\n\n", json!({ "topic": "lost", "events": lost }));
        }
        Poll::Ready(Some(Ok(text.into())))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.bus.unsubscribe(&self.name);
    }
}

/// Events that wait to be read.
const EVENTS_MAX: usize = 4096;
