//! Generation: requests become sequences, sequences become batches, batches become tokens.

mod act;
mod alternatives;
mod answer;
mod batch;
mod boundary;
mod choose;
mod convert;
pub mod divergence;
mod draft_model;
mod drafts;
mod engine;
mod evaluate;
mod fault;
mod group;
mod load;
mod parse;
pub mod perplexity;
pub(crate) mod plans;
mod precise;
mod prefix;
pub mod request;
mod rows;
mod scales;
mod schedule;
mod score;
mod stages;
mod step;
mod submit;
mod tier_faults;
mod tiers;

pub use engine::Engine;
pub use load::{Gauge, Load};
pub use request::{Admitted, Encoded, Output, Prompt, PromptToken, Request, RequestId, Stats};
pub use step::StepReport;
pub use tiers::TierStats;
