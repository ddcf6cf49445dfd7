//! Compressors across the boundary: products go as bytes, and what was chosen comes back as such.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::compressor::CompressorV1;
use super::abi::{Code, Opened, Out, RSlice};
use super::call::Remote;
use super::guard::{self, answer, guard, instance};
use crate::error::{Error, Result};
use crate::kinds::compressor::{
    Channels, Chosen, Compressed, Compressor, Grid, Input, Matrix, Products,
};
use crate::wire::{from_bytes, to_bytes, wire_enum, wire_struct};

type Instance = dyn Compressor;

static TABLE: CompressorV1 = CompressorV1 {
    size: size_of::<CompressorV1>() as u32,
    needs_moments,
    compress,
    rotate,
    close: guard::close::<Instance>,
};

pub(super) fn export(compressor: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(compressor), (&raw const TABLE).cast())
}

unsafe extern "C" fn needs_moments(this: *mut c_void, out: *const Out) -> Code {
    // SAFETY: the host opened this instance here and calls it from one thread at a time; `out` is its own.
    unsafe {
        guard(out, || {
            answer(out, &instance::<Instance>(this).needs_moments());
            Ok(())
        })
    }
}

unsafe extern "C" fn compress(
    this: *mut c_void,
    products: RSlice<'_, u8>,
    out: *const Out,
) -> Code {
    // SAFETY: as in `needs_moments`; the slice is lent for the call.
    unsafe {
        guard(out, || {
            let sent: Sent = from_bytes(products.as_slice())?;
            let products = sent.products();
            products.check()?;
            answer(out, &instance::<Instance>(this).compress(&products)?);
            Ok(())
        })
    }
}

unsafe extern "C" fn rotate(this: *mut c_void, rows: RSlice<'_, u8>, out: *const Out) -> Code {
    // SAFETY: as in `compress`.
    unsafe {
        guard(out, || {
            let Rows { is_stream, width, mut values } = from_bytes(rows.as_slice())?;
            let channels = if is_stream { Channels::Stream } else { Channels::Value };
            let is_done = instance::<Instance>(this).rotate(channels, width, &mut values)?;
            answer(out, &is_done.then_some(values));
            Ok(())
        })
    }
}

/// Rows of channels on their way.
struct Rows {
    is_stream: bool,
    width: usize,
    values: Vec<f32>,
}

wire_struct!(Rows { is_stream, width, values });

/// [`Products`] on their way.
struct Sent {
    tokens: u64,
    mean_abs: Vec<f32>,
    max_abs: Vec<f32>,
    moments: Vec<f32>,
    names: Vec<String>,
    /// One after the other.
    values: Vec<Vec<f32>>,
    grid: Option<Grid>,
    can_scale: bool,
}

wire_struct!(Sent { tokens, mean_abs, max_abs, moments, names, values, grid, can_scale });
wire_struct!(Grid { bits, group, zero_point, has_min, is_half });
wire_struct!(Compressed { input_scale, weights });
wire_enum!(Chosen, "chosen weight",
    0 => Values { 0: values },
    1 => Codes { codes: codes, scales: scales, mins: mins },
);

impl Sent {
    fn of(products: &Products<'_>) -> Self {
        let Products { input, weights, grid, can_scale } = products;
        Self {
            tokens: input.tokens,
            mean_abs: input.mean_abs.to_vec(),
            max_abs: input.max_abs.to_vec(),
            moments: input.moments.to_vec(),
            names: weights.iter().map(|weight| weight.name.to_owned()).collect(),
            values: weights.iter().map(|weight| weight.values.to_vec()).collect(),
            grid: *grid,
            can_scale: *can_scale,
        }
    }

    fn products(&self) -> Products<'_> {
        let cols = self.mean_abs.len();
        let named = self.names.iter().zip(&self.values);
        let weights = named.map(|(name, values)| {
            let rows = values.len() / cols.max(1);
            Matrix { name, rows, cols, values }
        });
        let (mean_abs, max_abs, moments) = (&self.mean_abs, &self.max_abs, &self.moments);
        Products {
            input: Input { tokens: self.tokens, mean_abs, max_abs, moments },
            weights: weights.collect(),
            grid: self.grid,
            can_scale: self.can_scale,
        }
    }
}

/// A compressor in another library.
struct Adapter {
    remote: Remote,
    table: &'static CompressorV1,
    /// What the plugin said of its needs, or why it cannot be worked with.
    needs_moments: Result<bool>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<CompressorV1>() };
    let remote = Remote::new(opened.this, owner);
    // SAFETY: the table belongs to the instance.
    let needs_moments = remote.ask(|this, out| unsafe { (table.needs_moments)(this, out) });
    Box::new(Adapter { remote, table, needs_moments })
}

impl Compressor for Adapter {
    fn needs_moments(&self) -> bool {
        self.needs_moments == Ok(true)
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        products.check()?;
        self.needs_moments.clone()?;
        let (table, sent) = (self.table, to_bytes(&Sent::of(products)));
        let found: Compressed = self.remote.ask(|this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.compress)(this, sent.as_slice().into(), out) }
        })?;
        self.remote.judged(found.check(products))?;
        Ok(found)
    }

    fn rotate(&mut self, channels: Channels, width: usize, rows: &mut [f32]) -> Result<bool> {
        let is_stream = channels == Channels::Stream;
        let (table, sent) =
            (self.table, to_bytes(&Rows { is_stream, width, values: rows.to_vec() }));
        let found: Option<Vec<f32>> = self.remote.ask(|this, out| {
            // SAFETY: as in `compress`.
            unsafe { (table.rotate)(this, sent.as_slice().into(), out) }
        })?;
        let Some(found) = found else { return Ok(false) };
        if found.len() != rows.len() {
            let error = Error::shape("rows that a compressor rotates", rows.len(), found.len());
            return self.remote.judged(Err(error)).map(|()| false);
        }
        rows.copy_from_slice(&found);
        Ok(true)
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
