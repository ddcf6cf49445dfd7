//! The handles that plugins get on the host, with what the configuration grants them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use jackfield_loader::{Grants, LoadedPlugin, Permission, PluginManifest, Services};
use plugin_api::{Config, Host, Kind, ModelSource, Tokens};

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
        let is_source = manifest.is_some_and(|m| m.kind == <dyn ModelSource>::NAME);
        let mut grants = match self.granted(plugin)? {
            Some(grants) => grants,
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
        let grants = self.or_nothing(&manifest.name, Grants::none());
        self.services.host(&manifest.name, grants.within(&manifest.permissions))
    }

    /// Makes the handles of plugins beside a model, by their names. One that is linked in may see the tokens
    /// of the model unless the configuration says otherwise.
    pub(crate) fn lender(
        self: &Arc<Self>,
        builtins: &[LoadedPlugin],
    ) -> impl Fn(&str, &Arc<dyn Tokens>) -> Host + Send + Sync + 'static {
        let manifests = builtins.iter().map(|plugin| &plugin.manifest);
        let permissions: BTreeMap<String, Vec<Permission>> =
            manifests.map(|m| (m.name.clone(), m.permissions.clone())).collect();
        let hosts = Arc::clone(self);
        move |plugin, tokens| {
            let grants = match permissions.get(plugin) {
                Some(wanted) => hosts.or_nothing(plugin, Grants::for_builtin()).within(wanted),
                None => hosts.or_nothing(plugin, Grants::none()),
            };
            hosts.services.host_beside(plugin, grants, tokens)
        }
    }

    /// What the configuration grants a plugin, if it says so.
    fn granted(&self, plugin: &str) -> Result<Option<Grants>> {
        let Some(grants) = self.config.table("grants")? else { return Ok(None) };
        Ok(grants.table(plugin)?.map(Grants::from_config).transpose()?)
    }

    /// The same; `unsaid` where it does not say so, nothing where it cannot be read.
    fn or_nothing(&self, plugin: &str, unsaid: Grants) -> Grants {
        match self.granted(plugin) {
            Ok(grants) => grants.unwrap_or(unsaid),
            Err(error) => {
                tracing::warn!("grants of {plugin}: {error}: nothing is granted");
                Grants::none()
            }
        }
    }
}
