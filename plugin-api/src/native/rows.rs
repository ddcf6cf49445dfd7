//! Rows of logits, lent across the boundary for one call.

use std::ffi::c_void;

use super::abi::logits_processor::{RowAccessV1, RowsV1};
use super::abi::{RSlice, RSliceMut};
use crate::kinds::logits_processor::{RowAccess, RowId};

/// The host's side: lends rows.
pub(super) struct Lender<'a> {
    access: &'a mut dyn RowAccess,
}

impl<'a> Lender<'a> {
    pub(super) fn new(access: &'a mut dyn RowAccess) -> Self {
        Self { access }
    }

    /// The rows as a table; valid while `self` is borrowed.
    pub(super) fn lend(&mut self) -> RowsV1 {
        RowsV1 {
            num_rows: self.access.num_rows() as u32,
            vocab_size: self.access.vocab_size() as u32,
            of: std::ptr::from_mut(self).cast(),
            access: &raw const ACCESS,
        }
    }
}

static ACCESS: RowAccessV1 = RowAccessV1 {
    id,
    max,
    log_sum_exp,
    logit,
    top_k,
    scale,
    set,
    keep_above,
    keep_top_k,
    keep_top_p,
    mask,
    whole,
};

/// The rows behind a table of [`Lender::lend`], unless there is no such row: nothing may panic
/// below a foreign caller.
///
/// # Safety
///
/// `of` came from [`Lender::lend`] and its loan has not ended.
unsafe fn rows<'a>(of: *mut c_void, row: u32) -> Option<&'a mut dyn RowAccess> {
    // SAFETY: as for this function.
    let access = unsafe { &mut *(*of.cast::<Lender<'a>>()).access };
    ((row as usize) < access.num_rows()).then_some(access)
}

macro_rules! lent {
    ($($name:ident($($arg:ident: $type:ty => $value:expr),*) $(-> $back:ty)?;)*) => {
        $(unsafe extern "C" fn $name(of: *mut c_void, row: u32 $(, $arg: $type)*) $(-> $back)? {
            // SAFETY: only called through a table that is lent.
            let Some(rows) = (unsafe { rows(of, row) }) else { return Default::default() };
            rows.$name(row as usize $(, $value)*)
        })*
    };
}
lent! {
    max() -> f32;
    log_sum_exp() -> f32;
    logit(token: u32 => token) -> f32;
    scale(by: f32 => by);
    set(token: u32 => token, logit: f32 => logit);
    keep_above(threshold: f32 => threshold);
    keep_top_k(k: u64 => k as usize);
    keep_top_p(p: f32 => p);
    mask(allowed: RSlice<'_, u32> => allowed.as_slice());
}

unsafe extern "C" fn id(of: *mut c_void, row: u32) -> u32 {
    // SAFETY: only called through a table that is lent.
    unsafe { rows(of, row) }.map_or(0, |rows| rows.id(row as usize).0)
}

unsafe extern "C" fn top_k(
    of: *mut c_void,
    row: u32,
    mut tokens: RSliceMut<'_, u32>,
    mut logits: RSliceMut<'_, f32>,
) -> u32 {
    // SAFETY: only called through a table that is lent.
    let Some(rows) = (unsafe { rows(of, row) }) else { return 0 };
    let top = rows.top_k(row as usize, tokens.len());
    let places = tokens.as_mut_slice().iter_mut().zip(logits.as_mut_slice());
    for ((token, logit), found) in places.zip(top) {
        (*token, *logit) = *found;
    }
    top.len() as u32
}

unsafe extern "C" fn whole(of: *mut c_void, row: u32) -> *mut f32 {
    // SAFETY: only called through a table that is lent.
    let rows = unsafe { rows(of, row) };
    rows.map_or(std::ptr::null_mut(), |rows| rows.whole(row as usize).as_mut_ptr())
}

/// Lists that the largest logits of a row are answered into, kept from call to call.
#[derive(Default)]
pub(super) struct Top {
    pairs: Vec<(u32, f32)>,
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

/// The plugin's side: rows that were lent to it.
pub(super) struct Lent<'a> {
    rows: &'a RowsV1,
    access: &'a RowAccessV1,
    top: &'a mut Top,
}

impl<'a> Lent<'a> {
    /// # Safety
    ///
    /// Checked by the caller: `rows` is lent for as long as this lives.
    pub(super) fn new(rows: &'a RowsV1, top: &'a mut Top) -> Self {
        // SAFETY: the table of functions is a static of the host.
        let access = unsafe { &*rows.access };
        Self { rows, access, top }
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty => $value:expr),*) $(-> $back:ty)?;)*) => {
        $(fn $name(&mut self, row: usize $(, $arg: $type)*) $(-> $back)? {
            // SAFETY: the rows are lent for as long as `self` lives.
            unsafe { (self.access.$name)(self.rows.of, row as u32 $(, $value)*) }
        })*
    };
}

impl RowAccess for Lent<'_> {
    forward! {
        max() -> f32;
        log_sum_exp() -> f32;
        logit(token: u32 => token) -> f32;
        scale(by: f32 => by);
        set(token: u32 => token, logit: f32 => logit);
        keep_above(threshold: f32 => threshold);
        keep_top_k(k: usize => k as u64);
        keep_top_p(p: f32 => p);
        mask(allowed: &[u32] => allowed.into());
    }

    fn num_rows(&self) -> usize {
        self.rows.num_rows as usize
    }

    fn id(&self, row: usize) -> RowId {
        // SAFETY: the rows are lent for as long as `self` lives.
        RowId(unsafe { (self.access.id)(self.rows.of, row as u32) })
    }

    fn vocab_size(&self) -> usize {
        self.rows.vocab_size as usize
    }

    fn top_k(&mut self, row: usize, k: usize) -> &[(u32, f32)] {
        let k = k.min(self.vocab_size());
        let Top { pairs, tokens, logits } = &mut *self.top;
        tokens.resize(k, 0);
        logits.resize(k, 0.0);
        let (places, values) = ((&mut tokens[..]).into(), (&mut logits[..]).into());
        // SAFETY: the rows are lent for as long as `self` lives.
        let found = unsafe { (self.access.top_k)(self.rows.of, row as u32, places, values) };
        pairs.clear();
        pairs.extend(tokens.iter().copied().zip(logits.iter().copied()).take(found as usize));
        pairs
    }

    fn whole(&mut self, row: usize) -> &mut [f32] {
        // SAFETY: the host answers with a row of `vocab_size` logits that nobody else touches while
        // it is lent.
        unsafe {
            let start = (self.access.whole)(self.rows.of, row as u32);
            assert!(!start.is_null(), "row {row} of {}", self.rows.num_rows);
            std::slice::from_raw_parts_mut(start, self.rows.vocab_size as usize)
        }
    }
}
