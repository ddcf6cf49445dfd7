//! What becomes of a slot whose plugin failed and could not be taken back: it is filled anew by the same
//! plugin, at once the first time, then after longer and longer pauses: a circuit breaker.
//!
//! Meanwhile the failed instance answers with its error. The first calls of the new one are the probe:
//! if it fails again, the pause doubles; if it lasts as long as the longest pause, all is forgiven.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_api::{Hook, Kind as _};

use super::{Plugins, State};
use crate::owner::Generation;

/// A slot that is to be filled anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The kind.
    pub kind: String,
    /// The slot.
    pub slot: String,
    /// When: so long after the failure.
    pub pause: Duration,
}

/// How often the plugin in a slot has failed of late.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// When it was filled anew.
    restarted: Option<Instant>,
    /// A restart is under way or waits.
    is_open: bool,
}

/// After the second failure; then twice as long each time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

impl Breaker {
    /// Counts a failure. The pause before a restart; nothing if one waits already.
    fn failed(&mut self, now: Instant, pause_max: Duration) -> Option<Duration> {
        if std::mem::replace(&mut self.is_open, true) {
            return None;
        }
        if self.restarted.is_some_and(|at| now.duration_since(at) >= pause_max) {
            self.failures = 0;
        }
        let doubled = self.failures.checked_sub(1).map_or(Duration::ZERO, |times| {
            PAUSE_FIRST.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
        });
        self.failures += 1;
        Some(doubled.min(pause_max))
    }

    fn restarted(&mut self, now: Instant) {
        (self.is_open, self.restarted) = (false, Some(now));
    }
}

impl Plugins {
    /// Decides what follows from the failure of what fills a slot. [off the step thread]
    pub(super) fn schedule(&self, generation: &Arc<Generation>) -> Option<Restart> {
        let mut state = self.state();
        let (kind, slot) = self.place_of(&state, generation)?;
        let breaker = state.breakers.entry((kind.clone(), slot.clone())).or_default();
        let pause = breaker.failed(Instant::now(), self.options.restart_pause_max)?;
        Some(Restart { kind, slot, pause })
    }

    /// Fills the slot anew, once the pause is over. What is to follow if that fails, too.
    pub fn restart(&self, restart: &Restart) -> Option<Restart> {
        let Restart { kind, slot, .. } = restart;
        let key = (kind.clone(), slot.clone());
        // Somebody else may have filled the slot meanwhile.
        self.state().breakers.get(&key).filter(|breaker| breaker.is_open)?;
        let filled = self.configure(kind, slot);
        let (now, mut state) = (Instant::now(), self.state());
        let breaker = state.breakers.get_mut(&key)?;
        breaker.restarted(now);
        match filled {
            Ok(_) => {
                tracing::warn!("{kind} `{slot}`: failed, and was started again");
                None
            }
            Err(error) => {
                let pause = breaker.failed(now, self.options.restart_pause_max)?;
                tracing::warn!("{kind} `{slot}`: failed, and does not start again: {error}");
                Some(Restart { pause, ..restart.clone() })
            }
        }
    }

    /// Where the plugin of a load is in use; nothing if another one has taken its place.
    fn place_of(&self, state: &State, generation: &Arc<Generation>) -> Option<(String, String)> {
        let failed = state.loaded.iter().find(|l| Arc::ptr_eq(&l.generation, generation))?;
        let (kind, name) = (&failed.manifest.kind, &failed.manifest.name);
        let slot = if kind == <dyn Hook>::NAME {
            name.clone()
        } else {
            let mut slots = self.slots().into_iter();
            slots.find(|slot| slot.kind == *kind && slot.active.name == *name)?.slot
        };
        let (info, _) = self.filling(kind, &slot)?;
        (info == failed.info).then(|| (kind.clone(), slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_the_longest_and_are_forgiven() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let seconds = Duration::from_secs;
        for expected in [0, 1, 2, 4, 8, 10, 10] {
            assert_eq!(breaker.failed(now, seconds(10)), Some(seconds(expected)));
            assert_eq!(breaker.failed(now, seconds(10)), None, "one restart waits already");
            now += seconds(expected);
            breaker.restarted(now);
            now += seconds(9);
        }
        now += seconds(1);
        assert_eq!(breaker.failed(now, seconds(10)), Some(seconds(0)), "it had lasted");
    }
}
