//! The subject as a logits processor, and as an output parser.

use plugin_api::prelude::*;

use super::Subject;

impl OutputParser for Subject {
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()> {
        self.at("open")?;
        self.seqs[answer.0 as usize] = params.count_or("depth", 0, 0..=9)? as u32;
        Ok(())
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        self.at("push")?;
        let index = self.seqs[answer.0 as usize];
        self.seqs[answer.0 as usize] += text.len() as u32;
        out.push(Piece::Content(text.to_uppercase()));
        out.push(Piece::Reasoning(format!("{index} é")));
        out.push(Piece::ToolCall { index, name: "f".to_owned() });
        out.push(Piece::Arguments { index, text: "{}".to_owned() });
        Ok(())
    }

    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        self.at("finish")?;
        out.push(Piece::Content(self.seqs[answer.0 as usize].to_string()));
        Ok(())
    }

    fn close(&mut self, answer: AnswerId) {
        self.at_most_panics("close");
        self.seqs[answer.0 as usize] = 0;
    }
}

impl LogitsProcessor for Subject {
    fn open(&mut self, host: &Host) -> Result<()> {
        self.at("open")?;
        let vocabulary = host.services().vocabulary()?;
        let bytes = (0..vocabulary.len() as u32).map(|id| vocabulary.bytes(id).len() as u32);
        self.seqs[0] = bytes.sum::<u32>() * 10 + vocabulary.ends().len() as u32;
        Ok(())
    }

    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        self.at("batch")?;
        match *change {
            BatchChange::Added { row, params, history } => {
                let bias = params.number_or("bias", 0.0, 0.0..=9.0)?;
                self.seqs[row.0 as usize] = bias as u32 + history.len() as u32;
            }
            BatchChange::Advanced { row, token } => self.seqs[row.0 as usize] += token,
            BatchChange::RolledBack { row, history } => {
                self.seqs[row.0 as usize] = history.iter().sum();
            }
            BatchChange::Forked { parent, child } => {
                self.seqs[child.0 as usize] = self.seqs[parent.0 as usize];
            }
            BatchChange::Removed { row } => self.seqs[row.0 as usize] = 0,
        }
        Ok(())
    }

    fn need(&self) -> Need {
        self.at_most_panics("need");
        Need::All
    }

    fn is_argmax_invariant(&self) -> bool {
        self.at_most_panics("is_argmax_invariant");
        true
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        self.at("apply")?;
        let (vocab_size, seqs) = (logits.vocab_size(), &self.seqs);
        logits.for_each(|row| {
            let seen = seqs[row.id().0 as usize] as f32;
            let sum = row.max() + row.log_sum_exp() + row.logit(1) + row.logit(9_999) * 0.0;
            let top: f32 = row.top_k(3).iter().map(|(token, logit)| *token as f32 * logit).sum();
            row.scale(0.5);
            row.set(2, if sum.is_nan() { seen } else { sum });
            row.set(3, top + seen);
            row.keep_above(-1.0e6);
            row.keep_top_k(vocab_size - 1);
            row.keep_top_p(0.9999);
            row.mask(&[!1]);
            row.whole()[4] += 0.25;
            Ok(())
        })
    }
}
