//! Worlds without a defence of the core, to see that their tests notice.

use soma_sync_core::defence::{self, Defence, WITHOUT};
use std::{env, sync::Once};

/// Takes away the defence that the environment names, once for the process.
///
/// # Panics
///
/// Where there is no such defence: a test must not pass for a misspelt name.
pub(crate) fn remove_named() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(name) = env::var(WITHOUT) else { return };
        let named = Defence::named(&name);
        defence::remove(named.unwrap_or_else(|| panic!("{WITHOUT}: there is no defence {name}")));
    });
}
