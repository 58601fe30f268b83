//! A made chain as a chain file.

use super::{ChainMaker, ChainSpec, MadeCommit, SpecError};
use soma_sync_core::job::CheckedBlock;
use soma_sync_proto::chain_file::{ChainWriteError, ChainWriter};
use std::io::Write;

/// Writes the chain that `spec` describes as a chain file, and gives the output back, flushed.
///
/// The bytes are those that an export would write of a store into which they were imported: certifiers stand only with
/// the last commit of each epoch and of the file (formats: Chain files). Memory holds about one commit. `each` sees
/// every commit before it is written, and ends the work by an error.
///
/// # Errors
///
/// When the spec is out of its bounds, when writing fails, and whatever `each` returns.
pub fn write_chain_file<W, E>(
    spec: ChainSpec,
    output: W,
    mut each: impl FnMut(&MadeCommit) -> Result<(), E>,
) -> Result<W, E>
where
    W: Write,
    E: From<SpecError> + From<ChainWriteError>,
{
    let maker = ChainMaker::new(spec)?;
    let mut writer = ChainWriter::new(output, maker.genesis().encoding(), spec.commits)?;
    for made in maker.take(spec.commits as usize) {
        each(&made)?;
        let last = made.next_committee.is_some() || made.header.reference.index.get() == spec.commits;
        let certifiers = if last { &*made.certifiers } else { &[] };
        writer.write(made.header.payload.bytes(), &encodings(&made.blocks), &encodings(certifiers))?;
    }
    Ok(writer.finish()?)
}

fn encodings(blocks: &[CheckedBlock]) -> Vec<&[u8]> {
    blocks.iter().map(|block| &**block.payload.bytes()).collect()
}
