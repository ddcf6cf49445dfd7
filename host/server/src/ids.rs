//! Names of requests and answers that nobody has used before.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;

/// 128 bits that are random enough to be nobody else's; no secret.
pub(crate) struct Id(u64, u64);

impl Id {
    /// Another one.
    pub(crate) fn new() -> Self {
        // Keys of a hasher come from the system's random numbers.
        let keys = RandomState::new();
        Self(keys.hash_one(0_u8), keys.hash_one(1_u8))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_are_alike() {
        let ids: BTreeSet<String> = (0..10_000).map(|_| Id::new().to_string()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
