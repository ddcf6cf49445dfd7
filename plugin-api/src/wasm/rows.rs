//! Rows of logits that lie with the host.
//!
//! Edits that answer nothing are collected and sent together, at the latest before something is
//! read of the same row: rows do not depend on each other, so the order within a row is all that
//! counts. A processor that looked at the peak of most rows last time is given all peaks at once.

use super::offers::jackfield::plugin::rows::{self, Edit};
use crate::kinds::logits_processor::{RowAccess, RowId};

/// The rows of one `apply`; the memory is kept for the next.
pub(super) struct Lent {
    ids: Vec<u32>,
    vocab_size: usize,
    edits: Vec<Edit>,
    /// Whether a row has edits that the host does not know yet.
    is_edited: Vec<bool>,
    /// The peak of each row, where it is known and still true.
    peaks: Vec<Option<f32>>,
    num_peaks_asked: usize,
    /// Whether most peaks were asked for in the `apply` before.
    wants_all_peaks: bool,
    top: Vec<(u32, f32)>,
    /// The row that was lent whole, and its logits; written back before anything else happens.
    whole: Option<(u32, Vec<f32>)>,
}

impl Lent {
    pub(super) const fn new() -> Self {
        Self {
            ids: Vec::new(),
            vocab_size: 0,
            edits: Vec::new(),
            is_edited: Vec::new(),
            peaks: Vec::new(),
            num_peaks_asked: 0,
            wants_all_peaks: false,
            top: Vec::new(),
            whole: None,
        }
    }

    pub(super) fn begin(&mut self, ids: &[u32], vocab_size: usize) {
        self.ids.clear();
        self.ids.extend_from_slice(ids);
        self.vocab_size = vocab_size;
        self.is_edited.clear();
        self.is_edited.resize(ids.len(), false);
        self.peaks.clear();
        self.peaks.resize(ids.len(), None);
        self.wants_all_peaks = ids.len() > 1 && self.num_peaks_asked * 2 > ids.len();
        self.num_peaks_asked = 0;
    }

    /// Sends what is left to be sent.
    pub(super) fn finish(&mut self) {
        self.write_back();
        self.send();
    }

    fn send(&mut self) {
        if !self.edits.is_empty() {
            rows::edit_all(&self.edits);
            self.edits.clear();
            self.is_edited.fill(false);
        }
    }

    fn write_back(&mut self) {
        if let Some((row, logits)) = self.whole.take() {
            rows::write(row, &logits);
        }
    }

    /// Makes the host's row what the processor has made of it.
    fn before_reading(&mut self, row: usize) {
        self.write_back();
        if self.is_edited[row] {
            self.send();
        }
    }

    fn edit(&mut self, row: usize, edit: Edit) {
        self.write_back();
        self.is_edited[row] = true;
        self.peaks[row] = None;
        self.edits.push(edit);
    }
}

impl RowAccess for Lent {
    fn num_rows(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, row: usize) -> RowId {
        RowId(self.ids[row])
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn max(&mut self, row: usize) -> f32 {
        self.num_peaks_asked += 1;
        if let Some(peak) = self.peaks[row] {
            return peak;
        }
        self.before_reading(row);
        if self.wants_all_peaks && self.num_peaks_asked == 1 {
            self.send();
            let peaks = rows::max_all();
            self.peaks.iter_mut().zip(&peaks).for_each(|(place, peak)| *place = Some(*peak));
            return peaks[row];
        }
        *self.peaks[row].insert(rows::max(row as u32))
    }

    fn log_sum_exp(&mut self, row: usize) -> f32 {
        self.before_reading(row);
        rows::log_sum_exp(row as u32)
    }

    fn logit(&mut self, row: usize, token: u32) -> f32 {
        self.before_reading(row);
        rows::logit(row as u32, token)
    }

    fn top_k(&mut self, row: usize, k: usize) -> &[(u32, f32)] {
        self.before_reading(row);
        self.top = rows::top_k(row as u32, k as u32);
        &self.top
    }

    fn scale(&mut self, row: usize, by: f32) {
        self.edit(row, Edit::Scale((row as u32, by)));
    }

    fn set(&mut self, row: usize, token: u32, logit: f32) {
        self.edit(row, Edit::Set((row as u32, token, logit)));
    }

    fn keep_above(&mut self, row: usize, threshold: f32) {
        self.edit(row, Edit::KeepAbove((row as u32, threshold)));
    }

    fn keep_top_k(&mut self, row: usize, k: usize) {
        self.edit(row, Edit::KeepTopK((row as u32, k as u32)));
    }

    fn keep_top_p(&mut self, row: usize, p: f32) {
        self.edit(row, Edit::KeepTopP((row as u32, p)));
    }

    fn mask(&mut self, row: usize, allowed: &[u32]) {
        self.before_reading(row);
        self.peaks[row] = None;
        rows::mask(row as u32, allowed);
    }

    fn whole(&mut self, row: usize) -> &mut [f32] {
        self.before_reading(row);
        self.peaks[row] = None;
        let (_, logits) = self.whole.insert((row as u32, rows::read(row as u32)));
        logits
    }
}
