//! Which version of the boundary this crate is.

/// Major and minor version of the boundary. While it is `0.0`, host and plugin match exactly.
pub const ABI_VERSION: (u16, u16) = (0, 0);
