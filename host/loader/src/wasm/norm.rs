//! Norms, residuals, feed-forward parts, encoders, adapters and the parts of training: nothing more than traced.

use std::sync::Arc;

use plugin_api::Provided;
use plugin_api::kinds::adapter::Adapter;
use plugin_api::kinds::encoder::Encoder;
use plugin_api::kinds::feed_forward::FeedForward;
use plugin_api::kinds::lr_schedule::LrSchedule;
use plugin_api::kinds::moe_router::MoeRouter;
use plugin_api::kinds::norm::Norm;
use plugin_api::kinds::objective::Objective;
use plugin_api::kinds::optimizer::Optimizer;
use plugin_api::kinds::residual::Residual;
use wasmtime::component::InstancePre;

use super::bindings::traced::exports::jackfield::plugin::traced::Guest;
use super::bindings::traced::{TracedPlugin, TracedPluginPre};
use super::capability;
use super::instance::Plugin;
use super::state::State;
use super::traced::{TracedWorld, WasmTraced};

impl TracedWorld for TracedPlugin {
    fn traced(&self) -> &Guest {
        self.jackfield_plugin_traced()
    }
}

macro_rules! plainly_traced {
    ($($provided:ident: $kind:ident),*) => {
        $(
            impl $kind for WasmTraced<TracedPlugin> {}

            pub(super) fn $provided(
                plugin: &Arc<Plugin>,
                linked: InstancePre<State>,
            ) -> wasmtime::Result<Provided> {
                let linked = TracedPluginPre::new(linked)?;
                let theirs = Arc::clone(plugin);
                Ok(capability::<dyn $kind>(plugin, move |config| {
                    let linked = linked.clone();
                    let made =
                        WasmTraced::create(&theirs, config, move |store| linked.instantiate(store));
                    Ok(Box::new(made?))
                }))
            }
        )*
    };
}
plainly_traced!(
    norm: Norm,
    residual: Residual,
    feed_forward: FeedForward,
    moe_router: MoeRouter,
    encoder: Encoder,
    objective: Objective,
    optimizer: Optimizer,
    lr_schedule: LrSchedule,
    adapter: Adapter
);
