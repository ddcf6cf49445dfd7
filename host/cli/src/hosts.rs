//! The handles that plugins get on the host, with what the configuration grants them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use jackfield_loader::{Grants, PluginManifest, Services};
use plugin_api::{Config, Host, Kind, ModelSource};

/// Makes the handles that plugins get on the host.
pub(crate) struct Hosts {
    pub(crate) config: Config,
    pub(crate) services: Services,
    pub(crate) models_folder: PathBuf,
}

impl Hosts {
    /// Builtin model sources get what they need below the models folder unless the configuration
    /// says otherwise; everybody else gets nothing.
    pub(crate) fn of(
        &self,
        plugin: &str,
        manifest: Option<&PluginManifest>,
        model: Option<&Path>,
    ) -> Result<Host> {
        let configured = match self.config.table("grants")? {
            Some(grants) => grants.table(plugin)?,
            None => None,
        };
        let is_source = manifest.is_some_and(|m| m.kind == <dyn ModelSource>::NAME);
        let mut grants = match configured {
            Some(table) => Grants::from_config(table)?,
            None if is_source => Grants::for_builtin_source(&self.models_folder),
            None => Grants::none(),
        };
        if let Some(path) = model.filter(|_| is_source) {
            grants = grants.with_read(path);
        }
        let permissions = manifest.map_or(&[][..], |m| &m.permissions);
        Ok(self.services.host(plugin, grants.within(permissions)))
    }

    /// The handle of a plugin from a file: what the configuration grants, and nothing else.
    pub(crate) fn of_file(&self, manifest: &PluginManifest) -> Host {
        let grants = || {
            let grants = self.config.table("grants")?;
            match grants.map(|grants| grants.table(&manifest.name)).transpose()?.flatten() {
                Some(table) => Grants::from_config(table),
                None => Ok(Grants::none()),
            }
        };
        let grants = grants().unwrap_or_else(|error| {
            tracing::warn!("grants of {}: {error}: nothing is granted", manifest.name);
            Grants::none()
        });
        self.services.host(&manifest.name, grants.within(&manifest.permissions))
    }
}
