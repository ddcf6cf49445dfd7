//! Logits processors: edit the logits of a token before one is chosen.
//!
//! Rows are handles: a processor asks for a maximum, scales or masks, and only a processor that
//! says [`Need::All`] sees whole rows. So the numbers may lie on a device or behind a sandbox.

use super::kind;
use crate::config::Config;
use crate::error::Result;
use crate::host::Host;

/// Edits rows of logits.
pub trait LogitsProcessor: Send {
    /// The time to ask the host for what rows will need, such as the tokens of the model, and to compute
    /// from it. Called once, before anything else, where the host has services to lend; components are
    /// lent none. [any thread but the step thread; may take its time]
    ///
    /// # Errors
    ///
    /// Any error refuses the plugin. One that can do a part of its work without a service says so to
    /// the requests that need it.
    fn open(&mut self, host: &Host) -> Result<()> {
        let _ = host;
        Ok(())
    }

    /// Follows the batch: called before [`apply`](Self::apply) with what has changed. [step thread]
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) for a request parameter outside its range: the
    /// request is then refused, the others go on. Any error ends the request of the row, and only that.
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()>;

    /// What rows must be able to answer. [any thread]
    fn need(&self) -> Need;

    /// Edits every row of the step. [step thread]
    ///
    /// # Errors
    ///
    /// Any error ends the requests of these rows, and only those.
    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()>;

    /// Whether the largest logit of a row stays the largest: this says how to draw, and is skipped where nothing is
    /// drawn.
    fn is_argmax_invariant(&self) -> bool {
        false
    }
}

kind!(LogitsProcessor, "logits-processor", Request, traced: false);

/// What a processor needs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Only edits.
    Nothing,
    /// The largest logit.
    Max,
    /// The k largest logits, or sums over the row.
    Top,
    /// Single logits by id.
    Ids,
    /// The whole row, copied to where the processor runs.
    All,
}

/// Names a row for as long as its sequence lives. Small, so that it can index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u32);

/// What happened to one row since the last step.
#[derive(Debug, Clone, Copy)]
pub enum BatchChange<'a> {
    /// A sequence begins.
    Added {
        /// Its row.
        row: RowId,
        /// Parameters of the request.
        params: &'a Config,
        /// Tokens of the prompt.
        history: &'a [u32],
    },
    /// A token was appended.
    Advanced {
        /// The row.
        row: RowId,
        /// The token.
        token: u32,
    },
    /// The last tokens were taken back.
    RolledBack {
        /// The row.
        row: RowId,
        /// The tokens that remain.
        history: &'a [u32],
    },
    /// A row starts as a copy of another.
    Forked {
        /// The row to copy.
        parent: RowId,
        /// The new row.
        child: RowId,
    },
    /// A sequence ended.
    Removed {
        /// Its row.
        row: RowId,
    },
}

/// What the host lends for the rows of one step. Authors use [`LogitsRow`].
pub trait RowAccess {
    /// Rows in the step.
    fn num_rows(&self) -> usize;
    /// The id of a row.
    fn id(&self, row: usize) -> RowId;
    /// Logits in a row: the size of the vocabulary.
    fn vocab_size(&self) -> usize;
    /// The largest logit.
    fn max(&mut self, row: usize) -> f32;
    /// The logarithm of the sum of exponentials.
    fn log_sum_exp(&mut self, row: usize) -> f32;
    /// The logit of a token; minus infinity for ids outside the vocabulary.
    fn logit(&mut self, row: usize, token: u32) -> f32;
    /// The `k` largest logits with their ids, largest first, ties by lowest id.
    fn top_k(&mut self, row: usize, k: usize) -> &[(u32, f32)];
    /// Multiplies every logit.
    fn scale(&mut self, row: usize, by: f32);
    /// Sets the logit of a token.
    fn set(&mut self, row: usize, token: u32, logit: f32);
    /// Sets every logit below `threshold` to minus infinity.
    fn keep_above(&mut self, row: usize, threshold: f32);
    /// Sets all but the `k` largest to minus infinity.
    fn keep_top_k(&mut self, row: usize, k: usize);
    /// Sets all but the fewest largest whose probabilities reach `p` to minus infinity.
    fn keep_top_p(&mut self, row: usize, p: f32);
    /// Sets every logit whose bit is 0 to minus infinity; bit `i % 32` of word `i / 32`.
    fn mask(&mut self, row: usize, allowed: &[u32]);
    /// The whole row, counted as a download.
    fn whole(&mut self, row: usize) -> &mut [f32];
}

/// The rows of one step.
pub struct LogitsRows<'a> {
    access: &'a mut dyn RowAccess,
}

impl<'a> LogitsRows<'a> {
    /// Rows as the host lends them.
    pub fn new(access: &'a mut dyn RowAccess) -> Self {
        Self { access }
    }

