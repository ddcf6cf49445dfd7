//! The interface for operators described, at `/openapi.json` of their listener.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{adapter, events, mask, plugins, quotas};
use crate::error::ErrorResponse;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Jackfield for operators",
        description = "Which plugins run, and others in their place, while the service goes on.",
    ),
    paths(
        plugins::list,
        plugins::slots,
        plugins::load,
        plugins::swap,
        plugins::rollback,
        adapter::exchange,
        mask::exchange,
        quotas::read,
        quotas::change,
        events::tail,
    ),
    components(schemas(ErrorResponse)),
    modifiers(&Key),
    security(("key" = [])),
)]
struct Interface;

/// Every path asks for a key.
struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The interface as OpenAPI 3.1 has it.
pub(crate) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Interface::openapi())
}
