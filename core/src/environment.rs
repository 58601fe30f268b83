#![cfg(feature = "defence-switches")]
//! The one place where the core looks outside itself, which is in no release: see [`crate::switch`].

/// The switch that a variable of the environment names, if it is set.
///
/// # Panics
///
/// Where there is no switch of that name: a test must not pass for a misspelt one.
#[allow(clippy::panic, reason = "only tests build it")]
pub(crate) fn switch<T>(variable: &str, named: impl Fn(&str) -> Option<T>) -> Option<T> {
    let name = std::env::var(variable).ok()?;
    Some(named(&name).unwrap_or_else(|| panic!("{variable}: there is no {name}")))
}
