//! Rewards: answers go in, as many numbers come out and are checked.

use std::sync::Arc;

use plugin_api::kinds::reward::{RatedAnswer, Reward};
use plugin_api::{Error, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::reward::exports::jackfield::plugin::reward as wit;
use super::bindings::reward::{RewardPlugin, RewardPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = RewardPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn Reward>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| world.jackfield_plugin_reward().call_create(store, config),
        )?;
        Ok(Box::new(WasmReward { instance, blamed: None }))
    }))
}

struct WasmReward {
    instance: Instance<RewardPlugin>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

impl Reward for WasmReward {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        self.ask(answers).inspect_err(|error| self.instance.blame(error, &mut self.blamed))
    }
}

impl WasmReward {
    fn ask(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        let theirs = answers.iter().map(|it| wit::RatedAnswer {
            prompt: it.prompt.to_owned(),
            text: it.text.to_owned(),
            expected: it.expected.map(str::to_owned),
            num_tokens: it.num_tokens,
            is_finished: it.is_finished,
        });
        let theirs: Vec<_> = theirs.collect();
        let rated = self
            .instance
            .call(|world, store| world.jackfield_plugin_reward().call_rate(store, &theirs))?;
        if rated.len() != answers.len() {
            let expected = format!("{} numbers", answers.len());
            return self.instance.refuse("rate", &expected, &rated.len().to_string());
        }
        Ok(rated)
    }
}
