//! Errors, there and back.

crate::wit_errors!(super::offers::jackfield::plugin::types);
