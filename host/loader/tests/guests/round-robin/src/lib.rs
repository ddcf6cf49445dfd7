//! Round-robin: a scheduler with a state, for tests of handover and of faults.

mod round_robin;

use round_robin::RoundRobin;

plugin_api::export_plugin!(RoundRobin);
