//! The product of [`crate::matmul_affine()`] for many rows, with AMX tiles for its integer sums.
//!
//! Sixteen quantized rows meet sixteen rows of weights: one tile product gives the integer sums of
//! a segment, which are scaled and added as `matmul_affine` does, so the bits are the same. The
//! codes of some panels become signed bytes once for up to [`ROWS`] rows.

use std::{arch::asm, ops::Range};

use crate::{
    affine_panels::{AffineDesc, AffinePanels},
    code_layout::{QUAD_BYTES, segment_len},
    isa::Kernel,
    lanes::{LANES, Lanes},
    matmul_affine::{Segments, store_row},
    output_columns::{OutputColumns, PANEL_ROWS},
    quantize_rows::{ACT_BLOCK, BLOCK_BYTES, QuantizedRows, word},
    scale_reader::ScaleReader,
};

/// Quantized rows of one tile.
pub(crate) const TILE_ROWS: usize = 16;

/// Quantized rows for which codes are widened once: more make it hardly cheaper.
const ROWS: usize = 128;
/// Panels that meet activations while those lie in the first-level cache.
const PANELS: usize = 4;
/// Elements that are widened at a time: sixteen rows of activations and the codes of the panels
/// fit the first-level cache.
const CHUNK: usize = 256;
/// Segments of that, if they are short.
const SEGMENTS: usize = CHUNK / (ACT_BLOCK / 2);

/// Whether tiles can compute a format: its codes less the zero point are signed bytes.
pub(crate) fn takes(desc: AffineDesc) -> bool {
    let most = i32::from(u8::MAX >> (8 - desc.bits)) - i32::from(desc.zero_point);
    most <= 127 && desc.zero_point <= 128 && desc.group <= CHUNK
}

/// The product of the first `rows` quantized rows, whole tiles.
pub(crate) struct TileProduct<'a, 'b, const BITS: u8, const PAIRED: bool> {
    pub(crate) w: AffinePanels<'a>,
    pub(crate) x: QuantizedRows<'a>,
    pub(crate) out: &'a mut OutputColumns<'b>,
    pub(crate) rows: usize,
}

impl<const BITS: u8, const PAIRED: bool> Kernel for TileProduct<'_, '_, BITS, PAIRED> {
    type Out = ();

    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        assert!(self.rows.is_multiple_of(TILE_ROWS), "matmul_tiles: {} rows", self.rows);
        let mut room = Room::new();
        let tiles = Tiles::new(segment_len(PAIRED));
        let columns = self.out.columns();
        let panels = columns.start / PANEL_ROWS..columns.end.div_ceil(PANEL_ROWS);
        for panel in panels.clone().step_by(PANELS) {
            let panels = panel..panels.end.min(panel + PANELS);
            for row in (0..self.rows).step_by(ROWS) {
                let rows = row..self.rows.min(row + ROWS);
                self.block::<L>(&tiles, &mut room, panels.clone(), rows);
            }
        }
    }
}

impl<const BITS: u8, const PAIRED: bool> TileProduct<'_, '_, BITS, PAIRED> {
    /// Computes up to [`ROWS`] quantized rows of up to [`PANELS`] panels' columns.
    #[inline(always)]
    fn block<L: Lanes>(
        &mut self,
        tiles: &Tiles,
        room: &mut Room,
        panels: Range<usize>,
        rows: Range<usize>,
    ) {
        let desc = self.w.desc;
        let empty = PanelReader { codes: &[], scales: ScaleReader::<L>::new(desc.scales(), &[]) };
        let mut readers = [empty; PANELS];
        for (i, panel) in panels.clone().enumerate() {
            let (codes, scales) = self.w.panel(panel);
            readers[i] = PanelReader { codes, scales: ScaleReader::new(desc.scales(), scales) };
            room.panels[i].sums[..rows.len()].fill([0.0; LANES]);
        }
        let groups = self.w.k / desc.group;
        let mut segment = 0;
        for group in (0..groups).step_by(CHUNK / desc.group) {
            let groups = (groups - group).min(CHUNK / desc.group);
            let count = groups * desc.group / segment_len(PAIRED);
            for (reader, room) in readers.iter_mut().zip(&mut room.panels[..panels.len()]) {
                reader.widen::<BITS, PAIRED>(desc, groups, room);
            }
            for row in (0..rows.len()).step_by(TILE_ROWS) {
                let x = self.x.rows_from(rows.start + row, TILE_ROWS);
                let segments = segment..segment + count;
                for panel in &mut room.panels[..panels.len()] {
                    let ints = &mut room.ints;
                    if desc.has_min {
                        tile::<L, PAIRED, true>(tiles, ints, panel, x, row, segments.clone());
                    } else {
                        tile::<L, PAIRED, false>(tiles, ints, panel, x, row, segments.clone());
                    }
                }
            }
            segment += count;
        }
        let terms = self.x.terms();
        for (i, panel) in panels.enumerate() {
            let sums = &room.panels[i].sums[..rows.len()];
            for (r, sums) in sums.chunks(terms).enumerate() {
                let mut sum = L::load(&sums[0]);
                for term in &sums[1..] {
                    sum = sum.add(L::load(term));
                }
                store_row(self.out, self.w.n, panel, rows.start / terms + r, sum);
            }
        }
    }
}

