//! HTTP over one engine: the interface of OpenAI, and what operators need around it.
//!
//! Connections live on threads of their own; the engine stays on the thread that calls
//! [`Server::run`]. Nothing here knows what a plugin does, or how a model works.

mod admin;
mod app;
mod body;
mod config;
mod engine_thread;
mod error;
mod generate;
mod guard;
mod ids;
mod keys;
mod listen;
mod metrics;
mod openapi;
mod params;
mod routes;
mod signals;
mod training;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use jackfield_engine::{Embedder, Engine, Memories};
use plugin_api::Error;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use app::App;
use engine_thread::{EngineThread, Inbox};
use metrics::Metrics;

pub use admin::{Board, Exchange};
pub use config::ServerConfig;
pub use keys::Keys;
pub use training::RunServer;

/// What a server is told of the engine that it will have.
#[derive(Clone)]
pub struct EngineFacts {
    /// Plugins that read parameters of requests: processors and hooks, by name.
    pub readers: BTreeSet<String>,
    /// Sequences that it works on at a time.
    pub num_seqs_max: usize,
    /// Its plugins, if operators may look at them and change them.
    pub board: Option<Board>,
}

/// A server that listens, with an engine or before it has one.
pub struct Server {
    app: Arc<App>,
    inbox: Inbox,
    runtime: Runtime,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Server {
    /// Listens. Until [`run`](Self::run) has an engine, requests are answered with 503.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if the address cannot be had; [`Error::Config`] if it would be open to a
    /// network without any key.
    pub fn start(config: ServerConfig, facts: EngineFacts) -> Result<Self, Error> {
        config.check()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(2)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(outside("threads for connections"))?;
        let bind = |address: SocketAddr| -> Result<(TcpListener, SocketAddr), Error> {
            let what = format!("address {address}");
            let listener = runtime.block_on(TcpListener::bind(address)).map_err(outside(&what))?;
            let address = listener.local_addr().map_err(outside(&what))?;
            Ok((listener, address))
        };
        let (listener, address) = bind(config.address)?;
        let admin = config.admin_address.map(bind).transpose()?;
        let (port, inbox) = engine_thread::port(facts.num_seqs_max + config.max_queued);
        let metrics = Arc::new(Metrics::new());
        if let Some(board) = &facts.board {
            board.count(&metrics);
        }
        let app = Arc::new(App::new(port, metrics, facts, config));
        let (stop, is_stopped) = watch::channel(false);
        let listening =
            listen::listen(listener, routes::router(&app), app.config(), is_stopped.clone());
        let listening = runtime.spawn(listening);
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        if let Some((listener, _)) = admin {
            let router = admin::router(&app);
            runtime.spawn(listen::listen(listener, router, app.config(), is_stopped));
        }
        Ok(Self { app, inbox, runtime, address, admin_address, stop, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens to operators, if anywhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Ends the server when the process is told to; `on_hangup` is called where it is to read its
    /// configuration anew.
    ///
    /// # Errors
    ///
    /// [`Error::Outside`] if the signals cannot be had.
    pub fn obey_signals(&self, on_hangup: impl Fn() + Send + Sync + 'static) -> Result<(), Error> {
        let _entered = self.runtime.enter();
        signals::obey(Arc::clone(&self.app), on_hangup).map_err(outside("signals"))
    }

    /// Gives the server another configuration; addresses and names of the model stay.
    pub fn configurer(&self) -> impl Fn(ServerConfig) + Send + Sync + 'static {
        let app = Arc::clone(&self.app);
        move |config| app.configure(config)
    }

    /// Ends the server from another thread.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let app = Arc::clone(&self.app);
        move || app.port.drain(Instant::now() + app.config().drain_time)
    }

    /// Turns texts into vectors with this from now on; the configuration names it.
    pub fn embed_with(&self, embedder: Embedder) {
        // The first stays: there is one name to call it by.
        let _ = self.app.embedder.set(embedder);
    }

    /// Remembers conversations with these from now on: those of requests with a `session_id`.
    pub fn remember_with(&self, memories: Memories) {
        // The first stay: swaps reach them, not others.
        let _ = self.app.memories.set(memories);
    }

    /// Answers requests with this engine until it is told to stop and all are answered, or the
    /// time for that is over. `ready` is called as soon as requests are taken.
    pub fn run(self, engine: Engine, ready: impl FnOnce()) {
        engine.swapper().on_offer(self.app.port.waker());
        self.app.port.loaded(&engine);
        ready();
        let metrics = Arc::clone(&self.app.metrics);
        EngineThread::new(engine, self.inbox, metrics).run();
        // Answers are on their way: connections get the time to send them.
        let _ = self.stop.send(true);
        let time = self.app.config().write_time;
        let sent = async { tokio::time::timeout(time, self.listening).await };
        let _ = self.runtime.block_on(sent);
        self.runtime.shutdown_background();
    }
}

fn outside(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_owned();
    move |error| Error::Outside { what, message: error.to_string() }
}
