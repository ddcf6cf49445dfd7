//! Progress bars on long work; silent where output is for programs or nobody watches.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar, drawn on standard error when that is a terminal.
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// Counts bytes.
    pub(crate) fn bytes(is_silent: bool) -> Self {
        Self::new(
            is_silent,
            "{msg:14} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        )
    }

    /// Counts things without a unit.
    pub(crate) fn elements(is_silent: bool) -> Self {
        Self::new(is_silent, "{msg:14} {wide_bar} {percent:>3} % {eta}")
    }

    /// Counts steps; its message may change with each.
    pub(crate) fn steps(is_silent: bool) -> Self {
        Self::new(is_silent, "{wide_bar} {pos}/{len} {msg} {eta}")
    }

    /// Shows how far the steps are, and what is to be said of the last one.
    pub(crate) fn say(&self, done: u64, total: u64, message: String) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    fn new(is_silent: bool, template: &str) -> Self {
        let target =
            if is_silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Shows how far a stage is.
    pub(crate) fn show(&mut self, stage: &str, done: u64, total: Option<u64>) {
        if self.bar.message() != stage {
            self.bar.set_message(stage.to_owned());
            self.bar.reset_eta();
        }
        match total {
            Some(total) if total > 0 => self.bar.set_length(total),
            _ => self.bar.unset_length(),
        }
        self.bar.set_position(done);
    }

    /// Prints around the bar.
    pub(crate) fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
