//! Early stop: ends a run whose loss has not got less for some time.
//!
//! Source: Prechelt, "Early Stopping - But When?", 1998, with the loss of evaluations or, smoothed, that of the steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plugin_api::prelude::*;

/// Compares a moving average of the loss with its best value.
#[derive(Debug)]
pub struct EarlyStop {
    /// Whether losses are those of evaluations.
    is_of_evaluations: bool,
    /// Losses without a better average.
    patience: u64,
    /// How much better, in units of the loss.
    min_delta: f64,
    /// How much of the average stays from loss to loss.
    smoothing: f64,
}

/// What there was so far.
#[derive(Debug)]
struct Watch {
    /// Not a number before the first loss.
    average: f64,
    best: f64,
    /// Losses since the best one.
    waited: u64,
}

impl Capability for EarlyStop {
    const NAME: &'static str = "early-stop";

    fn from_config(config: &Config) -> Result<Self> {
        let is_of_evaluations = config.has("watches")
            && config.one_of("watches", &["steps", "evaluations"])? == "evaluations";
        let (patience, smoothing) = if is_of_evaluations { (5, 0.0) } else { (200, 0.95) };
        Ok(Self {
            is_of_evaluations,
            patience: config.count_or("patience", patience, 1..=1 << 32)?,
            min_delta: config.number_or("min_delta", 0.0, 0.0..=1e6)?,
            smoothing: config.number_or("smoothing", smoothing, 0.0..=0.9999)?,
        })
    }
}

impl Hook for EarlyStop {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let watch =
            Arc::new(Mutex::new(Watch { average: f64::NAN, best: f64::INFINITY, waited: 0 }));
        let [kept, restored] = [(); 2].map(|()| Arc::clone(&watch));
        if self.is_of_evaluations {
            on.train_after_evaluate(move |e, host| {
                self.look(&mut locked(&watch), e.step, e.loss, host)
            });
        } else {
            on.train_after_step(move |e, host| {
                self.look(&mut locked(&watch), e.step, e.loss, host)
            });
        }
        on.train_before_checkpoint(move |event, _| {
            let Watch { average, best, waited } = *locked(&kept);
            event.state.set("watch", &[average, best, waited as f64]);
            Flow::Continue
        });
        on.train_after_restore(move |event, _| {
            if let Some([average, best, waited]) = event.state.get("watch") {
                *locked(&restored) = Watch { average, best, waited: waited as u64 };
            }
            Flow::Continue
        });
        Ok(())
    }
}

impl EarlyStop {
    /// Takes a loss in; ends the run if it was the last one to wait for.
    fn look(&self, watch: &mut Watch, step: u64, loss: f64, host: &Host) -> Flow {
        if !loss.is_finite() {
            return Flow::Continue;
        }
        let before = if watch.average.is_nan() { loss } else { watch.average };
        watch.average = self.smoothing * before + (1.0 - self.smoothing) * loss;
        if watch.average < watch.best - self.min_delta {
            (watch.best, watch.waited) = (watch.average, 0);
            return Flow::Continue;
        }
        watch.waited += 1;
        let Watch { best, waited, .. } = *watch;
        if waited < self.patience {
            return Flow::Continue;
        }
        host.info(format_args!("step {step}: no loss below {best} for {waited} {}", self.unit()));
        Flow::StopRun
    }

    fn unit(&self) -> &'static str {
        if self.is_of_evaluations { "evaluations" } else { "steps" }
    }
}

fn locked(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

export_plugin!(EarlyStop);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::{
        HookState, TrainAfterEvaluate, TrainAfterRestore, TrainAfterStep, TrainBeforeCheckpoint,
    };
    use plugin_api::testing::hook::{emit, subscribe, suite};
    use plugin_api::testing::machine::Machine;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<EarlyStop>(&Config::new());
    }

    #[test]
    fn ends_a_run_that_gets_no_better() {
        let config = Config::new().with("patience", 3).with("smoothing", 0.0);
        let mut on = subscribe::<EarlyStop>(&config.with("min_delta", 0.1));
        // 2.95 is not enough better than 3; a step that was skipped has no loss and does not count.
        let losses = [4.0, 3.0, 2.95, 3.5, f64::NAN, 2.5, 2.6, 2.45, 2.7];
        let flows: Vec<Flow> = (0..).zip(losses).map(|(n, loss)| step(&mut on, n, loss)).collect();
        let (last, others) = flows.split_last().unwrap();
        assert_eq!(*last, Flow::StopRun);
        assert!(others.iter().all(|flow| *flow == Flow::Continue), "{others:?}");
    }

    fn step(on: &mut Subscriptions, step: u64, loss: f64) -> Flow {
        let (grad_norm, learning_rate, tokens, step_us, lent) = (1.0, 1.0, 1, 1, PhantomData);
        let mut event =
            TrainAfterStep { step, loss, grad_norm, learning_rate, tokens, step_us, lent };
        emit::<TrainAfterStep<'static>>(on, &mut event, &Machine::new())
    }

    #[test]
    fn watches_evaluations_alone_if_it_is_to() {
        let config = Config::new().with("watches", "evaluations").with("patience", 2);
        let mut on = subscribe::<EarlyStop>(&config);
        let mut flows = Vec::new();
        for (n, loss) in [(0, 3.0), (1, 2.0), (2, 2.5), (3, 2.0)] {
            assert_eq!(step(&mut on, n, 9.0 + loss), Flow::Continue, "steps do not count");
            let mut event = TrainAfterEvaluate { step: n, loss, lent: PhantomData };
            flows.push(emit::<TrainAfterEvaluate<'static>>(&mut on, &mut event, &Machine::new()));
        }
        assert_eq!(flows, [Flow::Continue, Flow::Continue, Flow::Continue, Flow::StopRun]);
    }

    #[test]
    fn goes_on_counting_after_a_checkpoint() {
        let config = Config::new().with("patience", 3).with("smoothing", 0.5);
        let (machine, lent) = (Machine::new(), PhantomData);
        let mut whole = subscribe::<EarlyStop>(&config);
        let mut state = HookState::new();
        for (n, loss) in [(0, 2.0), (1, 1.0), (2, 4.0)] {
            assert_eq!(step(&mut whole, n, loss), Flow::Continue);
        }
        let mut event = TrainBeforeCheckpoint { step: 3, state: &mut state, lent };
        let _ = emit::<TrainBeforeCheckpoint<'static>>(&mut whole, &mut event, &machine);
        let mut resumed = subscribe::<EarlyStop>(&config);
        let mut event = TrainAfterRestore { step: 3, state: &state, lent };
        let _ = emit::<TrainAfterRestore<'static>>(&mut resumed, &mut event, &machine);
        for (n, flow) in [(3, Flow::Continue), (4, Flow::StopRun)] {
            assert_eq!(step(&mut whole, n, 4.0), flow);
            assert_eq!(step(&mut resumed, n, 4.0), flow, "step {n}");
        }
    }
}
