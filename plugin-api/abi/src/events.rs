//! Events of the bus as bytes: the fields of the event's struct in `plugin-api`, in its order.
//!
//! Parameters of a request cross once: afterwards only the request's number does. Answers are a
//! byte for the flow, 0 continue, 1 to 4 finish (stop, length, refused, aborted), 5 refuse, then
//! the fields that a hook may have edited.

/// Requests whose parameters a plugin remembers; both sides forget the oldest first.
pub const PARAMS_MAX: usize = 64;
