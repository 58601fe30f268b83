//! What is printed, and files that appear whole or not at all.

use anyhow::{Context, Result, bail};
use soma_sync_core::types::CommitRef;
use std::{
    fmt::Display,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

/// Says what failed: one line, then its causes, as far as the line before does not end with them.
pub(crate) fn print_error(error: &anyhow::Error) {
    let mut said = error.to_string();
    eprintln!("error: {said}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.ends_with(&cause) {
            eprintln!("  because: {cause}");
            said = cause;
        }
    }
}

/// An error that says in its own line what it is about, too; the error stays its cause.
pub(crate) fn about(what: impl Display, error: impl Into<anyhow::Error>) -> anyhow::Error {
    let error = error.into();
    let line = format!("{what}: {error}");
    error.context(line)
}

/// Prints the result: the JSON object in one line, or the text for people.
pub(crate) fn print_result(json: bool, object: &serde_json::Value, text: &str) -> Result<()> {
    let line = if json { object.to_string() } else { text.to_owned() };
    writeln!(std::io::stdout(), "{line}").context("cannot write to stdout")
}

/// A commit as `{"index", "digest"}`.
pub(crate) fn commit_json(commit: &CommitRef) -> serde_json::Value {
    serde_json::json!({ "index": commit.index.get(), "digest": commit.digest.to_string() })
}

/// A file on its way: written beside its place, and moved there once it is whole and on disk.
///
/// What stood there is replaced only if it is a chain file, or empty. Dropped before [`NewChainFile::finish`], it
/// leaves nothing.
#[derive(Debug)]
pub(crate) struct NewChainFile {
    place: PathBuf,
    partial: PathBuf,
    file: File,
}

impl NewChainFile {
    pub(crate) fn create(place: &Path) -> Result<Self> {
        refuse_foreign(place)?;
        let Some(name) = place.file_name() else { bail!("{} is no name of a file", place.display()) };
        let mut partial = name.to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = place.with_file_name(partial);
        let file = File::create(&partial)
            .map_err(|error| about(format_args!("cannot create {}", partial.display()), error))?;
        Ok(Self { place: place.to_owned(), partial, file })
    }

    /// Makes the file durable and moves it to its place. Says how long it is.
    pub(crate) fn finish(self) -> Result<u64> {
        let finish = || {
            self.file.sync_all()?;
            fs::rename(&self.partial, &self.place)?;
            Ok(self.file.metadata()?.len())
        };
        finish().map_err(|error: std::io::Error| {
            about(format_args!("cannot write {}", self.place.display()), error)
        })
    }
}

impl Write for NewChainFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewChainFile {
    fn drop(&mut self) {
        // After a successful `finish` it is no longer there; otherwise this is all that can be done about it.
        let _ = fs::remove_file(&self.partial);
    }
}

/// That nothing but a chain file stands at a place.
fn refuse_foreign(place: &Path) -> Result<()> {
    let metadata = match fs::metadata(place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", place.display())),
    };
    let mut magic = Vec::new();
    if metadata.is_file() {
        let file = File::open(place).with_context(|| format!("cannot open {}", place.display()))?;
        file.take(7).read_to_end(&mut magic).with_context(|| format!("cannot read {}", place.display()))?;
    }
    if !metadata.is_file() || !(magic.is_empty() || magic == b"SOMACHN") {
        bail!("{} exists and is no chain file; give another --out", place.display());
    }
    Ok(())
}