/// The rest of a panel.
#[derive(Clone, Copy)]
struct PanelReader<'a, L> {
    codes: &'a [u8],
    scales: ScaleReader<'a, L>,
}

impl<L: Lanes> PanelReader<'_, L> {
    /// Takes some groups.
    #[inline(always)]
    fn widen<const BITS: u8, const PAIRED: bool>(
        &mut self,
        desc: AffineDesc,
        groups: usize,
        room: &mut PanelRoom,
    ) {
        let quads = segment_len(PAIRED) / 4;
        let segments_of_group = desc.group / segment_len(PAIRED);
        let (codes, rest) = self.codes.split_at(groups * desc.code_bytes(desc.group));
        self.codes = rest;
        let mut codes = codes.chunks_exact(Segments::<BITS, PAIRED>::LAYOUT.segment_bytes());
        for group in 0..groups {
            let (scale, min) = self.scales.next();
            for segment in 0..segments_of_group {
                let at = group * segments_of_group + segment;
                let Some(codes) = codes.next() else { return };
                let to = &mut room.codes[at * quads..][..quads];
                Segments::<BITS, PAIRED>::widen::<L>(desc.zero_point, codes, to);
                scale.store(&mut room.scales[at]);
                if let Some(min) = min {
                    min.store(&mut room.mins[at]);
                }
            }
        }
    }
}

/// Adds some segments to the sums of sixteen rows: `x` holds their blocks, row after row.
#[inline(always)]
fn tile<L: Lanes, const PAIRED: bool, const HAS_MIN: bool>(
    tiles: &Tiles,
    ints: &mut [Ints; 2],
    panel: &mut PanelRoom,
    x: &[[u8; BLOCK_BYTES]],
    row: usize,
    segments: Range<usize>,
) {
    let width = x.len() / TILE_ROWS;
    let mut sums = [L::splat(0.0); TILE_ROWS];
    for (sums, from) in sums.iter_mut().zip(&panel.sums[row..row + TILE_ROWS]) {
        *sums = L::load(from);
    }
    // The tiles of a segment work while the one before is scaled.
    let count = segments.len();
    for at in 0..count + 1 {
        let quads = segment_len(PAIRED) / 4;
        if at < count {
            let (block, part) = place::<PAIRED>(segments.start + at);
            let start = if part == 1 { LANES } else { 0 };
            let codes = &panel.codes[at * quads..][..quads];
            tiles.dots(&x[block..], width, start, codes, &mut ints[at % 2].0);
        }
        let Some(at) = at.checked_sub(1) else { continue };
        let (block, part) = place::<PAIRED>(segments.start + at);
        let (scale, min) = (L::load(&panel.scales[at]), L::load(&panel.mins[at]));
        let x = &x[block..][..(TILE_ROWS - 1) * width + 1];
        let scaled_sum = word::SCALED_SUMS[part];
        for (r, (sums, dots)) in sums.iter_mut().zip(&ints[at % 2].0).enumerate() {
            // SAFETY: `r * width` is at most the last index of `x`. A checked access would keep
            // the loop from being unrolled and the sums from registers.
            let x = unsafe { x.get_unchecked(r * width) };
            let factor = scale.mul(L::splat(float(x, word::SCALE)));
            *sums = L::from_ints(L::load_ints(dots)).fma(factor, *sums);
            if HAS_MIN {
                *sums = min.fma(L::splat(float(x, scaled_sum)), *sums);
            }
        }
    }
    for (sums, to) in sums.into_iter().zip(&mut panel.sums[row..row + TILE_ROWS]) {
        sums.store(to);
    }
}

