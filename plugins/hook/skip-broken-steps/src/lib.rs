//! Skip broken steps: keeps gradients that are no numbers away from the parameters.
//!
//! Source: the loss scaler of Micikevicius et al., "Mixed Precision Training", arXiv:1710.03740, section
//! 3.2, which skips them too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::prelude::*;

/// Skips a step whose gradient norm is NaN or infinite; ends the run after too many in a row.
#[derive(Debug)]
pub struct SkipBrokenSteps {
    skips_max: u64,
}

impl Capability for SkipBrokenSteps {
    const NAME: &'static str = "skip-broken-steps";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { skips_max: config.count_or("skips_max", 10, 1..=1 << 32)? })
    }
}

impl Hook for SkipBrokenSteps {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let skips_in_a_row = Arc::new(AtomicU64::new(0));
        let [kept, restored] = [(); 2].map(|()| Arc::clone(&skips_in_a_row));
        on.train_after_backward(move |event, host| {
            if event.grad_norm.is_finite() && event.loss.is_finite() {
                skips_in_a_row.store(0, Ordering::Relaxed);
                return Flow::Continue;
            }
            let skips = skips_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
            host.warn(format_args!("step {}: gradient norm is {}", event.step, event.grad_norm));
            if skips < self.skips_max { Flow::SkipStep } else { Flow::StopRun }
        });
        on.train_before_checkpoint(move |event, _| {
            event.state.set("skips_in_a_row", &[kept.load(Ordering::Relaxed) as f64]);
            Flow::Continue
        });
        on.train_after_restore(move |event, _| {
            if let Some([skips]) = event.state.get("skips_in_a_row") {
                restored.store(skips as u64, Ordering::Relaxed);
            }
            Flow::Continue
        });
        Ok(())
    }
}

export_plugin!(SkipBrokenSteps);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::TrainAfterBackward;
    use plugin_api::testing::hook::{emit, subscribe, suite};
    use plugin_api::testing::machine::Machine;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<SkipBrokenSteps>(&Config::new());
    }

    #[test]
    fn skips_what_is_no_number_and_ends_a_run_that_does_not_recover() {
        let (nan, infinite) = (f64::NAN, f64::INFINITY);
        #[rustfmt::skip]
        let cases = [
            // loss     norm      flow
            (1.0,      2.0,      Flow::Continue),
            (1.0,      nan,      Flow::SkipStep),
            (1.0,      infinite, Flow::SkipStep),
            (1.0,      2.0,      Flow::Continue),
            (nan,      2.0,      Flow::SkipStep),
            (infinite, nan,      Flow::SkipStep),
            (1.0,      nan,      Flow::StopRun),
        ];
        let (machine, lent) = (Machine::new(), PhantomData);
        let mut on = subscribe::<SkipBrokenSteps>(&Config::new().with("skips_max", 3));
        for (step, (loss, grad_norm, expected)) in (0..).zip(cases) {
            let mut event = TrainAfterBackward { step, loss, grad_norm, grad_scale: 1.0, lent };
            let flow = emit::<TrainAfterBackward<'static>>(&mut on, &mut event, &machine);
            assert_eq!(flow, expected, "step {step}");
        }
        assert_eq!(machine.log().len(), 5, "each skipped step is said");
    }
}
