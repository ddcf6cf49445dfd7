//! Quantizers as components of the world `quantizer-plugin`.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::{Plugin, make, place, with};
use crate::error::{Error, Result};
use crate::kinds::quantizer::{AffineMut, Calibration, Lowering, Quantizer, Scales};
use bindings::exports::jackfield::plugin::quantizer as wit;

super::world!("quantizer-plugin");

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn Quantizer>>> = const { RefCell::new(None) };
}

impl<P: Plugin<Kind = dyn Quantizer>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn format() -> wit::BlockFormat {
        let format = with(&INSTANCE, |instance| instance.format());
        wit::BlockFormat {
            name: format.name.into_owned(),
            block_len: format.block_len as u32,
            block_bytes: format.block_bytes as u32,
            semantic_id: format.semantic_id.0,
        }
    }

    fn lowering() -> wit::Arithmetic {
        match with(&INSTANCE, |instance| instance.lowering()) {
            Lowering::Affine { bits, group, zero_point, has_min, scales } => {
                let group = group as u32;
                let scales = match scales {
                    Scales::F32 => wit::Scales::Wide,
                    Scales::F16 => wit::Scales::Half,
                    Scales::Product { groups } => wit::Scales::Product(groups as u32),
                };
                wit::Arithmetic::Affine(wit::Affine { bits, group, zero_point, has_min, scales })
            }
            Lowering::Table { bits, table, group } => {
                wit::Arithmetic::Lookup(wit::Lookup { bits, entries: table, group: group as u32 })
            }
            Lowering::MiniFloat { exponent, mantissa } => {
                wit::Arithmetic::MiniFloat(wit::MiniFloat { exponent, mantissa })
            }
            Lowering::Opaque => wit::Arithmetic::Opaque,
        }
    }

    fn decode(blocks: Vec<u8>) -> Result<Vec<f32>, WireError> {
        with(&INSTANCE, |instance| {
            let mut numbers = vec![0.0; num_elements(instance, blocks.len())?];
            instance.decode(&blocks, &mut numbers)?;
            Ok(numbers)
        })
    }

    fn encode(numbers: Vec<f32>, importance: Option<Vec<f32>>) -> Result<Vec<u8>, WireError> {
        with(&INSTANCE, |instance| {
            let mut blocks = vec![0; instance.format().size_bytes(numbers.len())?];
            // Importance of every number: rows as long as what was given.
            let calibration = importance.as_deref().map(|mean_square| Calibration { mean_square });
            instance.encode(&numbers, calibration.as_ref(), &mut blocks)?;
            Ok(blocks)
        })
    }

    fn unpack(blocks: Vec<u8>) -> Result<wit::Unpacked, WireError> {
        with(&INSTANCE, |instance| {
            let Lowering::Affine { group, has_min, .. } = instance.lowering() else {
                let name = instance.format().name;
                return Err(Error::unsupported(name, "its lowering is not affine").into());
            };
            let mut codes = vec![0; num_elements(instance, blocks.len())?];
            let groups = codes.len() / group;
            let mut scales = vec![0.0; groups];
            let mut mins = vec![0.0; if has_min { groups } else { 0 }];
            let mut out = AffineMut { codes: &mut codes, scales: &mut scales, mins: &mut mins };
            instance.unpack(&blocks, &mut out)?;
            Ok(wit::Unpacked { codes, scales, mins })
        })
    }
}

fn num_elements(quantizer: &dyn Quantizer, num_bytes: usize) -> Result<usize> {
    let format = quantizer.format();
    if num_bytes.is_multiple_of(format.block_bytes) {
        return Ok(num_bytes / format.block_bytes * format.block_len);
    }
    let expected = format!("whole blocks of {} bytes", format.block_bytes);
    Err(Error::shape(format.name, expected, num_bytes))
}
