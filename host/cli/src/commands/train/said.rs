//! What a run prints: a line for each tenth step and each evaluation, as text or as JSON.

use std::io::{self, Write};

use jackfield_engine::train::{BatchLoader, StepReport};
use serde_json::json;

use super::rollouts::Rated;

/// How it is said.
pub(super) struct Said {
    pub(super) is_json: bool,
    /// Of products, in floating-point operations a second.
    pub(super) peak: f64,
}

impl Said {
    /// What a progress bar has room for.
    pub(super) fn short(&self, report: &StepReport, rated: Option<Rated>) -> String {
        let (speed, mfu) = (tokens_per_second(report), 100.0 * self.utilization(report));
        let said = format!("loss {:.4}, {speed:.0} tokens/s, MFU {mfu:.0} %", report.loss);
        match rated {
            Some(Rated { reward, num_tokens }) => {
                format!("reward {reward:.3} of answers of {num_tokens:.0} tokens, {said}")
            }
            None => said,
        }
    }

    pub(super) fn step(
        &self,
        out: &mut impl Write,
        report: &StepReport,
        rated: Option<Rated>,
    ) -> io::Result<()> {
        let StepReport { step, loss, grad_norm, learning_rate, .. } = report;
        if self.is_json {
            let mut line = json!({
                "step": step,
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
                "tokens_per_second": tokens_per_second(report),
                "mfu": self.utilization(report),
            });
            if let Some(Rated { reward, num_tokens }) = rated {
                line["reward"] = json!(reward);
                line["answer_tokens"] = json!(num_tokens);
            }
            return writeln!(out, "{line}");
        }
        let (step, said) = (step + 1, self.short(report, rated));
        writeln!(out, "step {step:>6}  {said}, gradient {grad_norm:.3}, rate {learning_rate:.2e}")
    }

    pub(super) fn evaluation(
        &self,
        out: &mut impl Write,
        steps: u64,
        loss: f64,
        tokens: f64,
    ) -> io::Result<()> {
        if self.is_json {
            let line = json!({
                "steps_done": steps,
                "evaluation_loss": loss,
                "evaluation_tokens": tokens,
            });
            return writeln!(out, "{line}");
        }
        writeln!(out, "after {steps:>5}  loss {loss:.4} of {tokens} tokens held out")
    }

    /// What was not learnt as it is.
    pub(super) fn passed(&self, loader: &BatchLoader, length: usize) -> io::Result<()> {
        let BatchLoader::Dataset(loader) = loader else { return Ok(()) };
        let passed = loader.passed();
        if passed.cut + passed.empty == 0 {
            return Ok(());
        }
        let mut err = io::stderr();
        writeln!(err, "{} examples were cut to {length} tokens", passed.cut)?;
        writeln!(err, "{} were passed over: nothing to learn was left of them", passed.empty)
    }

    /// Operations that the model needs over those that products would have done in the time of the step.
    fn utilization(&self, report: &StepReport) -> f64 {
        report.model_flops * 1e6 / (report.step_us.max(1) as f64 * self.peak)
    }
}

fn tokens_per_second(report: &StepReport) -> f64 {
    report.tokens as f64 * 1e6 / report.step_us.max(1) as f64
}
