//! `/v1/models`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::responses::Errors;
use crate::app::App;
use crate::error::ApiError;

/// The models that requests may name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    /// Its name in requests.
    id: String,
    /// `model`.
    object: &'static str,
    /// Seconds since 1970: when the server was started.
    created: u64,
    /// `jackfield`.
    owned_by: &'static str,
    /// The name of which this is another one.
    root: String,
    /// `generate`: completions and chats; `embed`: embeddings.
    task: &'static str,
    /// Tokens of prompt and answer together, of a text for embeddings; null while the model is being
    /// loaded.
    #[schema(required)]
    max_model_len: Option<usize>,
}

/// List the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    responses((status = 200, description = "The models", body = ModelList), Errors),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: models(&app) })
}

/// Describe one model.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    params(("model" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model", body = Model), Errors),
)]
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let models = models(&app);
    let known = models.iter().map(|model| model.id.clone()).collect::<Vec<_>>().join(" or ");
    let found = models.into_iter().find(|model| model.id == name);
    found.map(Json).ok_or_else(|| ApiError::no_model(&name, &known))
}

fn models(app: &App) -> Vec<Model> {
    let max_model_len = app.port.model().map(|model| model.context_length);
    let root = app.model_name();
    let config = app.config();
    let named = config.model_names.iter().map(|id| (id, &root, "generate", max_model_len));
    let tokens_max = app.embedder.get().map(jackfield_engine::Embedder::tokens_max);
    let embedding = config.embedding_model.iter().map(|id| (id, id, "embed", tokens_max));
    let model = |(id, root, task, max_model_len): (&String, &String, _, _)| Model {
        id: id.clone(),
        object: "model",
        created: app.started,
        owned_by: "jackfield",
        root: root.clone(),
        task,
        max_model_len,
    };
    named.chain(embedding).map(model).collect()
}
