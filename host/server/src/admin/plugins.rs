//! Which plugins run, and others in their place.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use jackfield_loader::{Permission, Plugins, PluginsError, Preview, SwapReport};
use jackfield_runtime::{PluginInfo, Reach};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Board;
use crate::app::App;
use crate::body::read_json;
use crate::error::ApiError;
use crate::generate::blocking;
use crate::params::{Fields, read_one};

/// A plugin that runs.
#[derive(Debug, Serialize)]
pub(crate) struct SlotState {
    kind: String,
    slot: String,
    /// Name and generation.
    active: String,
    name: String,
    generation: u32,
    lane: String,
    /// Requests that it serves.
    requests: usize,
    /// Earlier generations that requests still hold.
    draining: Vec<Draining>,
    is_swapping: bool,
}

/// An earlier generation.
#[derive(Debug, Serialize)]
pub(crate) struct Draining {
    active: String,
    requests: usize,
}

/// Let the plugin in a file fill a slot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwapRequest {
    /// The file on this machine.
    file: String,
    /// The slot; the plugin's own name where none is given.
    slot: Option<String>,
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

pub(crate) async fn slots(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let board = board(&app)?;
    Ok(Json(json!({ "slots": states(&board.plugins) })))
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let plugins = board(&app)?.plugins;
    let files = plugins.loaded().into_iter().filter_map(|loaded| {
        let origin = loaded.info.origin?;
        Some(json!({
            "kind": loaded.kind, "name": loaded.info.name, "lane": loaded.info.lane.to_string(),
            "api": loaded.info.api, "path": origin.path, "sha256": origin.hash,
            "instances": loaded.instances, "calls": loaded.calls, "faults": loaded.faults,
            "memory": loaded.memory,
        }))
    });
    let files: Vec<Value> = files.collect();
    let registry = plugins.registry().read().unwrap_or_else(PoisonError::into_inner);
    let provided = registry.iter().map(|(provided, info)| {
        json!({
            "kind": provided.kind, "name": info.name, "lane": info.lane.to_string(),
            "description": info.description,
        })
    });
    let provided: Vec<Value> = provided.collect();
    Ok(Json(json!({
        "slots": states(&plugins), "files": files, "provided": provided,
        "native_mapped": plugins.native_mapped(),
    })))
}

pub(crate) async fn load(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<LoadRequest>);
    let (parts, body) = request.into_parts();
    let asked: LoadRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    swap_in(&app, asked.file, None, false).await
}

pub(crate) async fn swap(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<SwapRequest>);
    let (parts, body) = request.into_parts();
    let asked: SwapRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    swap_in(&app, asked.file, asked.slot, asked.dry_run == Some(true)).await
}

pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<RollbackRequest>);
    let (parts, body) = request.into_parts();
    let asked: RollbackRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let plugins = board(&app)?.plugins;
    let slot = asked.slot.unwrap_or_else(|| asked.kind.clone());
    let done = blocking(move || plugins.rollback(&asked.kind, &slot)).await?;
    done.map(|report| Json(told(&report))).map_err(|error| refused(&error))
}

async fn swap_in(
    app: &App,
    file: String,
    slot: Option<String>,
    is_dry: bool,
) -> Result<Json<Value>, ApiError> {
    let plugins = board(app)?.plugins;
    let file = PathBuf::from(file);
    if !file.is_absolute() {
        let found = file.display().to_string();
        return Err(ApiError::invalid("file", "an absolute path on this machine", &found));
    }
    let work = move || match is_dry {
        true => plugins.preview(&file, slot.as_deref()).map(|preview| difference(&preview)),
        false => plugins.swap(&file, slot.as_deref()).map(|report| told(&report)),
    };
    blocking(work).await?.map(Json).map_err(|error| refused(&error))
}

fn board(app: &App) -> Result<Board, ApiError> {
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
    let state = |status: jackfield_runtime::SlotStatus| SlotState {
        lane: lane_of(&status.kind, &status.active.name),
        active: status.active.to_string(),
        name: status.active.name.clone(),
        generation: status.active.generation,
        requests: status.requests,
        draining: status
            .draining
            .iter()
            .map(|(label, requests)| Draining { active: label.to_string(), requests: *requests })
            .collect(),
        is_swapping: status.is_swapping,
        kind: status.kind,
        slot: status.slot,
    };
    plugins.slots().into_iter().map(state).collect()
}

/// What a swap did.
fn told(report: &SwapReport) -> Value {
    let reach = report.swapped.as_ref().map(|swapped| match swapped.reach {
        Reach::MidStream => "mid-stream",
        Reach::NewRequests => "new-requests",
        _ => "next-boundary",
    });
    json!({
        "kind": report.kind, "slot": report.slot, "file": report.path,
        "active": report.swapped.as_ref().map(|swapped| swapped.active.to_string()),
        "reach": reach,
        "prepare_us": report.swapped.as_ref().map(|swapped| swapped.prepare_us),
        "wait_us": report.swapped.as_ref().map(|swapped| swapped.wait_us),
    })
}

/// What a swap would change: before and after, field by field.
fn difference(preview: &Preview) -> Value {
    let artifact = &preview.artifact;
    let manifest = &artifact.manifest;
    let before = |of: fn(&PluginInfo) -> Option<String>| preview.before.as_ref().and_then(of);
    let name_of = |permission: &Permission| {
        Permission::ALL.iter().find(|(_, p)| p == permission).map(|(name, _)| *name)
    };
    let permissions: Vec<&str> = manifest.permissions.iter().filter_map(name_of).collect();
    json!({
        "kind": manifest.kind, "slot": preview.slot, "dry_run": true,
        "changes": {
            "name": [before(|info| Some(info.name.clone())), manifest.name],
            "lane": [before(|info| Some(info.lane.to_string())), artifact.format.lane().to_string()],
            "api": [before(|info| Some(info.api.clone())), manifest.api],
            "file": [before(|info| Some(info.origin.as_ref()?.path.clone())), artifact.file],
            "sha256": [before(|info| Some(info.origin.as_ref()?.hash.clone())), artifact.hash],
        },
        "permissions": permissions,
    })
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
