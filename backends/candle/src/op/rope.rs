//! Rotary position embedding.
//!
//! Source: Su et al., "RoFormer", arXiv:2104.09864, section 3.4.2.

use candle_core::{Device, Tensor};
use plugin_api::kinds::rotary_embedding::Pairing;
use plugin_api::plan::Attrs;
use plugin_api::{Error, Result};

use crate::fault::Outcome;

/// The attributes of `rope`.
#[derive(Debug)]
pub(crate) struct Rope {
    /// `[pairs]`
    inv_freq: Vec<f32>,
    pairing: Pairing,
    attention_factor: f64,
}

impl Rope {
    pub(super) fn new(attrs: &Attrs) -> Result<Self> {
        let inv_freq = attrs.get_floats("inv_freq")?.to_vec();
        let pairing = Pairing::of(attrs.get_text("pairing")?)?;
        Ok(Self { inv_freq, pairing, attention_factor: attrs.get_float("attention_factor")? })
    }

    /// Turns the channels of `x [tokens, heads, head_dim]` by `positions [tokens]`.
    pub(super) fn run(&self, x: &Tensor, positions: &Tensor) -> Outcome<Tensor> {
        let (tokens, heads, head_dim) = x.dims3()?;
        let pairs = self.inv_freq.len();
        if pairs == 0 || pairs * 2 > head_dim {
            return Err(Error::shape("rope", format!("1 to {} pairs", head_dim / 2), pairs).into());
        }
        let inv_freq = Tensor::new(&self.inv_freq[..], &Device::Cpu)?.to_dtype(x.dtype())?;
        let positions = positions.to_dtype(x.dtype())?.reshape((tokens, 1, 1))?;
        let angles = positions.broadcast_mul(&inv_freq.reshape((1, 1, pairs))?)?;
        let cos = (angles.cos()? * self.attention_factor)?;
        let sin = (angles.sin()? * self.attention_factor)?;
        let part = x.narrow(2, 0, pairs * 2)?;
        let (a, b) = match self.pairing {
            Pairing::HalfSplit => (part.narrow(2, 0, pairs)?, part.narrow(2, pairs, pairs)?),
            Pairing::Interleaved => {
                let part = part.reshape((tokens, heads, pairs, 2))?;
                (part.narrow(3, 0, 1)?.squeeze(3)?, part.narrow(3, 1, 1)?.squeeze(3)?)
            }
        };
        let first = a.broadcast_mul(&cos)?.sub(&b.broadcast_mul(&sin)?)?;
        let second = b.broadcast_mul(&cos)?.add(&a.broadcast_mul(&sin)?)?;
        let turned = match self.pairing {
            Pairing::HalfSplit => Tensor::cat(&[first, second], 2)?,
            Pairing::Interleaved => {
                Tensor::stack(&[first, second], 3)?.reshape((tokens, heads, pairs * 2))?
            }
        };
        if pairs * 2 == head_dim {
            return Ok(turned);
        }
        Ok(Tensor::cat(&[turned, x.narrow(2, pairs * 2, head_dim - pairs * 2)?], 2)?)
    }
}
