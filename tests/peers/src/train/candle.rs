//! candle-nn, in this process: the ops of it that have a gradient.

use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};

use super::{EPS, LEARNING_RATE, LENGTH, ROPE_THETA, SEQUENCES, STEPS, Shape, VOCAB};
use crate::engine::Failure;

/// Seconds of the later steps.
pub(super) fn steps(shape: &Shape) -> std::result::Result<Vec<f64>, Failure> {
    let run = || -> Result<Vec<f64>> {
        let model = Llama::new(shape)?;
        let params = ParamsAdamW { lr: LEARNING_RATE, ..ParamsAdamW::default() };
        let mut optimizer = AdamW::new(model.vars.clone(), params)?;
        let text = super::text();
        let batches = text.chunks_exact(SEQUENCES * LENGTH).take(STEPS);
        let step = |bytes: &[u8]| {
            let ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
            let ids = Tensor::from_vec(ids, SEQUENCES * LENGTH, &Device::Cpu)?;
            let begin = Instant::now();
            let loss = candle_nn::loss::cross_entropy(&model.forward(&ids)?, &ids)?;
            optimizer.backward_step(&loss)?;
            Ok(begin.elapsed().as_secs_f64())
        };
        batches.map(step).collect()
    };
    let steps = run().map_err(|error| Failure(format!("candle: {error}")))?;
    Ok(steps[STEPS / 4..].to_vec())
}

struct Llama {
    heads: usize,
    head_dim: usize,
    vars: Vec<Var>,
    embed: Var,
    head: Var,
    norm: Var,
    layers: Vec<Layer>,
    /// `[tokens, 1, head_dim / 2]`.
    cos: Tensor,
    sin: Tensor,
    /// `[length, length]`.
    mask: Tensor,
}

/// One layer's parameters.
struct Layer {
    norms: [Var; 2],
    /// Of queries, keys, values and what they make.
    attention: [Var; 4],
    gate: Var,
    up: Var,
    down: Var,
}

impl Llama {
    fn new(shape: &Shape) -> Result<Self> {
        let (device, h, i) = (&Device::Cpu, shape.hidden, shape.inner);
        let mut vars = Vec::new();
        let mut weight = |dims: (usize, usize)| {
            let var = Var::randn_f64(0.0, 0.02, dims, DType::F32, device)?;
            vars.push(var.clone());
            Ok::<_, candle_core::Error>(var)
        };
        let (embed, head) = (weight((VOCAB, h))?, weight((VOCAB, h))?);
        let mut layers = Vec::new();
        for _ in 0..shape.layers {
            let norms = [Var::ones(h, DType::F32, device)?, Var::ones(h, DType::F32, device)?];
            let attention = [weight((h, h))?, weight((h, h))?, weight((h, h))?, weight((h, h))?];
            let (gate, up, down) = (weight((i, h))?, weight((i, h))?, weight((h, i))?);
            layers.push(Layer { norms, attention, gate, up, down });
        }
        let norm = Var::ones(h, DType::F32, device)?;
        vars.push(norm.clone());
        vars.extend(layers.iter().flat_map(|layer| layer.norms.clone()));
        let half = shape.head_dim() / 2;
        let angle = |row: usize| {
            let (position, pair) = ((row / half % LENGTH) as f64, (row % half) as f64);
            (position * ROPE_THETA.powf(-pair / half as f64)) as f32
        };
        let angles = (0..SEQUENCES * LENGTH * half).map(angle).collect();
        let angles: Tensor = Tensor::from_vec(angles, (SEQUENCES * LENGTH, 1, half), device)?;
        let hidden = |at: usize| if at % LENGTH > at / LENGTH { f32::NEG_INFINITY } else { 0.0 };
        let mask = (0..LENGTH * LENGTH).map(hidden).collect();
        let mask = Tensor::from_vec(mask, (LENGTH, LENGTH), device)?;
        let (heads, head_dim, cos, sin) =
            (shape.heads, shape.head_dim(), angles.cos()?, angles.sin()?);
        Ok(Self { heads, head_dim, vars, embed, head, norm, layers, cos, sin, mask })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = self.embed.index_select(ids, 0)?;
        for layer in &self.layers {
            let normed = rms_norm(&x, &layer.norms[0])?;
            let [q, k, v, o] = &layer.attention;
            let q = self.by_sequence(&self.rotated(&normed.matmul(&q.t()?)?)?)?;
            let k = self.by_sequence(&self.rotated(&normed.matmul(&k.t()?)?)?)?;
            let v = self.by_sequence(&normed.matmul(&v.t()?)?)?;
            let scores = (q.matmul(&k.transpose(2, 3)?)? * (self.head_dim as f64).powf(-0.5))?;
            let weights = candle_nn::ops::softmax(&scores.broadcast_add(&self.mask)?, D::Minus1)?;
            let mixed = weights.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape(x.shape())?;
            x = (x + mixed.matmul(&o.t()?)?)?;
            let normed = rms_norm(&x, &layer.norms[1])?;
            let gate = normed.matmul(&layer.gate.t()?)?.silu()?;
            x = (x + (gate * normed.matmul(&layer.up.t()?)?)?.matmul(&layer.down.t()?)?)?;
        }
        rms_norm(&x, &self.norm)?.matmul(&self.head.t()?)
    }

    /// Pairs of halves, turned by their positions.
    fn rotated(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.reshape((SEQUENCES * LENGTH, self.heads, self.head_dim))?;
        let half = self.head_dim / 2;
        let (a, b) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let left = (a.broadcast_mul(&self.cos)? - b.broadcast_mul(&self.sin)?)?;
        let right = (a.broadcast_mul(&self.sin)? + b.broadcast_mul(&self.cos)?)?;
        Tensor::cat(&[left, right], 2)
    }

    /// `[sequences, heads, length, head_dim]`.
    fn by_sequence(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.reshape((SEQUENCES, LENGTH, self.heads, self.head_dim))?;
        x.transpose(1, 2)?.contiguous()
    }
}

/// Candle's own has no gradient.
fn rms_norm(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + EPS)?.sqrt()?.recip()?;
    x.broadcast_mul(&inverse)?.broadcast_mul(w)
}
