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
    let files = vec![(absolute("file", asked.file)?, None)];
    swap_in(&app, files, false).await.map(one)
}

pub(crate) async fn swap(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    static FIELDS: LazyLock<Fields> = LazyLock::new(Fields::of::<SwapRequest>);
    let (parts, body) = request.into_parts();
    let asked: SwapRequest = read_one(&read_json(&app, &parts.headers, body).await?, &FIELDS)?;
    let is_dry = asked.dry_run == Some(true);
    match (asked.file, asked.files) {
        (Some(file), None) if asked.slots.is_none() => {
            let files = vec![(absolute("file", file)?, asked.slot)];
            swap_in(&app, files, is_dry).await.map(one)
        }
        (None, Some(files)) if asked.slot.is_none() => {
            let files = with_slots(files, asked.slots)?;
            let told = swap_in(&app, files, is_dry).await?;
            Ok(Json(json!({ "swapped": told })))
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

fn absolute(param: &str, file: String) -> Result<PathBuf, ApiError> {
    let path = PathBuf::from(file);
    if path.is_absolute() {
        return Ok(path);
    }
    let found = path.display().to_string();
    Err(ApiError::invalid(param, "an absolute path on this machine", &found))
}

/// The answer to a set of one.
fn one(mut told: Vec<Value>) -> Json<Value> {
    Json(told.pop().unwrap_or_default())
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
    let (kind, of_kind) = (asked.kind.clone(), slot.clone());
    let done = blocking(move || plugins.rollback(&kind, &of_kind)).await?;
    let mut reports = done.map_err(|error| refused(&error))?;
    // Kinds of which there is one are slots of their own name, whatever they are called.
    let is_asked = |r: &SwapReport| r.kind == asked.kind && (r.slot == slot || r.slot == r.kind);
    let own = reports.iter().position(is_asked).map(|at| reports.remove(at));
    let mut answer = own.as_ref().map_or_else(|| json!({}), told);
    if !reports.is_empty() {
        answer["with"] = reports.iter().map(told).collect();
    }
    Ok(Json(answer))
}

async fn swap_in(
    app: &App,
    files: Vec<(PathBuf, Option<String>)>,
    is_dry: bool,
) -> Result<Vec<Value>, ApiError> {
    let plugins = board(app)?.plugins;
    let work = move || -> Result<Vec<Value>, PluginsError> {
        if !is_dry {
            let reports = plugins.swap_files(&files)?;
            return Ok(reports.iter().map(told).collect());
        }
        let preview =
            |(file, slot): &(PathBuf, Option<String>)| plugins.preview(file, slot.as_deref());
        files.iter().map(|of| Ok(difference(&preview(of)?))).collect()
    };
    blocking(work).await?.map_err(|error| refused(&error))
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
        "permissions": permissions, "requires": manifest.requires,
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

/// Files of one set.
const FILES_MAX: usize = 64;
