//! Ema: evaluation and export see an average of the parameters over the steps.
//!
//! Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control
//! Optim. 30, 1992, with the exponential weights of TensorFlow's `ExponentialMovingAverage`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::events::Numbers;
use plugin_api::prelude::*;

/// Averages what `train-update` lends and puts it in the place of what `train-weights` lends.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
}

/// One parameter.
#[derive(Debug)]
struct Average {
    values: Vec<f32>,
    /// Updates that it has seen after its first.
    count: u32,
}

impl Capability for Ema {
    const NAME: &'static str = "ema";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { decay: config.number_or("decay", 0.999, 0.0..=0.999_999)? })
    }
}

impl Hook for Ema {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let averages: Arc<Mutex<Averages>> = Arc::default();
        let [lent, kept, restored] = [(); 3].map(|()| Arc::clone(&averages));
        on.order(Phase::Late, 0).train_update(move |event, _| {
            let mut averages = locked(&averages);
            match averages.get_mut(event.name) {
                Some(average) if average.values.len() == event.values.len() => {
                    average.take_in(event.values, self.decay);
                }
                _ => {
                    let first = Average { values: event.values.to_vec(), count: 0 };
                    averages.insert(event.name.to_owned(), first);
                }
            }
            Flow::Continue
        });
        on.order(Phase::Normal, 0).train_weights(move |event, _| {
            let averages = locked(&lent);
            let average = averages.get(event.name);
            if let Some(average) = average.filter(|a| a.values.len() == event.values.len()) {
                event.values.copy_from_slice(&average.values);
            }
            Flow::Continue
        });
        on.train_before_checkpoint(move |event, _| {
            for (name, Average { values, count }) in &*locked(&kept) {
                event.state.set_f32(&format!("{VALUES}{name}"), values);
                event.state.set(&format!("{COUNT}{name}"), &[f64::from(*count)]);
            }
            Flow::Continue
        });
        on.train_after_restore(move |event, _| {
            let average = |(name, numbers): (&str, &Numbers)| {
                let (name, Numbers::F32(values)) = (name.strip_prefix(VALUES)?, numbers) else {
                    return None;
                };
                let [count] = event.state.get(&format!("{COUNT}{name}"))?;
                Some((name.to_owned(), Average { values: values.clone(), count: count as u32 }))
            };
            *locked(&restored) = event.state.iter().filter_map(average).collect();
            Flow::Continue
        });
        Ok(())
    }
}

/// By parameter.
type Averages = HashMap<String, Average>;

/// What begins the names under which a checkpoint keeps an average and its count.
const VALUES: &str = "average/";
const COUNT: &str = "count/";

fn locked(averages: &Mutex<Averages>) -> MutexGuard<'_, Averages> {
    averages.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Average {
    fn take_in(&mut self, values: &[f32], decay: f64) {
        self.count = self.count.saturating_add(1);
        let count = f64::from(self.count);
        let decay = decay.min((1.0 + count) / (10.0 + count)) as f32;
        for (average, &value) in self.values.iter_mut().zip(values) {
            *average += (1.0 - decay) * (value - *average);
        }
    }
}

export_plugin!(Ema);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::{TrainUpdate, TrainWeights};
    use plugin_api::testing::hook::{emit, subscribe, suite};
    use plugin_api::testing::machine::Machine;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<Ema>(&Config::new());
    }

    fn update(on: &mut Subscriptions, name: &str, values: &[f32]) {
        let mut values = values.to_vec();
        let before = values.clone();
        let (step, index, lent) = (0, 0, PhantomData);
        let mut event = TrainUpdate { step, index, name, values: &mut values, lent };
        let _ = emit::<TrainUpdate<'static>>(on, &mut event, &Machine::new());
        assert_eq!(values, before, "training goes on with the parameters themselves");
    }

    fn weights(on: &mut Subscriptions, name: &str, values: &[f32]) -> Vec<f32> {
        let mut values = values.to_vec();
        let (step, index, lent) = (0, 0, PhantomData);
        let mut event = TrainWeights { step, index, name, values: &mut values, lent };
        let _ = emit::<TrainWeights<'static>>(on, &mut event, &Machine::new());
        values
    }

    #[test]
    fn weighs_recent_values_most() {
        let mut on = subscribe::<Ema>(&Config::new().with("decay", 0.2));
        assert_eq!(weights(&mut on, "a", &[7.0]), [7.0], "nothing is known yet");
        update(&mut on, "a", &[1.0]);
        update(&mut on, "b", &[10.0, 20.0]);
        assert_eq!(weights(&mut on, "a", &[7.0]), [1.0]);
        // After one more step 2/11 stays, after another one the decay: 3/12 is more than that.
        update(&mut on, "a", &[12.0]);
        assert!((weights(&mut on, "a", &[7.0])[0] - 10.0).abs() < 1e-5);
        update(&mut on, "a", &[0.0]);
        assert!((weights(&mut on, "a", &[7.0])[0] - 2.0).abs() < 1e-5);
        assert_eq!(weights(&mut on, "b", &[0.0, 0.0]), [10.0, 20.0]);
        assert_eq!(weights(&mut on, "b", &[5.0]), [5.0], "of another size");
    }
}
