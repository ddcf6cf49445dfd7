//! The boundary between two steps: where subscriptions and swaps take effect.

use plugin_api::kinds::backend::WeightPlace;

use super::engine::Engine;
use crate::model::PlanDigest;
use crate::model::memory::AlignedBytes;

impl Engine {
    /// Takes in what was offered and subscribed since the last step; a few atomic loads when
    /// nothing was.
    pub(super) fn boundary(&mut self) {
        self.topics.before_step.refresh();
        self.topics.after_step.refresh();
        self.topics.after_token.refresh();
        self.topics.after_generate.refresh();
        self.topics.on_cancel.refresh();
        self.scheduler.at_boundary(|_, _| true);
        for (name, slot) in &mut self.processors {
            if let Err(error) = slot.at_boundary() {
                tracing::warn!("{name}: {error}");
            }
        }
        for (name, slot) in &mut self.strategies {
            if let Err(error) = slot.at_boundary() {
                tracing::warn!("{name}: {error}");
            }
        }
        // A cache takes over when it holds nothing for anybody, and lays out memory as it lies.
        if self.sequences.iter().all(|(_, sequence)| sequence.num_evaluated == 0) {
            let (states, limits) = (&self.model.states, &self.model.limits);
            let pool = &self.model.pool;
            self.cache.at_boundary(|_, new| {
                let fits = new.pool(states, limits).is_ok_and(|spec| spec == *pool);
                if !fits {
                    tracing::warn!("kv-cache: the new one lays out memory otherwise: refused");
                }
                fits
            });
        }
        // A backend that packs otherwise cannot take over what lies in memory: it has to go with a
        // model that is loaded for it.
        let (plan, memory) = (&self.model.plan, &self.model.memory);
        let exe = &mut self.model.exe;
        let bucket = &self.model.bucket;
        let retired = self.backend.at_boundary(|_, new| {
            let adopts = |place: &WeightPlace| {
                new.layout(&place.desc, &place.lowering).is_ok_and(|l| l.id == place.layout.id)
            };
            if !memory.weights.iter().all(adopts) {
                tracing::warn!("backend: the new one packs weights otherwise: refused");
                return false;
            }
            match new.compile(plan, bucket, memory) {
                Ok(compiled) => *exe = compiled,
                Err(error) => {
                    tracing::warn!("backend: the new one refuses the plan: {error}");
                    return false;
                }
            }
            true
        });
        if retired.is_some() {
            let needed = self.model.exe.scratch_bytes;
            if self.scratch.as_slice().len() < needed {
                self.scratch = AlignedBytes::zeroed(needed);
            }
        }
        let generations = self.generations();
        if generations != self.num_generations {
            self.num_generations = generations;
            self.digest = PlanDigest::of(&self.model.plan, &self.labels());
        }
    }
}