/// The block of activations of a segment, and which of its sums belongs to it.
#[inline(always)]
fn place<const PAIRED: bool>(segment: usize) -> (usize, usize) {
    if PAIRED { (segment, 2) } else { (segment / 2, segment % 2) }
}

#[inline(always)]
fn float(block: &[u8; BLOCK_BYTES], at: usize) -> f32 {
    f32::from_le_bytes(block.as_chunks().0[at / 4])
}

/// Sums of a tile.
#[repr(align(64))]
struct Ints([[i32; LANES]; TILE_ROWS]);

/// Working memory, for the stack.
struct Room {
    /// Of a segment and the one before.
    ints: [Ints; 2],
    panels: [PanelRoom; PANELS],
}

/// What is kept of a panel while its rows are computed.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct PanelRoom {
    /// Quads of signed bytes, `[elements / 4]`.
    codes: [[u8; QUAD_BYTES]; CHUNK / 4],
    /// `[segments]`
    scales: [[f32; LANES]; SEGMENTS],
    /// `[segments]`
    mins: [[f32; LANES]; SEGMENTS],
    /// `[quantized rows]`
    sums: [[f32; LANES]; ROWS],
}

impl Room {
    #[inline(always)]
    fn new() -> Self {
        let panel = PanelRoom {
            codes: [[0; QUAD_BYTES]; CHUNK / 4],
            scales: [[0.0; LANES]; SEGMENTS],
            mins: [[0.0; LANES]; SEGMENTS],
            sums: [[0.0; LANES]; ROWS],
        };
        let ints = std::array::from_fn(|_| Ints([[0; LANES]; TILE_ROWS]));
        Self { ints, panels: [panel; PANELS] }
    }
}

/// This thread's tiles, configured while this lives: 0 is sums, 1 activations, 2 codes.
struct Tiles {
    segment: usize,
}

/// What `ldtilecfg` reads: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual",
/// volume 1, section 18.3.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Tiles for segments of so many elements. Only made where AMX was found.
    #[inline(always)]
    fn new(segment: usize) -> Self {
        let mut config = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        for (tile, rows, row_bytes) in [
            (0, TILE_ROWS, LANES * size_of::<i32>()),
            (1, TILE_ROWS, segment),
            (2, segment / 4, QUAD_BYTES),
        ] {
            (config.rows[tile], config.row_bytes[tile]) = (rows as u8, row_bytes as u16);
        }
        // SAFETY: this kernel runs only where `Isa::Amx` is available: the instruction exists and
        // the system has allowed its state. `config` is 64 bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self { segment }
    }

    /// Writes `out[r][c] = sum over i of x[r][i] * codes[c][i]` for sixteen rows whose blocks are
    /// `width` apart, from byte `start` of a block on; all bytes are signed.
    #[inline(always)]
    fn dots(
        &self,
        x: &[[u8; BLOCK_BYTES]],
        width: usize,
        start: usize,
        codes: &[[u8; QUAD_BYTES]],
        out: &mut [[i32; LANES]; TILE_ROWS],
    ) {
        assert!(x.len() > (TILE_ROWS - 1) * width && start + self.segment <= ACT_BLOCK);
        assert!(codes.len() * 4 == self.segment);
        // SAFETY: as in `new`, and the tiles are configured: the first load reads `segment` bytes
        // of sixteen blocks, the last of which lies within `x`; the second all of `codes`; the
        // store writes all of `out`. No other code of this thread uses tiles while `self` lives.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tileloadd tmm1, [{x} + {stride} * 1]",
                "tileloadd tmm2, [{codes} + {line} * 1]",
                "tdpbssd tmm0, tmm1, tmm2",
                "tilestored [{out} + {line} * 1], tmm0",
                x = in(reg) x.as_ptr().cast::<u8>().add(start),
                stride = in(reg) width * BLOCK_BYTES,
                codes = in(reg) codes.as_ptr(),
                line = in(reg) QUAD_BYTES,
                out = in(reg) out.as_mut_ptr(),
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                options(nostack, preserves_flags),
            );
        }
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `new`. Tiles at rest need not be saved when threads change.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
