//! What clients ask, read without guessing: every field is known, of its type and in its range, or
//! the request is refused with its name.

mod chat;
mod completion;
mod constraint;
mod fields;
mod sampling;
mod tools;
mod unsupported;

pub(crate) use chat::{ChatMessage, ChatRequest, Content};
pub(crate) use completion::{CompletionRequest, Prompts, token_ids};
pub(crate) use fields::{Fields, kind_of, read_one};
pub(crate) use sampling::{LogprobsWanted, Sampling, Stop, unread};
pub(crate) use tools::{Choice, Tools};
