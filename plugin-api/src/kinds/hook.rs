//! Hooks: listen on any topics of the event bus.

use super::kind;
use crate::error::Result;
use crate::events::Subscriptions;

/// Subscribes to events.
pub trait Hook: Send {
    /// Says what to call on which topic; called once for each generation. [loading]
    ///
    /// # Errors
    ///
    /// Any error keeps the plugin from being loaded.
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()>;
}

kind!(Hook, "hook", EngineStep, traced: false);
