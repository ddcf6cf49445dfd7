//! Examples in files of JSON lines: read as they are needed, shuffled within a window, packed into batches.
//!
//! A file is never held: what a run remembers of it is where lines begin. The same numbers, written to a
//! checkpoint, are what it takes to go on with the same bits.

mod encode;
mod example;
mod lines;
mod loader;
mod source;

pub use encode::{Encoded, EncodedSequence, ExampleEncoder, Question, TooLong};
pub use example::{Example, Format, LineError, Turns};
pub use lines::LinePlace;
pub use loader::{CurriculumState, DatasetLoader, DatasetOptions, DatasetPosition, Passed};
pub use source::{SourcePosition, Survey};
