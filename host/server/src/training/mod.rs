//! A run of training looked at: the page, and a stream of what happens in the run.
//!
//! Hooks of the bus gather one event for each step; who looks at the page gets what has been kept of the run,
//! then every event as it happens. A reader that is slow loses steps, never the run its time.

mod layers;
mod log;
mod watcher;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::unfold;
use jackfield_runtime::Bus;
use plugin_api::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::guard;
use crate::listen::listen;
use crate::outside;
use crate::routes::page;

use log::RunLog;

/// Serves the page of a run until it is dropped.
pub struct RunServer {
    runtime: Option<Runtime>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    listening: Option<JoinHandle<()>>,
    bus: Bus,
}

/// What every route works with.
struct Run {
    log: Arc<RunLog>,
    config: Arc<ServerConfig>,
}

impl RunServer {
    /// Listens at the address of `config`, and to the events of `bus` from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if the address cannot be had; [`Error::Config`] if it would be open to a network without
    /// any key.
    pub fn start(config: ServerConfig, bus: &Bus) -> Result<Self, Error> {
        config.check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(outside("threads for connections"))?;
        let what = format!("address {}", config.address);
        let listener = runtime.block_on(TcpListener::bind(config.address));
        let listener = listener.map_err(outside(&what))?;
        let address = listener.local_addr().map_err(outside(&what))?;
        let (log, config) = (Arc::new(RunLog::new()), Arc::new(config));
        watcher::subscribe(bus, &log);
        let (stop, is_stopped) = watch::channel(false);
        let run = Arc::new(Run { log, config: Arc::clone(&config) });
        let listening = runtime.spawn(listen(listener, router(&run), config, is_stopped));
        let (runtime, listening) = (Some(runtime), Some(listening));
        Ok(Self { runtime, address, stop, listening, bus: bus.clone() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RunServer {
    fn drop(&mut self) {
        self.bus.unsubscribe(watcher::NAME);
        let _ = self.stop.send(true);
        if let (Some(runtime), Some(listening)) = (self.runtime.take(), self.listening.take()) {
            // What has happened last is on its way to those who look.
            let sent = async { tokio::time::timeout(LAST_WORDS, listening).await };
            let _ = runtime.block_on(sent);
            runtime.shutdown_background();
        }
    }
}

fn router(run: &Arc<Run>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/page/{file}", get(page::file))
        .route("/ready", get(|| async { "ready" }))
        .route("/run/events", get(events))
        .route("/run/stop", post(stop))
        .fallback(|| async { ApiError::no_path() })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .layer(from_fn_with_state(Arc::clone(run), guarded))
        .with_state(Arc::clone(run))
}

/// Asks for a key where there are any; without, answers only what is addressed to this machine.
async fn guarded(State(run): State<Arc<Run>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<axum::extract::MatchedPath>();
    let route = matched.map_or("other", |matched| matched.as_str()).to_owned();
    match guard::check(&run.config, &request, &route) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn index() -> Result<Response, ApiError> {
    page::of_run()
}

/// Ends the run after the step that it is at, as a hook would: with a checkpoint.
async fn stop(
    State(run): State<Arc<Run>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    // A page of another address cannot send this type without being asked for it first.
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if media_type.is_none_or(|value| !value.starts_with("application/json")) {
        let found = media_type.unwrap_or("none").to_owned();
        return Err(ApiError::invalid("content-type", "application/json", &found));
    }
    run.log.ask_to_stop();
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "stopping": true }))))
}

/// What is kept of the run, then what happens, as server-sent events of JSON.
async fn events(State(run): State<Arc<Run>>) -> Response {
    let reader = run.log.reader();
    let events = unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), reader))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// How long readers are given once the run is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