    /// The rows as the host lends them, for whoever passes them on.
    #[doc(hidden)]
    pub fn access(&mut self) -> &mut dyn RowAccess {
        self.access
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.access.num_rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.access.vocab_size()
    }

    /// Calls `edit` with each row in turn.
    ///
    /// # Errors
    ///
    /// The first error that `edit` returns.
    pub fn for_each(
        &mut self,
        mut edit: impl FnMut(&mut LogitsRow<'_>) -> Result<()>,
    ) -> Result<()> {
        (0..self.len())
            .try_for_each(|index| edit(&mut LogitsRow { access: &mut *self.access, index }))
    }
}

/// One row of logits: a handle, see [`RowAccess`] for what each method does.
pub struct LogitsRow<'a> {
    access: &'a mut dyn RowAccess,
    index: usize,
}

#[allow(missing_docs, reason = "each method forwards to the method of that name of RowAccess")]
impl LogitsRow<'_> {
    pub fn id(&self) -> RowId {
        self.access.id(self.index)
    }
    pub fn max(&mut self) -> f32 {
        self.access.max(self.index)
    }
    pub fn log_sum_exp(&mut self) -> f32 {
        self.access.log_sum_exp(self.index)
    }
    pub fn logit(&mut self, token: u32) -> f32 {
        self.access.logit(self.index, token)
    }
    pub fn top_k(&mut self, k: usize) -> &[(u32, f32)] {
        self.access.top_k(self.index, k)
    }
    pub fn scale(&mut self, by: f32) {
        self.access.scale(self.index, by);
    }
    pub fn set(&mut self, token: u32, logit: f32) {
        self.access.set(self.index, token, logit);
    }
    pub fn keep_above(&mut self, threshold: f32) {
        self.access.keep_above(self.index, threshold);
    }
    pub fn keep_top_k(&mut self, k: usize) {
        self.access.keep_top_k(self.index, k);
    }
    pub fn keep_top_p(&mut self, p: f32) {
        self.access.keep_top_p(self.index, p);
    }
    pub fn mask(&mut self, allowed: &[u32]) {
        self.access.mask(self.index, allowed);
    }
    pub fn whole(&mut self) -> &mut [f32] {
        self.access.whole(self.index)
    }
}

/// A value for each row, kept up to date by [`follow`](Self::follow).
#[derive(Debug, Clone, Default)]
pub struct RowMap<T> {
    rows: Vec<Option<T>>,
}

/// What a row's tokens are told to.
pub trait FollowTokens {
    /// A token was appended.
    fn push(&mut self, token: u32);
    /// The last tokens were taken back: `history` remains, prompt and answer.
    fn restart(&mut self, history: &[u32]);
}

impl<T: Clone + FollowTokens> RowMap<Option<T>> {
    /// As [`follow`](Self::follow), and tells the values of rows what happens to their tokens. Rows
    /// that need none are `None`.
    ///
    /// # Errors
    ///
    /// What `make` returns; the row is then absent.
    pub fn follow_tokens(
        &mut self,
        change: &BatchChange<'_>,
        make: impl FnOnce(&Config, &[u32]) -> Result<Option<T>>,
    ) -> Result<()> {
        self.follow(change, make)?;
        match *change {
            BatchChange::Advanced { row, token } => {
                self.get_mut(row).into_iter().flatten().for_each(|value| value.push(token));
            }
            BatchChange::RolledBack { row, history } => {
                self.get_mut(row).into_iter().flatten().for_each(|value| value.restart(history));
            }
            _ => {}
        }
        Ok(())
    }
}

impl<T: Clone> RowMap<T> {
    /// No rows.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Applies a change of the batch: `make` gives the value of an added row, forks copy.
    ///
    /// # Errors
    ///
    /// What `make` returns; the row is then absent.
    pub fn follow(
        &mut self,
        change: &BatchChange<'_>,
        make: impl FnOnce(&Config, &[u32]) -> Result<T>,
    ) -> Result<()> {
        match *change {
            BatchChange::Added { row, params, history } => {
                *self.entry(row) = Some(make(params, history)?);
            }
            BatchChange::Forked { parent, child } => {
                let copy = self.get(parent).cloned();
                *self.entry(child) = copy;
            }
            BatchChange::Removed { row } => *self.entry(row) = None,
            BatchChange::Advanced { .. } | BatchChange::RolledBack { .. } => {}
        }
        Ok(())
    }

    /// The value of a row.
    pub fn get(&self, row: RowId) -> Option<&T> {
        self.rows.get(row.0 as usize)?.as_ref()
    }

    /// The value of a row, to change.
    pub fn get_mut(&mut self, row: RowId) -> Option<&mut T> {
        self.rows.get_mut(row.0 as usize)?.as_mut()
    }

    fn entry(&mut self, row: RowId) -> &mut Option<T> {
        let index = row.0 as usize;
        if index >= self.rows.len() {
            self.rows.resize(index + 1, None);
        }
        &mut self.rows[index]
    }
}
