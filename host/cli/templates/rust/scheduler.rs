//! My plugin: running sequences go on, then waiting ones start in order of arrival.
//!
//! Source: Agrawal et al., "Sarathi-Serve" (chunked prefill), arXiv:2403.02310, section 4.

use plugin_api::prelude::*;

/// Chooses by age only. Long prompts run in chunks that fill what the running sequences leave.
#[derive(Debug)]
pub struct MyPlugin;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl Scheduler for MyPlugin {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) {
        let (mut tokens_left, mut seqs_left) = (limits.tokens, limits.seqs);
        for is_running in [true, false] {
            for (index, entry) in queue.iter().enumerate() {
                let tokens = entry.pending.min(tokens_left);
                let is_split = tokens < entry.pending;
                if entry.is_running != is_running || tokens == 0 || entry.is_atomic && is_split {
                    continue;
                }
                if seqs_left == 0 {
                    return;
                }
                out.push(Picked { index, tokens });
                tokens_left -= tokens;
                seqs_left -= 1;
            }
        }
    }
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::scheduler::suite::<MyPlugin>(&Config::new());
    }
}
