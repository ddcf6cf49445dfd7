//! Generation: requests become sequences, sequences become batches, batches become tokens.

mod act;
mod answer;
mod batch;
mod boundary;
mod engine;
mod evaluate;
mod group;
pub mod request;
mod rows;
mod step;
mod submit;

pub use engine::{Engine, EngineHandles};
pub use request::{Output, Prompt, Request, RequestId, Stats};
pub use step::StepReport;
