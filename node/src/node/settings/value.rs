//! How each kind of value is written in flags and in the configuration file.

use super::{Peer, parse_peer, parse_peer_id};
use crate::units::{parse_duration, parse_size, write_duration, write_size};
use soma_sync_core::{
    config::BlockVerification,
    types::{CommitDigest, CommitIndex, CommitRef, PeerId},
};
use std::{
    collections::BTreeSet, fmt::Display, net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr,
    time::Duration,
};

/// A kind of value.
pub(super) trait Value: Sized {
    /// What stands for it in help texts.
    const FORM: &'static str;
    /// Whether it is a list.
    const MANY: bool = false;
    /// Reads it; of a value that is no list there is one text.
    fn read(texts: &[String]) -> Result<Self, String>;
    /// Writes it as TOML; `None` where it is not set.
    fn write(&self) -> Option<String>;
}

pub(super) const fn form<V: Value>(_: fn(&super::Settings) -> &V) -> &'static str {
    V::FORM
}

pub(super) const fn many<V: Value>(_: fn(&super::Settings) -> &V) -> bool {
    V::MANY
}

pub(super) fn read_into<V: Value>(place: &mut V, texts: &[String]) -> Result<(), String> {
    *place = V::read(texts)?;
    Ok(())
}

pub(super) fn write<V: Value>(value: &V) -> Option<String> {
    value.write()
}

fn one<'a>(texts: &'a [String], form: &str) -> Result<&'a str, String> {
    match texts {
        [text] => Ok(text),
        [] | [_, ..] => Err(format!("must be one {form}")),
    }
}

fn quoted(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list(texts: impl IntoIterator<Item = impl Display>) -> String {
    let texts: Vec<_> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("must be a whole number, not {text:?}"))
}

macro_rules! numbers {
    ($($kind:ty),+) => {$(
        impl Value for $kind {
            const FORM: &'static str = "N";
            fn read(texts: &[String]) -> Result<Self, String> {
                number(one(texts, "whole number")?)
            }
            fn write(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

numbers!(u32, usize, NonZeroUsize);

/// Every `u64` that can be set is a number of bytes.
impl Value for u64 {
    const FORM: &'static str = "BYTES";
    fn read(texts: &[String]) -> Result<Self, String> {
        parse_size(one(texts, "size")?)
    }
    fn write(&self) -> Option<String> {
        Some(quoted(write_size(*self)))
    }
}

impl Value for Duration {
    const FORM: &'static str = "DURATION";
    fn read(texts: &[String]) -> Result<Self, String> {
        parse_duration(one(texts, "duration")?)
    }
    fn write(&self) -> Option<String> {
        Some(quoted(write_duration(*self)))
    }
}

impl Value for BlockVerification {
    const FORM: &'static str = "full|digest";
    fn read(texts: &[String]) -> Result<Self, String> {
        match one(texts, Self::FORM)? {
            "full" => Ok(Self::Full),
            "digest" => Ok(Self::Digest),
            other => Err(format!("must be \"full\" or \"digest\", not {other:?}")),
        }
    }
    fn write(&self) -> Option<String> {
        Some(quoted(match self {
            Self::Full => "full",
            Self::Digest => "digest",
        }))
    }
}

impl Value for Vec<CommitRef> {
    const FORM: &'static str = "INDEX:DIGEST";
    const MANY: bool = true;
    fn read(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| parse_commit(text)).collect()
    }
    fn write(&self) -> Option<String> {
        Some(list(self.iter().map(|commit| format!("{}:{}", commit.index, commit.digest))))
    }
}

fn parse_commit(text: &str) -> Result<CommitRef, String> {
    let refused = || format!("{text:?} is no commit; give INDEX:DIGEST, the digest with 64 hex digits");
    let (index, digest) = text.split_once(':').ok_or_else(refused)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest, &mut bytes).map_err(|_| refused())?;
    let index = index.parse().map(CommitIndex::new).map_err(|_| refused())?;
    Ok(CommitRef { index, digest: CommitDigest::new(bytes) })
}

impl Value for Vec<Peer> {
    const FORM: &'static str = "PEER_ID@ADDR";
    const MANY: bool = true;
    fn read(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| parse_peer(text)).collect()
    }
    fn write(&self) -> Option<String> {
        Some(list(self.iter().map(|peer| format!("{}@{}", peer.id, peer.address))))
    }
}

/// Nobody in the list means that everybody may.
impl Value for Option<BTreeSet<PeerId>> {
    const FORM: &'static str = "PEER_ID";
    const MANY: bool = true;
    fn read(texts: &[String]) -> Result<Self, String> {
        let peers = texts.iter().map(|text| parse_peer_id(text)).collect::<Result<BTreeSet<_>, _>>()?;
        Ok((!peers.is_empty()).then_some(peers))
    }
    fn write(&self) -> Option<String> {
        self.as_ref().map(list)
    }
}

impl Value for Option<SocketAddr> {
    const FORM: &'static str = "ADDR";
    fn read(texts: &[String]) -> Result<Self, String> {
        let text = one(texts, "address")?;
        text.parse().map(Some).map_err(|_| format!("must be an address, IP:PORT, not {text:?}"))
    }
    fn write(&self) -> Option<String> {
        self.as_ref().map(quoted)
    }
}

impl Value for Option<PathBuf> {
    const FORM: &'static str = "PATH";
    fn read(texts: &[String]) -> Result<Self, String> {
        match one(texts, "path")? {
            "" => Err("must be a path".to_owned()),
            path => Ok(Some(path.into())),
        }
    }
    fn write(&self) -> Option<String> {
        self.as_ref().map(|path| quoted(path.display()))
    }
}
