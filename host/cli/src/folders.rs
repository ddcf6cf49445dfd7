//! Where configuration, caches and data of this user lie.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::args::Common;

/// The configuration file: the flag, then the working folder, then the user's own.
pub(crate) fn config_path(common: &Common) -> Option<PathBuf> {
    if let Some(path) = &common.config {
        return Some(path.clone());
    }
    let here = PathBuf::from("jackfield.toml");
    let user =
        user_folder("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("jackfield/jackfield.toml"));
    [Some(here), user].into_iter().flatten().find(|path| path.is_file())
}

pub(crate) fn cache_folder() -> Result<PathBuf> {
    let folder = user_folder("XDG_CACHE_HOME", ".cache").context(
        "cache folder: expected XDG_CACHE_HOME or HOME to be set: or name --models-folder",
    )?;
    Ok(folder.join("jackfield"))
}

/// What is kept for good, where this user has a place for it.
pub(crate) fn data_folder() -> Option<PathBuf> {
    user_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("jackfield"))
}

fn user_folder(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home)))
}
