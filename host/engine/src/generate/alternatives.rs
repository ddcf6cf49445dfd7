//! The likeliest tokens beside each chosen one, for requests that ask for them.

use plugin_api::kinds::kv_cache::SeqId;

/// Alternatives of one step. Reused: nothing is allocated once it has grown to its working size.
#[derive(Debug, Default)]
pub(super) struct Alternatives {
    /// Token and logarithm of its probability; those of one place side by side.
    all: Vec<(u32, f32)>,
    /// Sequence, chosen token, and where its alternatives begin.
    places: Vec<(SeqId, u32, usize)>,
}

impl Alternatives {
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.places.clear();
    }

    /// The list to append the alternatives of `token` to.
    pub(super) fn begin(&mut self, seq: SeqId, token: u32) -> &mut Vec<(u32, f32)> {
        self.places.push((seq, token, self.all.len()));
        &mut self.all
    }

    /// The alternatives of a token that was chosen in this step; none of any other.
    pub(super) fn of(&self, seq: SeqId, token: u32) -> &[(u32, f32)] {
        let place = self.places.iter().position(|p| (p.0, p.1) == (seq, token));
        let Some(place) = place else { return &[] };
        let end = self.places.get(place + 1).map_or(self.all.len(), |next| next.2);
        &self.all[self.places[place].2..end]
    }
}
