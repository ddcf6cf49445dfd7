//! The interface as OpenAPI 3.1 describes it, from the types that the routes read and write.

use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::error::ErrorResponse;
use crate::params::{ChatMessage, Content, Prompts, Stop};
use crate::routes::chat::ChatChunk;
use crate::routes::{chat, completions, embeddings, models, operation, seeds, tokens};

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
    components(schemas(ErrorResponse, ChatChunk, ChatMessage, Content, Prompts, Stop))
)]
struct Interface;

/// The document of a server whose model has these names.
pub(crate) fn json(model_names: &[String]) -> String {
    let mut document = Interface::openapi();
    for schema in document.components.iter_mut().flat_map(|c| c.schemas.values_mut()) {
        if let RefOr::T(Schema::Object(object)) = schema
            && let Some(RefOr::T(Schema::Object(model))) = object.properties.get_mut("model")
            && object.additional_properties.is_some()
        {
            model.enum_values = Some(model_names.iter().map(|name| name.as_str().into()).collect());
        }
    }
    document.to_json().unwrap_or_default()
}
