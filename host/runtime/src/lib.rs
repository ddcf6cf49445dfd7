//! Who is plugged in and what happens: registry, slots with their generations, event bus.
//!
//! Nothing here knows what the plugins are for or where they come from: no tokens, no files.

pub mod backstage;
pub mod bus;
pub mod clock;
pub mod error;
pub mod mailbox;
pub mod registry;
pub mod slot;
pub mod swap;

pub use backstage::Backstage;
pub use bus::{Bus, HookFault, Topic};
pub use clock::{Clock, SystemClock};
pub use error::RuntimeError;
pub use mailbox::Mailbox;
pub use registry::{Lane, Origin, PluginInfo, Registry, Removed};
pub use slot::{DRAINING_MAX, Generation, Label, RequestSlot, Slot};
pub use swap::{Reach, Replacement, SlotStatus, SwapError, SwapTarget, Swapped};
