//! What is said of one attention.

/// Sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendShape {
    /// Query heads of a token, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; query head `h` uses `h * kv_heads / heads`.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
}

/// What is computed with the products of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttendSpec {
    /// Factor of every score.
    pub scale: f32,
    /// Positions that a token sees, itself included; 0 for all up to itself.
    pub window: usize,
    /// Scores become `softcap * tanh(score / softcap)`; 0 for none.
    pub softcap: f32,
    /// Positions of a chunk: a token sees those of its own chunk only; 0 for no chunks.
    pub chunk: usize,
    /// Channels of a value, the first of its row; 0 for as many as a head has.
    pub value_dim: usize,
}

impl AttendSpec {
    /// Of all positions up to a token's own, scores as they are.
    pub const fn plain(scale: f32) -> Self {
        Self { scale, window: 0, softcap: 0.0, chunk: 0, value_dim: 0 }
    }

    /// The first position that a token sees whose last one is before `end`.
    #[inline(always)]
    pub(super) fn first(&self, end: usize) -> usize {
        let of_window = if self.window == 0 { 0 } else { end.saturating_sub(self.window) };
        let of_chunk = (end - 1).checked_div(self.chunk).map_or(0, |chunk| chunk * self.chunk);
        of_window.max(of_chunk)
    }

    /// Channels of a value where heads have `head_dim`.
    #[inline(always)]
    pub fn values_of(&self, head_dim: usize) -> usize {
        if self.value_dim == 0 { head_dim } else { self.value_dim }
    }
}
