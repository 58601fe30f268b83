//! The words of a line, taken one after the other.

use soma_sync_core::types::{CommitIndex, CommitRange, PeerId};
use std::{str::FromStr, time::Duration};

/// What is left of a line.
#[derive(Clone)]
pub(crate) struct Words<'a> {
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(line: &'a str) -> Self {
        Self { rest: line.split_whitespace().rev().collect() }
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        self.rest.pop()
    }

    /// The next word.
    pub(crate) fn word(&mut self) -> Result<&'a str, String> {
        self.next().ok_or_else(|| "a word is missing at the end".to_owned())
    }

    /// Takes these words, if they are the next ones.
    pub(crate) fn take(&mut self, words: &str) -> bool {
        let count = words.split(' ').count();
        let matches = words.split(' ').eq(self.rest.iter().rev().take(count).copied());
        if matches {
            self.rest.truncate(self.rest.len() - count);
        }
        matches
    }

    /// Takes these words, which must be the next ones.
    pub(crate) fn expect(&mut self, words: &str) -> Result<(), String> {
        if self.take(words) { Ok(()) } else { Err(self.unknown()) }
    }

    /// What to say of the next word where it means nothing.
    pub(crate) fn unknown(&self) -> String {
        match self.rest.last() {
            Some(word) => format!("unknown word '{word}'"),
            None => "a word is missing at the end".to_owned(),
        }
    }

    /// There must be nothing left.
    pub(crate) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.unknown()) }
    }

    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|_| format!("'{word}' is no number"))
    }

    /// A number behind this letter: `r7`, `j0`.
    pub(crate) fn id(&mut self, letter: char) -> Result<u64, String> {
        let word = self.word()?;
        parse_id(word, letter).ok_or_else(|| format!("'{word}' is not {letter} and a number"))
    }

    pub(crate) fn index(&mut self) -> Result<CommitIndex, String> {
        self.number().map(CommitIndex::new)
    }

    /// `2..=5`, or one number.
    pub(crate) fn range(&mut self) -> Result<CommitRange, String> {
        let word = self.word()?;
        let (start, end) = parse_span(word)?;
        CommitRange::new(CommitIndex::new(start), CommitIndex::new(end))
            .ok_or_else(|| format!("'{word}' is no range"))
    }

    /// Two numbers, in any order: `9..=3`.
    pub(crate) fn span(&mut self) -> Result<(CommitIndex, CommitIndex), String> {
        let (start, end) = parse_span(self.word()?)?;
        Ok((CommitIndex::new(start), CommitIndex::new(end)))
    }

    /// Numbers and ranges of them, separated by commas.
    pub(crate) fn list(&mut self) -> Result<Vec<u32>, String> {
        let word = self.word()?;
        let mut all = Vec::new();
        for part in word.split(',') {
            let (start, end) = parse_span(part)?;
            all.extend(start..=end);
        }
        Ok(all)
    }

    /// `5s`, `20ms` or `3us`.
    pub(crate) fn time(&mut self) -> Result<Duration, String> {
        let word = self.word()?;
        let number = |unit: &str| word.strip_suffix(unit).and_then(|number| number.parse().ok());
        let time = number("us").map(Duration::from_micros);
        let time = time.or_else(|| number("ms").map(Duration::from_millis));
        let time = time.or_else(|| number("s").map(Duration::from_secs));
        time.ok_or_else(|| format!("'{word}' is no time"))
    }
}

/// The number behind a letter.
pub(crate) fn parse_id(word: &str, letter: char) -> Option<u64> {
    word.strip_prefix(letter)?.parse().ok()
}

fn parse_span(word: &str) -> Result<(u32, u32), String> {
    let (start, end) = word.split_once("..=").unwrap_or((word, word));
    match (start.parse(), end.parse()) {
        (Ok(start), Ok(end)) => Ok((start, end)),
        _ => Err(format!("'{word}' is no range")),
    }
}

/// The peer of this name: names are ids, so that peers sort by their names.
pub(crate) fn peer(name: &str) -> Result<PeerId, String> {
    let letters = !name.is_empty() && name.len() <= 16 && name.bytes().all(|byte| byte.is_ascii_lowercase());
    if !letters {
        return Err(format!("'{name}' is no name: a peer has up to 16 small letters"));
    }
    let mut id = [0; 32];
    id[..name.len()].copy_from_slice(name.as_bytes());
    Ok(PeerId::new(id))
}

/// The name of a peer.
pub(crate) fn name(peer: PeerId) -> String {
    peer.as_bytes().iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}
