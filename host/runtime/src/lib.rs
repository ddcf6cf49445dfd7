//! Who is plugged in and what happens: registry, slots with their generations, event bus.
//!
//! Nothing here knows what the plugins are for or where they come from: no tokens, no files.

pub mod bus;
pub mod clock;
pub mod error;
pub mod registry;
pub mod slot;

pub use bus::{Bus, Topic};
pub use clock::{Clock, SystemClock};
pub use error::RuntimeError;
pub use registry::{Lane, PluginInfo, Registry};
pub use slot::{Generation, Label, RequestSlot, Slot, SlotHandle};
