//! How far a command is, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr that counts commits. Hidden where stderr is no terminal.
pub(super) fn commits(what: &'static str, total: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(total)).with_message(what);
    let style =
        ProgressStyle::with_template("{msg} {bar:40} {human_pos}/{human_len} commits, {per_sec}, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
