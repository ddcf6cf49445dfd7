//! Early stop: ends a run whose loss has not got less for some time.
//!
//! Source: Prechelt, "Early Stopping - But When?", 1998, without its validation set: the loss is that of the
//! steps, smoothed.

use plugin_api::prelude::*;

/// Compares a moving average of the loss with its best value.
#[derive(Debug)]
pub struct EarlyStop {
    /// Steps without a better average.
    patience: u64,
    /// How much better, in units of the loss.
    min_delta: f64,
    /// How much of the average stays from step to step.
    smoothing: f64,
}

impl Capability for EarlyStop {
    const NAME: &'static str = "early-stop";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            patience: config.count_or("patience", 200, 1..=1 << 32)?,
            min_delta: config.number_or("min_delta", 0.0, 0.0..=1e6)?,
            smoothing: config.number_or("smoothing", 0.95, 0.0..=0.9999)?,
        })
    }
}

impl Hook for EarlyStop {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let (mut average, mut best, mut waited) = (None, f64::INFINITY, 0);
        on.train_after_step(move |event, host| {
            if !event.loss.is_finite() {
                return Flow::Continue;
            }
            let before = average.unwrap_or(event.loss);
            let now = self.smoothing * before + (1.0 - self.smoothing) * event.loss;
            average = Some(now);
            if now < best - self.min_delta {
                (best, waited) = (now, 0);
                return Flow::Continue;
            }
            waited += 1;
            if waited < self.patience {
                return Flow::Continue;
            }
            host.info(format_args!("step {}: no loss below {best} for {waited} steps", event.step));
            Flow::StopRun
        });
        Ok(())
    }
}

export_plugin!(EarlyStop);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::TrainAfterStep;
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
        let mut flows = Vec::new();
        for (step, loss) in (0..).zip(losses) {
            let mut event = TrainAfterStep {
                step,
                loss,
                grad_norm: 1.0,
                learning_rate: 1.0,
                tokens: 1,
                step_us: 1,
                lent: PhantomData,
            };
            flows.push(emit::<TrainAfterStep<'static>>(&mut on, &mut event, &Machine::new()));
        }
        let (last, others) = flows.split_last().unwrap();
        assert_eq!(*last, Flow::StopRun);
        assert!(others.iter().all(|flow| *flow == Flow::Continue), "{others:?}");
    }
}
