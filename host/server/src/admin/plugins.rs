//! Which plugins run, and others in their place.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use jackfield_loader::{Plugins, PluginsError, SwapReport};
use serde::Deserialize;
use utoipa::{IntoResponses, ToSchema};

use super::Board;
use super::answers::{
    Difference, LoadedFile, Member, PluginList, Provided, SlotState, Slots, SwapAnswer, Swapped,
};
use crate::app::App;
use crate::body::read_json;
use crate::error::{ApiError, ErrorResponse};
use crate::generate::blocking;
use crate::params::{Fields, read_one};
use crate::routes::responses::Errors;

/// Let the plugin in a file fill a slot, or those in several files a slot each: all of them at one
/// boundary, or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwapRequest {
    /// The file on this machine; or `files`.
    file: Option<String>,
    /// The slot; the plugin's own name where none is given.
    slot: Option<String>,
    /// Files on this machine, which are one set.
    files: Option<Vec<String>>,
    /// The slot of each of `files`; null for the plugin's own name.
    slots: Option<Vec<Option<String>>>,
    /// Only tell what would change.
    dry_run: Option<bool>,
}

/// Load a plugin: let it fill the slot of its own name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadRequest {
    /// The file on this machine.
    file: String,
}

/// Take the latest swap of a slot back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackRequest {
    kind: String,
    /// The slot; the one of the kind's name where none is given.
    slot: Option<String>,
}

/// Which plugin fills which slot?
#[utoipa::path(
    get,
    path = "/slots",
    tag = "Plugins",
    responses((status = 200, description = "Every slot", body = Slots), Errors),
)]
pub(crate) async fn slots(State(app): State<Arc<App>>) -> Result<Json<Slots>, ApiError> {
    Ok(Json(Slots { slots: states(&board(&app)?.plugins) }))
}

/// Which plugins are there?
#[utoipa::path(
    get,
    path = "/plugins",
    tag = "Plugins",
    responses((status = 200, description = "Slots, files and names", body = PluginList), Errors),
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<PluginList>, ApiError> {
    let plugins = board(&app)?.plugins;
    let registry = plugins.registry().read().unwrap_or_else(PoisonError::into_inner);
    let provided = registry.iter().map(|(provided, info)| Provided {
        kind: provided.kind.to_owned(),
        name: info.name.clone(),
        lane: info.lane.to_string(),
        description: info.description.clone(),
    });
    let provided = provided.collect();
    drop(registry);
    let (slots, files) = (states(&plugins), LoadedFile::all(&plugins));
    Ok(Json(PluginList { slots, files, provided, native_mapped: plugins.native_mapped() }))
}

/// Load a plugin: let it fill the slot of its own name.
#[utoipa::path(
    post,
    path = "/plugins/load",
    tag = "Plugins",
    request_body = LoadRequest,
    responses((status = 200, description = "What it did", body = SwapAnswer), Refused, Errors),
)]
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<SwapAnswer>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<LoadRequest>);
    let (parts, body) = request.into_parts();
    let asked: LoadRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let files = vec![(absolute("file", asked.file)?, None)];
    one(swap_in(&app, files, false).await?)
}

/// Swap the plugin of a slot, or those of several at one boundary.
#[utoipa::path(
    post,
    path = "/plugins/swap",
    tag = "Plugins",
    request_body = SwapRequest,
    responses((status = 200, description = "What it did, or would do", body = SwapAnswer), Refused, Errors),
)]
pub(crate) async fn swap(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<SwapAnswer>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<SwapRequest>);
    let (parts, body) = request.into_parts();
    let asked: SwapRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let is_dry = asked.dry_run == Some(true);
    match (asked.file, asked.files) {
        (Some(file), None) if asked.slots.is_none() => {
            let files = vec![(absolute("file", file)?, asked.slot)];
            one(swap_in(&app, files, is_dry).await?)
        }
        (None, Some(files)) if asked.slot.is_none() => {
            let files = with_slots(files, asked.slots)?;
            Ok(Json(SwapAnswer::Set { swapped: swap_in(&app, files, is_dry).await? }))
        }
        (None, None) => Err(ApiError::missing("file")),
        _ => Err(ApiError::invalid("files", "`file` and `slot`, or `files` and `slots`", "both")),
    }
}

