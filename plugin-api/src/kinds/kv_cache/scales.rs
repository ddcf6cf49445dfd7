//! Scales of codes as they stand in a configuration.

use super::CodeScales;
use crate::config::{Config, Value};
use crate::error::{Error, Result};

/// Where the scales of all states come from: the numbers themselves, or a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct StateScales {
    /// For each state its parts, for each part its elements.
    fixed: Option<Vec<Vec<Vec<f32>>>>,
}

impl StateScales {
    /// Reads `channel_scales`: a list with a list for each state, which has a list of positive
    /// numbers for each part, one for each of its elements. Without it, each vector has its own.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for anything else.
    pub fn from_config(config: &Config) -> Result<Self> {
        if !config.has("channel_scales") {
            return Ok(Self { fixed: None });
        }
        let wrong = |found: &Value| {
            let expected = "positive numbers for each part of each state";
            config.wrong("channel_scales", expected, Some(found))
        };
        let items = |value: &Value| match value {
            Value::List(items) => Ok(items.clone()),
            other => Err(wrong(other)),
        };
        let number = |value: &Value| {
            let x = match *value {
                Value::Float(x) => x as f32,
                Value::Int(x) => x as f32,
                _ => f32::NAN,
            };
            if x.is_finite() && x > 0.0 { Ok(x) } else { Err(wrong(value)) }
        };
        let part = |value: &Value| items(value)?.iter().map(number).collect::<Result<Vec<f32>>>();
        let state = |value: &Value| items(value)?.iter().map(part).collect::<Result<Vec<_>>>();
        let states = config.list("channel_scales")?.iter().map(state);
        Ok(Self { fixed: Some(states.collect::<Result<Vec<_>>>()?) })
    }

    /// The scales of each of `num_states` states.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the configuration has scales for another number of states.
    pub fn of_states(&self, num_states: usize) -> Result<Vec<CodeScales>> {
        let Some(fixed) = &self.fixed else { return Ok(vec![CodeScales::PerVector; num_states]) };
        if fixed.len() != num_states {
            return Err(Error::shape("channel_scales, of states", num_states, fixed.len()));
        }
        Ok(fixed.iter().cloned().map(CodeScales::PerChannel).collect())
    }

    /// What distinguishes these scales from others, for a semantic id: `dynamic`, or a digest.
    pub fn id(&self) -> String {
        let Some(fixed) = &self.fixed else { return "dynamic".to_owned() };
        // FNV-1a: tells configurations apart, guards nothing.
        let scales = fixed.iter().flatten().flatten();
        let bytes = scales.flat_map(|x| x.to_bits().to_le_bytes());
        let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("channels {digest:016x}")
    }
}
