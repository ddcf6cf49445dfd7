//! Mixers: the only parts in which a token sees other tokens.

use super::{LayerRef, Traced, kind};
use crate::config::Config;
use crate::error::Result;
use crate::plan::{OpSink, OpSinkExt as _, Part, Per, StateSpec, Val};

/// Traces `[x [tokens, hidden_size]]` into one value of the same shape, through one `attend` or
/// recurrence over a state that outlives the step.
///
/// A mixer never stores or lays out what it keeps: it declares [`state`](Self::state) and the
/// cache decides where that lies.
pub trait Mixer: Traced {
    /// What one layer keeps between steps. [compile thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for hyperparameters that the mixer cannot work with.
    fn state(&self, at: &LayerRef<'_>) -> Result<StateSpec>;
}

kind!(Mixer, "mixer", EngineStep, traced: true);

/// How the channels of one layer are parted into heads, for mixers that keep keys and values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSizes {
    /// Heads of queries: `num_attention_heads`.
    pub num_heads: i64,
    /// Heads of keys and values, a divisor of the former: `num_key_value_heads`.
    pub num_kv_heads: i64,
    /// Channels of a head: `head_dim`.
    pub head_dim: i64,
    /// What scores are multiplied by: `attention_scale`, `1 / sqrt(head_dim)` where it is not said.
    pub scale: f64,
}

impl HeadSizes {
    /// The sizes in the hyperparameters of a layer.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for sizes that are missing, out of range or do not divide.
    pub fn of(config: &Config) -> Result<Self> {
        let heads = config.count("num_attention_heads", 1..=1 << 16)?;
        let kv_heads = config.count_or("num_key_value_heads", heads, 1..=heads)?;
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of the {heads} attention heads");
            let found = config.get("num_key_value_heads");
            return Err(config.wrong("num_key_value_heads", &expected, found));
        }
        let head_dim = config.count("head_dim", 1..=1 << 16)?;
        let scale = (head_dim as f64).powf(-0.5);
        Ok(Self {
            num_heads: heads as i64,
            num_kv_heads: kv_heads as i64,
            head_dim: head_dim as i64,
            scale: config.number_or("attention_scale", scale, 0.0..=1e6)?,
        })
    }

    /// Traces `q_proj`, `k_proj` and `v_proj` of `x [tokens, hidden_size]`: three values of
    /// `[tokens, heads, head_dim]`, with the heads that each has.
    ///
    /// # Errors
    ///
    /// As [`OpSink::linear`].
    pub fn project(&self, g: &mut dyn OpSink, x: Val) -> Result<[Val; 3]> {
        let mut heads = |name: &str, count: i64| -> Result<Val> {
            let projected = g.linear(x, name)?;
            g.reshape(projected, &[-1, count, self.head_dim])
        };
        Ok([
            heads("q_proj", self.num_heads)?,
            heads("k_proj", self.num_kv_heads)?,
            heads("v_proj", self.num_kv_heads)?,
        ])
    }

    /// The state `kv`: a key and a value of each token, of which the last `window` are read (0: all).
    #[must_use]
    pub fn state(&self, window: u32) -> StateSpec {
        let dims = vec![self.num_kv_heads as u32, self.head_dim as u32];
        let part = |name: &str| Part { name: name.to_owned(), dims: dims.clone() };
        let parts = vec![part("key"), part("value")];
        StateSpec { name: "kv".to_owned(), per: Per::Token { window }, parts }
    }
}
