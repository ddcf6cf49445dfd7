//! Checks that indices point at something, before anything is computed with them.

use plugin_api::{Error, Result};

use crate::code::SlotId;
use crate::frame::Frame;
use crate::size::Size;

/// Indices, and what they have to be below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Each index is below a size.
    Below {
        /// `u32`.
        indices: SlotId,
        /// The size.
        end: Size,
    },
    /// Tokens of a sequence that stand side by side follow each other.
    Order {
        /// `[tokens]`.
        positions: SlotId,
        /// `[tokens]`.
        sequence_index: SlotId,
    },
    /// Every block that a token reads or writes exists.
    Blocks {
        /// `[tokens]`.
        positions: SlotId,
        /// `[tokens]`.
        sequence_index: SlotId,
        /// `[seqs, blocks_per_seq]`.
        block_table: SlotId,
        /// Columns of the table.
        blocks_per_seq: Size,
        /// Positions of a block.
        block_size: usize,
        /// Blocks that exist.
        num_blocks: usize,
        /// Positions that are read; 0 for all.
        window: usize,
    },
}

impl Check {
    /// The slots that are read.
    pub(crate) fn slots(&self) -> Vec<SlotId> {
        match *self {
            Self::Below { indices, .. } => vec![indices],
            Self::Order { positions, sequence_index } => vec![positions, sequence_index],
            Self::Blocks { positions, sequence_index, block_table, .. } => {
                vec![positions, sequence_index, block_table]
            }
        }
    }

    /// Checks one run.
    pub(crate) fn run(&self, frame: &mut Frame<'_>) -> Result<()> {
        let sizes = frame.sizes();
        match *self {
            Self::Below { indices, end } => {
                let end = end.of(sizes);
                let [indices] = frame.indices([indices]);
                match indices.iter().find(|&&index| index as usize >= end) {
                    Some(index) => Err(Error::shape("index", format!("below {end}"), index)),
                    None => Ok(()),
                }
            }
            Self::Order { positions, sequence_index } => {
                let [positions, sequences] = frame.indices([positions, sequence_index]);
                in_order(positions, sequences)
            }
            Self::Blocks {
                positions,
                sequence_index,
                block_table,
                blocks_per_seq,
                block_size,
                num_blocks,
                window,
            } => {
                let width = blocks_per_seq.of(sizes);
                let [positions, sequences, table] =
                    frame.indices([positions, sequence_index, block_table]);
                let limits = Limits { width, block_size, num_blocks, window };
                limits.check(positions, sequences, table)
            }
        }
    }
}

fn in_order(positions: &[u32], sequences: &[u32]) -> Result<()> {
    let pairs = positions.windows(2).zip(sequences.windows(2));
    for (position, sequence) in pairs.filter(|(_, sequence)| sequence[0] == sequence[1]) {
        if position[0].checked_add(1) != Some(position[1]) {
            let expected =
                format!("{} of sequence {} next", position[0].wrapping_add(1), sequence[0]);
            return Err(Error::shape("position", expected, position[1]));
        }
    }
    Ok(())
}

struct Limits {
    width: usize,
    block_size: usize,
    num_blocks: usize,
    window: usize,
}

impl Limits {
    fn check(&self, positions: &[u32], sequences: &[u32], table: &[u32]) -> Result<()> {
        let num_seqs = table.len().checked_div(self.width).unwrap_or(0);
        // Tokens of a sequence come one after the other: blocks that the token before has been
        // checked for are passed over.
        let (mut last_sequence, mut done) = (u32::MAX, 0..0);
        for (&position, &sequence) in positions.iter().zip(sequences) {
            if sequence as usize >= num_seqs {
                let expected = format!("below {num_seqs}");
                return Err(Error::shape("sequence index", expected, sequence));
            }
            let end = position as usize + 1;
            let end_block = end.div_ceil(self.block_size);
            if end_block > self.width {
                let expected = format!("below {}", self.width * self.block_size);
                return Err(Error::shape("position", expected, position));
            }
            let first = if self.window == 0 { 0 } else { end.saturating_sub(self.window) };
            let first_block = first / self.block_size;
            let is_next = sequence == last_sequence && done.contains(&first_block);
            let unseen = if is_next { done.end.min(end_block) } else { first_block };
            let row = &table[sequence as usize * self.width..][..self.width];
            if let Some(block) =
                row[unseen..end_block].iter().find(|&&block| block as usize >= self.num_blocks)
            {
                let expected = format!("below {}", self.num_blocks);
                return Err(Error::shape("block of the table", expected, block));
            }
            done = first_block..end_block.max(if is_next { done.end } else { 0 });
            last_sequence = sequence;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_tokens_out_of_order() {
        assert!(in_order(&[3, 4, 5, 0, 1], &[1, 1, 1, 0, 0]).is_ok());
        assert!(in_order(&[3, 5], &[0, 0]).is_err());
        assert!(in_order(&[3, 3], &[0, 0]).is_err());
        assert!(in_order(&[u32::MAX, 0], &[0, 0]).is_err());
    }

    /// Name, limits, positions, sequences, and whether they fit.
    type Case<'a> = (&'a str, &'a Limits, &'a [u32], &'a [u32], bool);

    #[test]
    fn finds_whatever_is_out_of_range() {
        let all = Limits { width: 3, block_size: 4, num_blocks: 9, window: 0 };
        let windowed = Limits { window: 2, ..all };
        let table = [8, 1, 9, 0, 1, 2];
        #[rustfmt::skip]
        let cases: [Case<'_>; 9] = [
            ("nothing",              &all,      &[],         &[],        true),
            ("good blocks",          &all,      &[0, 7],     &[0, 0],    true),
            ("bad block",            &all,      &[7, 8],     &[0, 0],    false),
            ("bad block in between", &all,      &[3, 11, 8], &[0, 1, 0], false),
            ("other sequence",       &all,      &[11],       &[1],       true),
            ("position outside",     &all,      &[12],       &[1],       false),
            ("sequence outside",     &all,      &[0],        &[2],       false),
            ("before the window",    &windowed, &[6, 7],     &[0, 0],    true),
            ("in the window",        &windowed, &[7, 9],     &[0, 0],    false),
        ];
        for (name, limits, positions, sequences, is_fit) in cases {
            assert_eq!(limits.check(positions, sequences, &table).is_ok(), is_fit, "{name}");
        }
    }
}
