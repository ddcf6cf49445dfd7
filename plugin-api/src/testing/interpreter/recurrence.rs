//! Ops whose state is kept per sequence: the state after the token before, and what comes of it, in the
//! copies of their blocks.

use kernels_reference as kernels;

use super::op::Call;
use super::state::StateArena;
use super::value::{Arithmetic, Value};
use crate::error::{Error, Result};
use crate::plan::{Per, StatePort};

impl<T: Arithmetic> Call<'_, T> {
    pub(super) fn causal_conv(
        &self,
        states: &[StatePort],
        arena: &mut StateArena<'_>,
    ) -> Result<Vec<T>> {
        let (x, w) = (self.reals(0)?, self.reals(1)?);
        let &[_, width] = self.shape(0)? else {
            return Err(Error::shape(self.op, "x [tokens, width]", "another"));
        };
        let mut out = vec![T::zero(); x.len()];
        let size = w.len() - width;
        self.recur([2, size], states, arena, |token, state| {
            let row = token * width..(token + 1) * width;
            kernels::causal_conv(&x[row.clone()], &w, state, &mut out[row]);
        })?;
        Ok(out)
    }

    pub(super) fn selective_scan(
        &self,
        states: &[StatePort],
        arena: &mut StateArena<'_>,
    ) -> Result<Vec<T>> {
        let [x, dt, a, b, c] = [0, 1, 2, 3, 4].map(|i| self.reals(i));
        let (x, dt, a, b, c) = (x?, dt?, a?, b?, c?);
        let &[width, n] = self.shape(2)? else {
            return Err(Error::shape(self.op, "a [width, n]", "another"));
        };
        let mut out = vec![T::zero(); x.len()];
        self.recur([5, a.len()], states, arena, |token, state| {
            let (row, of_n) = (token * width..(token + 1) * width, token * n..(token + 1) * n);
            let taken = [&x[row.clone()], &dt[row.clone()]];
            let read = [&b[of_n.clone()], &c[of_n]];
            kernels::selective_scan(taken, &a, read, state, &mut out[row]);
        })?;
        Ok(out)
    }

    /// Calls `step` with each token and the state before it, of `size` elements, which it turns into the one
    /// after it. `first` is the state among the arguments; positions, sequences and blocks follow it.
    fn recur(
        &self,
        [first, size]: [usize; 2],
        states: &[StatePort],
        arena: &mut StateArena<'_>,
        mut step: impl FnMut(usize, &mut [T]),
    ) -> Result<()> {
        let Value::State(index) = *self.value(first)? else {
            return Err(Error::shape(self.op, "a state", "another value"));
        };
        let (part, spec) =
            (self.attrs.get_count("part")?, states.get(index).map(|port| &port.spec));
        let kept = spec.filter(|spec| spec.per == Per::Sequence).filter(|spec| {
            spec.parts.get(part).is_some_and(|part| part.num_elements() == size as u64)
        });
        let Some(kept) = kept else {
            let expected = format!("a state per sequence with a part {part} of {size} elements");
            return Err(Error::shape(self.op, expected, format!("{spec:?}")));
        };
        let at = &arena.check(index, part, size, kept)?;
        let positions = self.value(first + 1)?.indices()?;
        let sequences = self.value(first + 2)?.indices()?;
        let (table, &[num_seqs, width]) =
            (self.value(first + 3)?.indices()?, self.shape(first + 3)?)
        else {
            return Err(Error::shape(self.op, "a table of blocks", "another"));
        };
        let block_of = |token: usize, position: u32| -> Result<usize> {
            let (sequence, place) = (sequences[token] as usize, position as usize);
            let column = place / arena.block_size.max(1);
            if sequence >= num_seqs || column >= width {
                let expected = format!("sequences below {num_seqs}, blocks below {width}");
                return Err(Error::shape(self.op, expected, format!("{sequence}, {column}")));
            }
            let block = table[sequence * width + column] as usize;
            if block >= at.num_blocks {
                let expected = format!("blocks below {}", at.num_blocks);
                return Err(Error::shape(self.op, expected, block));
            }
            Ok(block)
        };
        let mut places = Vec::with_capacity(positions.len());
        for (token, &position) in positions.iter().enumerate() {
            let before =
                position.checked_sub(1).map(|before| block_of(token, before)).transpose()?;
            places.push((before, block_of(token, position)?));
            let next =
                positions.get(token + 1).filter(|_| sequences[token] == sequences[token + 1]);
            if next.is_some_and(|&next| position.checked_add(1) != Some(next)) {
                let expected = "tokens of a sequence in order, without gaps";
                return Err(Error::shape(self.op, expected, format!("{positions:?}")));
            }
        }
        let mut state = Vec::with_capacity(size);
        for (token, (before, own)) in places.into_iter().enumerate() {
            state.clear();
            match before {
                Some(block) => arena.read(at, block, &mut state),
                None => state.resize(size, T::zero()),
            }
            step(token, &mut state);
            arena.write(at, own, &state);
        }
        Ok(())
    }
}
