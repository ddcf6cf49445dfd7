//! Rotary embeddings: position as a rotation of query and key channels.

use std::f64::consts::TAU;

use super::{Traced, kind};
use crate::config::{Config, Value};
use crate::error::{Error, Result};

/// Traces `[x [tokens, heads, head_dim], positions u32 [tokens]]` into `x` rotated.
///
/// Most implementations only choose frequencies: they implement [`rotation`](Self::rotation) and
/// call [`plan::fused::rope`](crate::plan::fused::rope) in their trace.
pub trait RotaryEmbedding: Traced {
    /// Frequencies and scale for a layer with these hyperparameters. [compile thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for hyperparameters that are missing or out of range.
    fn rotation(&self, config: &Config) -> Result<Rotation>;
}

kind!(RotaryEmbedding, "rotary-embedding", EngineStep, traced: true);

/// How fast each pair of channels turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Radians per token of each pair; at most half of `head_dim` numbers.
    pub inv_freq: Vec<f32>,
    /// Which channels form a pair.
    pub pairing: Pairing,
    /// Factor on cosine and sine, 1 for plain rotation.
    pub attention_factor: f32,
}

impl Rotation {
    /// Plain frequencies `theta^(-2i/rotary_dim)`, with pairing and sizes read from `config`:
    /// `rope_theta`, `head_dim`, `partial_rotary_factor`, `rope_pairing`, and `rope_freq_factors`,
    /// a divisor for each frequency.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for hyperparameters that are missing or out of range.
    pub fn standard(config: &Config) -> Result<Self> {
        let theta = config.number_or("rope_theta", 10_000.0, 1.0..=1e12)?;
        let head_dim = config.count("head_dim", 2..=4096)?;
        let part = config.number_or("partial_rotary_factor", 1.0, 0.0..=1.0)?;
        let rotary_dim = (head_dim as f64 * part) as u64 / 2 * 2;
        if rotary_dim == 0 {
            return Err(config.wrong("partial_rotary_factor", "at least two channels", None));
        }
        let exponent = |i: u64| -(2.0 * i as f64) / rotary_dim as f64;
        let factors = config.list("rope_freq_factors")?;
        let inv_freq = (0..rotary_dim / 2).map(|i| {
            let divisor = match factors.get(i as usize) {
                Some(Value::Float(x)) if *x > 0.0 => *x,
                None if factors.is_empty() => 1.0,
                other => return Err(config.wrong("rope_freq_factors", "positive numbers", other)),
            };
            Ok((theta.powf(exponent(i)) / divisor) as f32)
        });
        let inv_freq = inv_freq.collect::<Result<_>>()?;
        let pairing = match config.one_of("rope_pairing", &["half-split", "interleaved"])? {
            "interleaved" => Pairing::Interleaved,
            _ => Pairing::HalfSplit,
        };
        Ok(Self { inv_freq, pairing, attention_factor: 1.0 })
    }

    /// The table `rope_scaling`, which says how a context longer than the original is reached.
    /// `None` where it is empty: a layer of a scaled model that sees near tokens only.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there is no such table.
    pub fn scaling(config: &Config) -> Result<Option<&Config>> {
        let table = config.table("rope_scaling")?;
        let table = table.ok_or_else(|| config.wrong("rope_scaling", "a table", None))?;
        Ok((table.keys().next().is_some()).then_some(table))
    }

    /// The frequencies scaled as in Llama 3.1, by `factor`, `low_freq_factor`, `high_freq_factor` and
    /// `original_max_position_embeddings` of `table`: as they are where the wavelength is short, divided where it is
    /// long, in between in between. With equal bounds there is no in between. Source: Dubey et al.,
    /// "The Llama 3 Herd of Models", arXiv:2407.21783; `_compute_llama3_parameters` of transformers 5.23.0.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for hyperparameters that are missing or out of range.
    pub fn with_slow_pairs_divided(mut self, table: &Config) -> Result<Self> {
        let original = table.count("original_max_position_embeddings", 1..=1 << 32)? as f64;
        let factor = table.number("factor", 1.0..=1e6)?;
        let low = table.number("low_freq_factor", 1e-6..=1e6)?;
        let high = table.number("high_freq_factor", 1e-6..=1e6)?;
        for inv_freq in &mut self.inv_freq {
            let plain = f64::from(*inv_freq);
            let turns = original * plain / TAU;
            *inv_freq = if turns > high {
                plain
            } else if turns < low || high <= low {
                plain / factor
            } else {
                let smooth = (turns - low) / (high - low);
                (1.0 - smooth) * plain / factor + smooth * plain
            } as f32;
        }
        Ok(self)
    }
}

/// The two conventions for which channels of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Channels `i` and `i + rotary_dim / 2`, as in GPT-NeoX and Hugging Face checkpoints.
    HalfSplit,
    /// Channels `2i` and `2i + 1`, as in GPT-J and Llama checkpoints in GGUF.
    Interleaved,
}

impl Pairing {
    /// The name in plans and configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfSplit => "half-split",
            Self::Interleaved => "interleaved",
        }
    }

    /// The pairing of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for another name.
    pub fn of(name: &str) -> Result<Self> {
        let known = [Self::HalfSplit, Self::Interleaved];
        let found = known.into_iter().find(|pairing| pairing.name() == name);
        found.ok_or_else(|| Error::malformed("pairing", "half-split or interleaved", name))
    }
}
