//! From file to registered plugin: manifests, configuration, grants and the services behind them.
//!
//! Not here: which generation is active (`runtime`) and what plugins are used for (`engine`). A bad
//! file is an error that names file and line; nothing here panics on what it reads.

pub mod artifact;
pub mod builtin;
pub mod config_file;
mod elf;
mod error;
pub mod grants;
pub mod loader;
pub mod manifest;
pub mod native;
mod owner;
pub mod plugins;
mod quotas;
pub mod seal;
pub mod services;
mod stage;
pub mod symbols;
pub mod trial;
pub mod wasm;
pub mod watch;

pub use artifact::{Artifact, Format};
pub use builtin::{LoadedPlugin, load_builtins};
pub use config_file::ConfigFile;
pub use error::LoadError;
pub use grants::Grants;
pub use loader::{Loader, LoaderOptions};
pub use manifest::{Permission, PluginManifest, Reload};
pub use owner::{Generation, OnFault};
pub use plugins::{
    LoadedStatus, Member, Plugins, PluginsError, PluginsOptions, Preview, SwapReport,
};
pub use quotas::Quotas;
pub use services::{Denial, Services, StoreOptions};
pub use trial::Trial;
pub use wasm::{WasmLane, WasmOptions};
pub use watch::Watch;
