//! What can be typed for `soma-sync node`.

use super::settings::Flags;
use clap::{Args, ValueEnum};
use soma_sync_core::{
    config::BlockVerification,
    types::{CommitIndex, PeerId},
};
use std::{net::SocketAddr, path::PathBuf};

/// Arguments of `node`.
#[derive(Debug, Args)]
#[command(after_help = "\
The first line on stdout is `listening PEER_ID@ADDR`, ready to paste into another node's --peer.
Ctrl-C and SIGTERM end a node cleanly, its store closed: exit code 0, or 130 where --until was not reached.
With --until a store that fails again and again ends the node, too: exit code 1. Without, it goes on trying.
`-h` leaves out the flags that are seldom needed; `--help` has them all.

Examples:
  soma-sync node --store ./a --genesis chain.bin --listen 127.0.0.1:7000
  soma-sync node --store ./b --genesis chain.bin --peer PEER_ID@127.0.0.1:7000 --until synced --json
  soma-sync node --print-config > node.toml
  soma-sync node --config node.toml --metrics 127.0.0.1:9100")]
pub(crate) struct Arguments {
    /// The configuration file, in TOML: every key has a flag, and flags win.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the whole configuration that follows from flags and file, commented, and end.
    #[arg(long)]
    pub(super) print_config: bool,
    /// End when this commit can be certified to others, or when no peer has more.
    #[arg(long, value_name = "INDEX|synced", value_parser = parse_until)]
    pub(super) until: Option<Until>,
    /// Print the result as one JSON object, the last line on stdout.
    #[arg(long)]
    pub(super) json: bool,
    /// Record everything that happens, so that `soma-sync trace` can show and replay it. An earlier file is kept as
    /// FILE.old.
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// Keep the bytes of blocks and commits in the trace, too.
    #[arg(long, requires = "trace")]
    pub(super) trace_full: bool,
    /// Hold about the last so many bytes of the trace in memory, and write them on a halt, a panic, the end and SIGUSR1. It
    /// replays from the machine's state, which has to fit a quarter of them.
    #[arg(long, requires = "trace", value_name = "SIZE", value_parser = crate::units::parse_bytes)]
    pub(super) trace_last: Option<u32>,
    #[command(flatten)]
    pub(super) settings: Flags,
}

/// When a node ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When it is synced.
    Synced,
    /// When this commit is certifiable.
    Index(CommitIndex),
}

/// A peer, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) address: SocketAddr,
}

/// How blocks are verified, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verification {
    /// Signature, author, epoch, ancestors and end-of-epoch fields, beside the digest.
    Full,
    /// The digest, which a quorum's certificate ties to the chain.
    Digest,
}

impl From<Verification> for BlockVerification {
    fn from(verification: Verification) -> Self {
        match verification {
            Verification::Full => Self::Full,
            Verification::Digest => Self::Digest,
        }
    }
}

fn parse_until(text: &str) -> Result<Until, String> {
    match text {
        "synced" => Ok(Until::Synced),
        number => number
            .parse()
            .map(|index| Until::Index(CommitIndex::new(index)))
            .map_err(|_| format!("{number:?} is neither `synced` nor the index of a commit")),
    }
}

pub(super) fn parse_peer(text: &str) -> Result<Peer, String> {
    let (id, address) =
        text.split_once('@').ok_or("give PEER_ID@ADDR, as the peer's `listening` line has it")?;
    let address = address.parse().map_err(|_| format!("{address:?} is no address; give IP:PORT"))?;
    Ok(Peer { id: parse_peer_id(id)?, address })
}

pub(super) fn parse_peer_id(text: &str) -> Result<PeerId, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| format!("{text:?} is no peer id; it has 64 hex digits"))?;
    Ok(PeerId::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_read_as_it_is_printed() {
        let id = PeerId::new([0xa7; 32]);
        let address: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        assert_eq!(parse_peer(&format!("{id}@{address}")), Ok(Peer { id, address }));
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        let id = PeerId::new([0xa7; 32]).to_string();
        for text in
            ["", "@", "127.0.0.1:7000", &id, &format!("{id}@localhost"), &format!("{}@127.0.0.1:1", &id[1..])]
        {
            assert!(parse_peer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn until_is_synced_or_an_index() {
        assert_eq!(parse_until("synced"), Ok(Until::Synced));
        assert_eq!(parse_until("12"), Ok(Until::Index(CommitIndex::new(12))));
        assert!(["", "-1", "Synced", "4294967296"].iter().all(|text| parse_until(text).is_err()));
    }
}
