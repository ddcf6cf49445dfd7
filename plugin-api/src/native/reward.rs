//! Rewards across the boundary.

use std::ffi::c_void;
use std::sync::Arc;

use super::Owner;
use super::abi::reward::{RatedAnswerV1, RewardV1};
use super::abi::{Code, Opened, Out, RSlice};
use super::call::Remote;
use super::guard::{self, answer, guard, instance};
use crate::error::{Error, Result};
use crate::kinds::reward::{RatedAnswer, Reward};

type Instance = dyn Reward;

static TABLE: RewardV1 =
    RewardV1 { size: size_of::<RewardV1>() as u32, rate, close: guard::close::<Instance> };

pub(super) fn export(instance: Box<Instance>) -> (*mut c_void, *const c_void) {
    (guard::export(instance), (&raw const TABLE).cast())
}

unsafe extern "C" fn rate(
    this: *mut c_void,
    answers: RSlice<'_, RatedAnswerV1<'_>>,
    out: *const Out,
) -> Code {
    let body = || {
        // SAFETY: the host opened this instance here and calls it from one thread at a time.
        let reward = unsafe { &mut **instance::<Instance>(this) };
        let here = answers.as_slice().iter().map(|it| RatedAnswer {
            prompt: it.prompt.as_str(),
            text: it.text.as_str(),
            expected: (it.has_expected != 0).then(|| it.expected.as_str()),
            num_tokens: it.num_tokens,
            is_finished: it.is_finished != 0,
        });
        let rated = reward.rate(&here.collect::<Vec<_>>())?;
        // SAFETY: `out` is the host's, for this call.
        unsafe { answer(out, &rated) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(out, body) }
}

/// A reward in another library.
struct Adapter {
    remote: Remote,
    table: &'static RewardV1,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

/// # Safety
///
/// `opened` came from [`export`] of a library that matches and stays mapped.
pub(super) unsafe fn import(opened: Opened, owner: Arc<dyn Owner>) -> Box<Instance> {
    // SAFETY: as for this function.
    let table = unsafe { &*opened.table.cast::<RewardV1>() };
    Box::new(Adapter { remote: Remote::new(opened.this, owner), table, blamed: None })
}

impl Reward for Adapter {
    fn rate(&mut self, answers: &[RatedAnswer<'_>]) -> Result<Vec<f64>> {
        let theirs = answers.iter().map(|it| RatedAnswerV1 {
            prompt: it.prompt.into(),
            text: it.text.into(),
            expected: it.expected.unwrap_or_default().into(),
            num_tokens: it.num_tokens,
            has_expected: u8::from(it.expected.is_some()),
            is_finished: u8::from(it.is_finished),
        });
        let (table, theirs) = (self.table, theirs.collect::<Vec<_>>());
        let rated = self.remote.ask::<Vec<f64>>(|this, out| {
            // SAFETY: the table belongs to the instance; all pointers live until the call ends.
            unsafe { (table.rate)(this, theirs[..].into(), out) }
        });
        // The host asks for nothing that could be wrong: whatever fails is the plugin's fault.
        rated.inspect_err(|error| self.remote.blame(error, &mut self.blamed))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let table = self.table;
        // SAFETY: the instance is closed once, here.
        self.remote.tell(|this, out| unsafe { (table.close)(this, out) });
    }
}
