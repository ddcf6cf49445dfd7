//! From file to registered plugin: manifests, configuration, grants and the services behind them.
//!
//! Not here: which generation is active (`runtime`) and what plugins are used for (`engine`). A bad
//! file is an error that names file and line; nothing here panics on what it reads.

pub mod builtin;
pub mod config_file;
mod error;
pub mod grants;
pub mod manifest;
pub mod services;

pub use builtin::{LoadedPlugin, load_builtins};
pub use config_file::ConfigFile;
pub use error::LoadError;
pub use grants::Grants;
pub use manifest::{Permission, PluginManifest, Reload};
pub use services::{Denial, Services};
