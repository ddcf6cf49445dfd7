//! The answers that every path may give instead of its own.

use std::collections::BTreeMap;

use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa::{IntoResponses, ToSchema};

use crate::error::ErrorResponse;

/// Statuses with what they mean, each with an `ErrorResponse`.
pub(crate) struct Errors;

#[rustfmt::skip]
const MEANINGS: [(&str, &str); 13] = [
    ("400", "The body is no JSON, or a field is unknown, unsupported, missing, of another type or outside its range"),
    ("401", "The key is missing or unknown"),
    ("403", "A hook refused the request, or it was addressed to another machine"),
    ("404", "There is no such model"),
    ("405", "The path takes another method"),
    ("408", "The body did not come in time"),
    ("413", "The body is too large"),
    ("415", "The body is not `application/json`"),
    ("429", "The queue is full; `retry-after` says when to try again"),
    ("500", "A plugin or the host failed"),
    ("501", "Not supported"),
    ("503", "The model is being loaded, the server is being stopped, or the cache has no room"),
    ("504", "The answer took too long"),
];

impl IntoResponses for Errors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let name = <ErrorResponse as ToSchema>::name();
        let response = |meaning: &str| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(&*name))).build();
            let response = ResponseBuilder::new().description(meaning);
            RefOr::T(response.content("application/json", content).build())
        };
        let all = MEANINGS.iter();
        all.map(|(status, meaning)| ((*status).to_owned(), response(meaning))).collect()
    }
}