/// Each file of a set with its slot.
fn with_slots(
    files: Vec<String>,
    slots: Option<Vec<Option<String>>>,
) -> Result<Vec<(PathBuf, Option<String>)>, ApiError> {
    let slots = slots.unwrap_or_else(|| vec![None; files.len()]);
    if files.is_empty() || files.len() > FILES_MAX {
        let expected = format!("1 to {FILES_MAX} files");
        return Err(ApiError::invalid("files", &expected, &files.len().to_string()));
    }
    if slots.len() != files.len() {
        let expected = format!("one slot for each of {} files", files.len());
        return Err(ApiError::invalid("slots", &expected, &slots.len().to_string()));
    }
    files.into_iter().zip(slots).map(|(file, slot)| Ok((absolute("files", file)?, slot))).collect()
}

pub(super) fn absolute(param: &str, file: String) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(file);
    if path.is_absolute() {
        return Ok(path);
    }
    let found = path.display().to_string();
    Err(ApiError::invalid(param, "an absolute path on this machine", &found))
}

/// The answer to a set of one.
fn one(mut told: Vec<Member>) -> Result<Json<SwapAnswer>, ApiError> {
    let told = told.pop().ok_or_else(|| ApiError::failed("a swap of nothing"))?;
    Ok(Json(SwapAnswer::One(Box::new(told))))
}

/// Take the latest swap of a slot back.
#[utoipa::path(
    post,
    path = "/plugins/rollback",
    tag = "Plugins",
    request_body = RollbackRequest,
    responses((status = 200, description = "What is there again", body = Swapped), Refused, Errors),
)]
pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Swapped>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<RollbackRequest>);
    let (parts, body) = request.into_parts();
    let asked: RollbackRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let plugins = board(&app)?.plugins;
    let slot = asked.slot.unwrap_or_else(|| asked.kind.clone());
    let (kind, of_kind) = (asked.kind.clone(), slot.clone());
    let done = blocking(move || plugins.rollback(&kind, &of_kind)).await?;
    let reports = done.map_err(|error| refused(&error))?;
    // Kinds of which there is one are slots of their own name, whatever they are called.
    let is_asked = |r: &&SwapReport| r.kind == asked.kind && (r.slot == slot || r.slot == r.kind);
    let own = reports.iter().find(is_asked).ok_or_else(|| ApiError::failed("nothing came back"))?;
    let others = reports.iter().filter(|report| !std::ptr::eq(*report, own));
    let mut answer = Swapped::of(own);
    answer.with = others.map(Swapped::of).collect();
    Ok(Json(answer))
}

async fn swap_in(
    app: &App,
    files: Vec<(PathBuf, Option<String>)>,
    is_dry: bool,
) -> Result<Vec<Member>, ApiError> {
    let plugins = board(app)?.plugins;
    let work = move || -> Result<Vec<Member>, PluginsError> {
        if !is_dry {
            let reports = plugins.swap_files(&files)?;
            return Ok(reports.iter().map(|report| Member::Swapped(Swapped::of(report))).collect());
        }
        let preview =
            |(file, slot): &(PathBuf, Option<String>)| plugins.preview(file, slot.as_deref());
        files.iter().map(|of| Ok(Member::Difference(Difference::of(&preview(of)?)))).collect()
    };
    blocking(work).await?.map_err(|error| refused(&error))
}

pub(super) fn board(app: &App) -> Result<Board, ApiError> {
    let none = || ApiError::not_there("plugins", "this server was started without a board");
    app.board.clone().ok_or_else(none)
}

fn states(plugins: &Plugins) -> Vec<SlotState> {
    let registry = plugins.registry().read().unwrap_or_else(PoisonError::into_inner);
    let lane_of = |kind: &str, name: &str| {
        let mut all = registry.iter();
        let found = all.find(|(provided, _)| (provided.kind, &*provided.name) == (kind, name));
        found.map_or_else(String::new, |(_, info)| info.lane.to_string())
    };
    plugins.slots().into_iter().map(|status| SlotState::of(status, lane_of)).collect()
}

fn refused(error: &PluginsError) -> ApiError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    ApiError::conflict(&text)
}

/// What is answered where nothing was changed.
#[derive(IntoResponses)]
#[response(status = 409, description = "The plugin or the engine refused, and nothing has changed")]
#[expect(dead_code, reason = "names a schema")]
pub(super) struct Refused(#[to_schema] ErrorResponse);

/// Files of one set.
const FILES_MAX: usize = 64;
