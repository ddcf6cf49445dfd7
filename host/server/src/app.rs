//! What every route works with.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use jackfield_engine::model::LoadedModel;
use jackfield_engine::{Embedder, Memories};

use crate::EngineFacts;
use crate::admin::Board;
use crate::config::ServerConfig;
use crate::engine_thread::EnginePort;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// What every route works with.
pub(crate) struct App {
    pub(crate) port: EnginePort,
    pub(crate) metrics: Arc<Metrics>,
    /// Plugins that read parameters of requests, by name.
    pub(crate) readers: BTreeSet<String>,
    /// Requests that the engine works on at a time.
    pub(crate) running_max: usize,
    /// The plugins, if the server was told of them.
    pub(crate) board: Option<Board>,
    /// When the server was started, in seconds since 1970.
    pub(crate) started: u64,
    /// What turns texts into vectors, once it is loaded.
    pub(crate) embedder: OnceLock<Embedder>,
    /// What remembers conversations, once it is loaded.
    pub(crate) memories: OnceLock<Memories>,
    config: RwLock<Arc<ServerConfig>>,
}

impl App {
    pub(crate) fn new(
        port: EnginePort,
        metrics: Arc<Metrics>,
        facts: EngineFacts,
        config: ServerConfig,
    ) -> Self {
        let EngineFacts { readers, num_seqs_max: running_max, board } = facts;
        let config = RwLock::new(Arc::new(config));
        let (embedder, memories) = (OnceLock::new(), OnceLock::new());
        let started = now();
        Self { port, metrics, readers, running_max, board, started, embedder, memories, config }
    }

    /// The configuration as it is.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes another configuration; addresses and names stay as they were.
    pub(crate) fn configure(&self, mut next: ServerConfig) {
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        (next.address, next.admin_address) = (config.address, config.admin_address);
        next.model_names.clone_from(&config.model_names);
        next.embedding_model.clone_from(&config.embedding_model);
        self.port.set_requests_max(self.running_max + next.max_queued);
        *config = Arc::new(next);
    }

    /// The model's own name.
    pub(crate) fn model_name(&self) -> String {
        self.config().model_names.first().cloned().unwrap_or_default()
    }

    /// The model that a request names.
    pub(crate) fn model_named(&self, name: &str) -> Result<&Arc<LoadedModel>, ApiError> {
        let config = self.config();
        if !config.model_names.iter().any(|known| known == name) {
            return Err(ApiError::no_model(name, &config.model_names.join(" or ")));
        }
        self.model()
    }

    /// The same where a request may leave the name out.
    pub(crate) fn model_asked(&self, name: Option<&str>) -> Result<&Arc<LoadedModel>, ApiError> {
        name.map_or_else(|| self.model(), |name| self.model_named(name))
    }

    /// What turns texts into vectors, if that is what `name` is called.
    pub(crate) fn embedder_named(&self, name: &str) -> Result<&Embedder, ApiError> {
        let config = self.config();
        let Some(known) = &config.embedding_model else {
            let why = "no model for them is configured: set `embedding_model`, or start with \
                       `--embedding-model`";
            return Err(ApiError::not_there("embeddings", why));
        };
        if known != name {
            return Err(ApiError::no_model(name, known));
        }
        if self.port.is_draining() {
            return Err(ApiError::draining());
        }
        self.embedder.get().ok_or_else(ApiError::loading)
    }

    /// The model, if requests are taken.
    pub(crate) fn model(&self) -> Result<&Arc<LoadedModel>, ApiError> {
        if self.port.is_draining() {
            return Err(ApiError::draining());
        }
        self.port.model().ok_or_else(ApiError::loading)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
