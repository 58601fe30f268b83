//! Verifying a chain file, for whoever imports or verifies one.

use crate::output::about;
use anyhow::Result;
use soma_sync_core::committee::Committee;
use soma_sync_proto::chain_check::{ChainChecker, CheckOptions};
use std::{fs::File, io, path::Path, sync::Arc};

/// Begins to verify a file.
pub(super) fn open_file(path: &Path) -> Result<ChainChecker<File>> {
    // Opened once before the checker does, so that a file that is not there is told as such.
    File::open(path).map_err(|error| about(format_args!("cannot open {}", path.display()), error))?;
    open(|| File::open(path)).map_err(|error| about(format_args!("{} is refused", path.display()), error))
}

/// The committee that a chain begins with, from a genesis file or any chain file of that chain.
pub(crate) fn read_genesis(path: &Path) -> Result<Arc<Committee>> {
    Ok(Arc::clone(open_file(path)?.genesis()))
}

/// Begins to verify what `open` opens, each time from the start.
pub(super) fn open<R: io::Read>(open: impl FnMut() -> io::Result<R>) -> Result<ChainChecker<R>> {
    let seed = || {
        let mut entropy = [0; 32];
        // The system's generator fails only where it does not exist; nothing could be verified safely there.
        getrandom::fill(&mut entropy).expect("the system has a random generator");
        entropy
    };
    Ok(ChainChecker::open(open, CheckOptions::default(), seed)?)
}
