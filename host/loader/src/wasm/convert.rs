//! Errors, there and back.

plugin_api::wit_errors!(super::bindings::offers::jackfield::plugin::types);
