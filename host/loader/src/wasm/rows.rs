//! The interface `rows`: logits that stay with the host.

#![allow(unsafe_code, reason = "follows what is lent")]

use plugin_api::kinds::logits_processor::RowAccess;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Result, bail};

use super::bindings::offers::jackfield::plugin::rows::{self, Edit, Host};
use super::lend::Lent;
use super::state::State;

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    rows::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl State {
    /// The lent rows.
    fn rows(&mut self) -> Result<&mut dyn RowAccess> {
        match &mut self.lent {
            // SAFETY: `Lent::Rows` is there only while the lending lasts, and the reference
            // borrows the state, so there is one at a time.
            Lent::Rows(rows) => Ok(unsafe { rows.get() }),
            _ => bail!("rows: called outside of `apply`"),
        }
    }

    /// The lent rows, and a row that is among them.
    fn row(&mut self, row: u32) -> Result<(&mut dyn RowAccess, usize)> {
        let rows = self.rows()?;
        let (row, num_rows) = (row as usize, rows.num_rows());
        if row < num_rows {
            return Ok((rows, row));
        }
        bail!("rows: expected a row below {num_rows}, found {row}")
    }

    fn all(&mut self, of: impl Fn(&mut dyn RowAccess, usize) -> f32) -> Result<Vec<f32>> {
        let rows = self.rows()?;
        Ok((0..rows.num_rows()).map(|row| of(rows, row)).collect())
    }
}

impl Host for State {
    fn max(&mut self, row: u32) -> Result<f32> {
        let (rows, row) = self.row(row)?;
        Ok(rows.max(row))
    }

    fn max_all(&mut self) -> Result<Vec<f32>> {
        self.all(|rows, row| rows.max(row))
    }

    fn log_sum_exp(&mut self, row: u32) -> Result<f32> {
        let (rows, row) = self.row(row)?;
        Ok(rows.log_sum_exp(row))
    }

    fn log_sum_exp_all(&mut self) -> Result<Vec<f32>> {
        self.all(|rows, row| rows.log_sum_exp(row))
    }

    fn logit(&mut self, row: u32, token: u32) -> Result<f32> {
        let (rows, row) = self.row(row)?;
        Ok(rows.logit(row, token))
    }

    fn logits(&mut self, row: u32, tokens: Vec<u32>) -> Result<Vec<f32>> {
        let (rows, row) = self.row(row)?;
        Ok(tokens.into_iter().map(|token| rows.logit(row, token)).collect())
    }

    fn top_k(&mut self, row: u32, k: u32) -> Result<Vec<(u32, f32)>> {
        let (rows, row) = self.row(row)?;
        let k = (k as usize).min(rows.vocab_size());
        Ok(rows.top_k(row, k).to_vec())
    }

    fn read(&mut self, row: u32) -> Result<Vec<f32>> {
        let (rows, row) = self.row(row)?;
        Ok(rows.whole(row).to_vec())
    }

    fn write(&mut self, row: u32, logits: Vec<f32>) -> Result<()> {
        let (rows, row) = self.row(row)?;
        let whole = rows.whole(row);
        if whole.len() != logits.len() {
            bail!("rows: write: expected {} logits, found {}", whole.len(), logits.len());
        }
        whole.copy_from_slice(&logits);
        Ok(())
    }

    fn scale(&mut self, row: u32, by: f32) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.scale(row, by);
        Ok(())
    }

    fn set(&mut self, row: u32, token: u32, logit: f32) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.set(row, token, logit);
        Ok(())
    }

    fn keep_above(&mut self, row: u32, threshold: f32) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.keep_above(row, threshold);
        Ok(())
    }

    fn keep_top_k(&mut self, row: u32, k: u32) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.keep_top_k(row, k as usize);
        Ok(())
    }

    fn keep_top_p(&mut self, row: u32, p: f32) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.keep_top_p(row, p);
        Ok(())
    }

    fn mask(&mut self, row: u32, allowed: Vec<u32>) -> Result<()> {
        let (rows, row) = self.row(row)?;
        rows.mask(row, &allowed);
        Ok(())
    }

    fn edit_all(&mut self, edits: Vec<Edit>) -> Result<()> {
        edits.into_iter().try_for_each(|edit| match edit {
            Edit::Scale((row, by)) => self.scale(row, by),
            Edit::Set((row, token, logit)) => self.set(row, token, logit),
            Edit::KeepAbove((row, threshold)) => self.keep_above(row, threshold),
            Edit::KeepTopK((row, k)) => self.keep_top_k(row, k),
            Edit::KeepTopP((row, p)) => self.keep_top_p(row, p),
        })
    }
}
