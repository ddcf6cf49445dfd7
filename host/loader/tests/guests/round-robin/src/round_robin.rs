//! Sequences take turns: each step starts with the one after the last that ran. Whose turn it is is
//! state, which a reload must not lose.

use plugin_api::prelude::*;

/// Takes turns in the order of sequence numbers, or in the opposite order.
#[derive(Debug)]
pub(crate) struct RoundRobin {
    /// The sequence that ran last.
    last: Option<u32>,
    is_backwards: bool,
    seqs_per_step: usize,
    /// Version of the bytes that it saves and restores.
    schema: u8,
    calls: u64,
    /// Every such call is an error.
    fails_every: u64,
    /// This call is a panic.
    panics_at: u64,
    /// Sequence and index of what waits, in the order of turns.
    turns: Vec<(u32, usize)>,
}

impl Capability for RoundRobin {
    const NAME: &'static str = "round-robin";

    fn from_config(config: &Config) -> Result<Self> {
        let count = |key, default, max| config.count_or(key, default, 1..=max);
        const NEVER: u64 = 1 << 30;
        Ok(Self {
            last: None,
            is_backwards: config.flag_or("is_backwards", false)?,
            seqs_per_step: count("seqs_per_step", NEVER, NEVER)? as usize,
            schema: count("schema", 1, 9)? as u8,
            calls: 0,
            fails_every: count("fails_every", NEVER, NEVER)?,
            panics_at: count("panics_at", NEVER, NEVER)?,
            turns: Vec::new(),
        })
    }
}

impl Scheduler for RoundRobin {
    fn pick(&mut self, queue: &[Waiting], limits: &Limits, out: &mut Vec<Picked>) -> Result<()> {
        self.calls += 1;
        assert!(self.calls != self.panics_at, "not this turn");
        if self.calls.is_multiple_of(self.fails_every) {
            // What it has picked by then must not run.
            out.extend((0..queue.len()).rev().map(|index| Picked { index, tokens: 1 }));
            return Err(Error::outside("round-robin", "this turn fails"));
        }
        let (last, is_backwards) = (self.last, self.is_backwards);
        self.turns.clear();
        self.turns.extend(queue.iter().enumerate().map(|(index, entry)| (entry.seq.0, index)));
        self.turns.sort_unstable_by_key(|&(seq, index)| {
            let has_had_its_turn = last.is_some_and(|last| match is_backwards {
                true => seq >= last,
                false => seq <= last,
            });
            let place = i64::from(seq) * if is_backwards { -1 } else { 1 };
            (has_had_its_turn, place, index)
        });
        let (mut tokens_left, mut seqs_left) = (limits.tokens, limits.seqs.min(self.seqs_per_step));
        for &(seq, index) in &self.turns {
            let tokens = queue[index].pending.min(tokens_left);
            let is_split = tokens < queue[index].pending;
            if tokens > 0 && seqs_left > 0 && !(queue[index].is_atomic && is_split) {
                out.push(Picked { index, tokens });
                self.last = Some(seq);
                tokens_left -= tokens;
                seqs_left -= 1;
            }
        }
        Ok(())
    }

    fn handover(&mut self) -> Option<&mut dyn Handover> {
        Some(self)
    }
}

impl Handover for RoundRobin {
    fn save(&self, out: &mut Vec<u8>) -> Result<()> {
        out.push(self.schema);
        out.extend(self.last.map(u32::to_le_bytes).into_iter().flatten());
        Ok(())
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<()> {
        let last = match bytes {
            [schema] if *schema == self.schema => None,
            [schema, last @ ..] if *schema == self.schema && last.len() == 4 => {
                Some(u32::from_le_bytes([last[0], last[1], last[2], last[3]]))
            }
            _ => {
                let expected = format!("schema {} and whose turn it was", self.schema);
                return Err(Error::malformed("round-robin", expected, format!("{bytes:?}")));
            }
        };
        self.last = last;
        Ok(())
    }
}
