//! What operators are told.

use jackfield_loader::{LoadedStatus, Permission, Plugins, Preview, SwapReport};
use jackfield_runtime::{PluginInfo, Reach, SlotStatus};
use serde::Serialize;
use utoipa::ToSchema;

/// A slot with the plugin that fills it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SlotState {
    kind: String,
    slot: String,
    /// Name and generation.
    active: String,
    name: String,
    generation: u32,
    /// How it runs: `builtin`, `native` or `wasm`; empty if nobody provides it any more.
    lane: String,
    /// Requests that it serves.
    requests: usize,
    /// Earlier generations that requests still hold.
    draining: Vec<Draining>,
    is_swapping: bool,
}

/// An earlier generation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Draining {
    /// Name and generation.
    active: String,
    /// Requests that hold it.
    requests: usize,
}

/// Every slot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Slots {
    pub(super) slots: Vec<SlotState>,
}

/// Every slot, every file, and every name that may be asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginList {
    pub(super) slots: Vec<SlotState>,
    pub(super) files: Vec<LoadedFile>,
    pub(super) provided: Vec<Provided>,
    /// Libraries that were mapped since the start: none is ever unmapped.
    pub(super) native_mapped: usize,
}

/// A plugin file that was loaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoadedFile {
    kind: String,
    name: String,
    lane: String,
    /// Version of the interface that it was built for.
    api: String,
    /// The file on this machine.
    path: String,
    sha256: String,
    /// Instances that are alive.
    instances: usize,
    /// Calls into it so far; null for a library, whose calls nobody counts.
    calls: Option<u64>,
    faults: usize,
    /// What became of its memory.
    memory: String,
}

/// A plugin that a slot may name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Provided {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) lane: String,
    pub(super) description: String,
}

/// What a swap did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Swapped {
    kind: String,
    slot: String,
    /// The file; null if what came back is linked in.
    file: Option<String>,
    /// Name and generation; null for hooks, which are called from the next event on.
    active: Option<String>,
    /// When it counts: `mid-stream`, `new-requests` or `next-boundary`.
    reach: Option<&'static str>,
    /// How long making it took, beside the steps, in microseconds.
    prepare_us: Option<u64>,
    /// How long it waited for a boundary of steps, in microseconds.
    wait_us: Option<u64>,
    /// What went back with it, being of the same set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub(super) with: Vec<Self>,
}

/// What a swap would change: before and after, field by field.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Difference {
    kind: String,
    slot: String,
    dry_run: bool,
    changes: Changes,
    /// What the plugin asks to be allowed.
    permissions: Vec<&'static str>,
    /// Plugins that have to fill slots beside it, as kind/name.
    requires: Vec<String>,
}

/// Pairs of what is there, null where nothing is, and what would be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changes {
    name: [Option<String>; 2],
    lane: [Option<String>; 2],
    api: [Option<String>; 2],
    file: [Option<String>; 2],
    sha256: [Option<String>; 2],
}

/// One member of a swap: done, or looked at.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Member {
    Swapped(Swapped),
    Difference(Difference),
}

/// What a swap did or would do: of one file, or of each of a set.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SwapAnswer {
    One(Box<Member>),
    Set { swapped: Vec<Member> },
}

impl SlotState {
    /// `lane_of` tells how a plugin of a kind and a name runs.
    pub(super) fn of(status: SlotStatus, lane_of: impl Fn(&str, &str) -> String) -> Self {
        let draining = status.draining.iter();
        Self {
            lane: lane_of(&status.kind, &status.active.name),
            active: status.active.to_string(),
            name: status.active.name.clone(),
            generation: status.active.generation,
            requests: status.requests,
            draining: draining
                .map(|(label, requests)| Draining {
                    active: label.to_string(),
                    requests: *requests,
                })
                .collect(),
            is_swapping: status.is_swapping,
            kind: status.kind,
            slot: status.slot,
        }
    }
}

impl LoadedFile {
    /// Every file that fills a slot or did.
    pub(super) fn all(plugins: &Plugins) -> Vec<Self> {
        plugins.loaded().into_iter().filter_map(Self::of).collect()
    }

    fn of(loaded: LoadedStatus) -> Option<Self> {
        let origin = loaded.info.origin?;
        Some(Self {
            kind: loaded.kind,
            name: loaded.info.name,
            lane: loaded.info.lane.to_string(),
            api: loaded.info.api,
            path: origin.path,
            sha256: origin.hash,
            instances: loaded.instances,
            calls: loaded.calls,
            faults: loaded.faults,
            memory: loaded.memory,
        })
    }
}

impl Swapped {
    pub(super) fn of(report: &SwapReport) -> Self {
        let swapped = report.swapped.as_ref();
        let reach = |reach: Reach| match reach {
            Reach::MidStream => "mid-stream",
            Reach::NewRequests => "new-requests",
            _ => "next-boundary",
        };
        Self {
            kind: report.kind.clone(),
            slot: report.slot.clone(),
            file: report.path.clone(),
            active: swapped.map(|swapped| swapped.active.to_string()),
            reach: swapped.map(|swapped| reach(swapped.reach)),
            prepare_us: swapped.map(|swapped| swapped.prepare_us),
            wait_us: swapped.map(|swapped| swapped.wait_us),
            with: Vec::new(),
        }
    }
}

impl Difference {
    pub(super) fn of(preview: &Preview) -> Self {
        let artifact = &preview.artifact;
        let manifest = &artifact.manifest;
        let pair = |before: fn(&PluginInfo) -> Option<String>, after: String| {
            [preview.before.as_ref().and_then(before), Some(after)]
        };
        let name_of = |permission: &Permission| {
            Permission::ALL.iter().find(|(_, p)| p == permission).map(|(name, _)| *name)
        };
        let (file, sha256) = (artifact.file.clone(), artifact.hash.clone());
        Self {
            kind: manifest.kind.clone(),
            slot: preview.slot.clone(),
            dry_run: true,
            changes: Changes {
                name: pair(|info| Some(info.name.clone()), manifest.name.clone()),
                lane: pair(|info| Some(info.lane.to_string()), artifact.format.lane().to_string()),
                api: pair(|info| Some(info.api.clone()), manifest.api.clone()),
                file: pair(|info| Some(info.origin.as_ref()?.path.clone()), file),
                sha256: pair(|info| Some(info.origin.as_ref()?.hash.clone()), sha256),
            },
            permissions: manifest.permissions.iter().filter_map(name_of).collect(),
            requires: manifest.requires.clone(),
        }
    }
}
