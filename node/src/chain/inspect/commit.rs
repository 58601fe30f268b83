//! One commit, with its blocks and who certifies it.

use super::Shown;
use crate::output::commit_json;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use soma_sync_core::{block::BlockView, config::Limits, payload::Payload};
use std::fmt::Write;

/// A block as it is encoded, whether or not it is any good.
pub(super) fn decode(payload: &Payload) -> Result<BlockView<'_>> {
    BlockView::decode(payload.bytes(), &Limits::default()).context("a block cannot be decoded")
}

/// The commit as text and as JSON.
pub(super) fn show(shown: &Shown) -> Result<(String, Value)> {
    let header = &shown.header;
    let mut text = format!(
        "commit {} {}\n  after      {}\n  epoch      {}\n  timestamp  {} ms\n  leader     round {}, author {}\n  \
         encoding   {} bytes\n\n",
        header.reference.index,
        header.reference.digest,
        header.previous,
        header.epoch,
        header.timestamp_ms,
        header.leader.round,
        header.leader.author,
        header.payload.len(),
    );
    let mut blocks = Vec::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{} blocks", shown.blocks.len());
    for (reference, payload) in header.blocks.iter().zip(&shown.blocks) {
        let block = decode(payload)?;
        let votes: Vec<_> = block.votes().collect();
        let ends_epoch = block.end_of_epoch().is_some_and(|end| end.complete().is_some());
        let _ = writeln!(
            text,
            "  round {:>6}  author {:>3}  {:>8} bytes  {:>5} transactions  {:>4} votes{}  {}{}{}",
            block.round(),
            block.author(),
            payload.len(),
            block.transaction_count(),
            votes.len(),
            span(&votes.iter().map(|vote| vote.index.get()).collect::<Vec<_>>()),
            reference.digest,
            if *reference == header.leader { "  leader" } else { "" },
            if ends_epoch { "  ends the epoch" } else { "" },
        );
        blocks.push(json!({
            "digest": reference.digest.to_string(),
            "round": block.round().get(),
            "author": block.author().get(),
            "timestamp_ms": block.timestamp_ms(),
            "bytes": payload.len(),
            "transactions": block.transaction_count(),
            "transaction_bytes": block.transactions().map(<[u8]>::len).sum::<usize>(),
            "ancestors": block.ancestors().len(),
            "votes": votes.iter().map(commit_json).collect::<Vec<_>>(),
            "leader": *reference == header.leader,
            "ends_epoch": ends_epoch,
        }));
    }
    let object = json!({
        "commit": commit_json(&header.reference),
        "previous": header.previous.to_string(),
        "epoch": header.epoch.get(),
        "timestamp_ms": header.timestamp_ms,
        "bytes": header.payload.len(),
        "leader": { "round": header.leader.round.get(), "author": header.leader.author.get() },
        "blocks": blocks,
        "certifiers": certifiers(shown, &mut text),
    });
    Ok((text, object))
}

fn certifiers(shown: &Shown, text: &mut String) -> Vec<Value> {
    let mut certifiers = Vec::new();
    let mut stake = 0;
    for (reference, payload) in &shown.certifiers {
        let own = shown.committee.as_ref().and_then(|committee| committee.stake(reference.author));
        let own = own.map_or(0, soma_sync_core::types::Stake::get);
        stake += own;
        certifiers.push(json!({
            "digest": reference.digest.to_string(),
            "round": reference.round.get(),
            "author": reference.author.get(),
            "stake": own,
            "bytes": payload.len(),
        }));
    }
    let _ = match (&*shown.certifiers, &shown.committee) {
        ([], _) => writeln!(
            text,
            "\nno certifiers here: a later commit's votes stand for this one, or none came yet"
        ),
        (_, Some(committee)) => writeln!(
            text,
            "\n{} certifiers with a stake of {stake}, where {} are a quorum",
            certifiers.len(),
            committee.quorum()
        ),
        (_, None) => writeln!(text, "\n{} certifiers of an unknown committee", certifiers.len()),
    };
    for (reference, payload) in &shown.certifiers {
        let _ = writeln!(
            text,
            "  round {:>6}  author {:>3}  {:>8} bytes  {}",
            reference.round,
            reference.author,
            payload.len(),
            reference.digest
        );
    }
    certifiers
}

/// The least and the greatest of the commits voted for.
fn span(indices: &[u32]) -> String {
    match (indices.iter().min(), indices.iter().max()) {
        (Some(least), Some(greatest)) if least == greatest => format!(" (for {least})"),
        (Some(least), Some(greatest)) => format!(" (for {least} to {greatest})"),
        (_, _) => String::new(),
    }
}
