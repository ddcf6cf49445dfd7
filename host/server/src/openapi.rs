//! The interface as OpenAPI 3.1 describes it, from the types that the routes read and write.

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{OpenApi, ToSchema as _};

use crate::app::App;
use crate::error::ErrorResponse;
use crate::params::{ChatMessage, Content, Prompts, Stop, unread};
use crate::routes::chat::ChatChunk;
use crate::routes::embeddings::{EmbeddingRequest, Vector};
use crate::routes::{chat, completions, embeddings, models, operation, seeds, sessions, tokens};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Jackfield",
        description = "The OpenAI interface over one engine, and what operators need around it.",
    ),
    paths(
        models::list,
        models::one,
        completions::complete,
        chat::complete,
        embeddings::embed,
        sessions::delete,
        tokens::tokenize,
        tokens::detokenize,
        operation::health,
        operation::ready,
        operation::version,
        operation::metrics,
        seeds::generate,
        seeds::train,
        seeds::checkpoint,
        seeds::plugins,
    ),
    components(schemas(ErrorResponse, ChatChunk, ChatMessage, Content, Prompts, Stop, Vector))
)]
struct Interface;

/// The document of a server: with the names of its model, its limits, and without parameters that
/// none of its plugins reads.
pub(crate) fn json(app: &App) -> String {
    let mut document = Interface::openapi();
    let config = app.config();
    let schemas = document.components.iter_mut().flat_map(|c| c.schemas.iter_mut());
    for (schema_name, schema) in schemas {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        let fields = &mut object.properties;
        // Requests take nothing that is not named; what is sent says so of nothing.
        if object.additional_properties.is_none() {
            continue;
        }
        if let Some(RefOr::T(Schema::Object(model))) = fields.get_mut("model") {
            let names: Vec<&String> = match *schema_name == EmbeddingRequest::name() {
                true => config.embedding_model.iter().collect(),
                false => config.model_names.iter().collect(),
            };
            let names = names.into_iter().map(|name| name.as_str().into());
            // Who may leave it out may say null as well.
            let null =
                (!object.required.iter().any(|field| field == "model")).then_some(Value::Null);
            let names: Vec<Value> = names.chain(null).collect();
            model.enum_values = (!names.is_empty()).then_some(names);
        }
        if let Some(RefOr::T(Schema::Object(n))) = fields.get_mut("n") {
            n.maximum = Some(config.max_choices.into());
        }
        for param in unread(&app.readers) {
            fields.remove(param);
        }
    }
    document.to_json().unwrap_or_default()
}
