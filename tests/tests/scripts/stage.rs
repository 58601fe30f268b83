//! What a line does: first what the machine is made of, then what happens to it.

use crate::{
    names::{Chain, Names},
    play::Play,
    words::{Words, parse_id, peer},
};
use soma_sync_core::{Config, Event, request::RefuseReason, request::RequestFailure};
use soma_sync_sim::{
    chain::{ChainSpec, MadeCommit},
    world::ChainStore,
};

/// What a script has set up, and the play once something has happened.
pub(crate) struct Stage {
    spec: ChainSpec,
    config: Config,
    pinned: Vec<(u32, Chain)>,
    held: u32,
    lowest: u32,
    without_votes: bool,
    play: Option<Play>,
}

impl Default for Stage {
    fn default() -> Self {
        let spec = ChainSpec {
            commits: 8,
            blocks_per_commit: 2,
            payload_bytes: 64,
            committee: 4,
            epochs: 1,
            seed: 1,
        };
        Self {
            spec,
            config: Config::default(),
            pinned: Vec::new(),
            held: 0,
            lowest: 0,
            without_votes: false,
            play: None,
        }
    }
}

impl Stage {
    /// Plays a line. What is printed below it, or why it makes no sense.
    pub(crate) fn step(&mut self, line: &str) -> Result<Vec<String>, String> {
        let mut words = Words::new(line);
        let is_setting = self.play.is_none() && self.setting(&mut words)?;
        if is_setting {
            words.end()?;
            return Ok(Vec::new());
        }
        let play = match &mut self.play {
            Some(play) => play,
            None => {
                let play = self.begin()?;
                self.play.insert(play)
            }
        };
        act(play, &mut words)?;
        words.end()?;
        play.printed()
    }

    /// Takes a line that says what the machine is made of.
    fn setting(&mut self, words: &mut Words<'_>) -> Result<bool, String> {
        if words.take("chain") {
            self.spec.commits = words.number()?;
            words.expect("commits of")?;
            self.spec.blocks_per_commit = words.number()?;
            words.expect("blocks")?;
            if words.take("in") {
                self.spec.epochs = words.number()?;
                words.expect("epochs")?;
            }
            if words.take("with") {
                self.spec.payload_bytes = words.number()?;
                words.expect("bytes each")?;
            }
        } else if words.take("config") {
            configure(&mut self.config, words)?;
        } else if words.take("pinned") {
            let index = words.number()?;
            let chain = if words.take("of the fork") { Chain::Fork } else { Chain::Ours };
            self.pinned.push((index, chain));
        } else if words.take("holding") {
            let range = words.range()?;
            self.held = range.end().get();
            self.lowest = if range.count() > 1 { range.start().get() } else { 0 };
            self.without_votes = words.take("without votes for the last");
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn begin(&self) -> Result<Play, String> {
        let names = Names::new(self.spec)?;
        let mut config = self.config.clone();
        for (index, chain) in &self.pinned {
            config.pinned_commits.push(names.made(*chain, *index)?.header.reference);
        }
        if self.held > 0 {
            names.made(Chain::Ours, self.held)?;
        }
        let mut held: Vec<MadeCommit> = names.lab.chain()[..self.held as usize].to_vec();
        if let Some(last) = held.last_mut().filter(|_| self.without_votes) {
            last.certifiers = [].into();
        }
        let mut store = ChainStore::of(names.lab.genesis().clone(), &held);
        if self.lowest > 1 {
            store.prune(soma_sync_core::types::CommitIndex::new(self.lowest));
        }
        Play::new(names, config, store)
    }
}

/// Sets a field of the configuration.
fn configure(config: &mut Config, words: &mut Words<'_>) -> Result<(), String> {
    while let Some(field) = words.next() {
        match field {
            "commit_sync_batch_size" => config.commit_sync_batch_size = words.number()?,
            "look_ahead_commits" => config.look_ahead_commits = words.number()?,
            "max_blocks_per_fetch" => config.max_blocks_per_fetch = words.number()?,
            "max_fetch_response_bytes" => config.max_fetch_response_bytes = words.number()?,
            "max_buffered_bytes" => config.max_buffered_bytes = words.number()?,
            "max_block_bytes" => config.limits.max_block_bytes = words.number()?,
            "max_blocks_per_commit" => config.limits.max_blocks_per_commit = words.number()?,
            "max_requests" => config.max_requests = words.number()?,
            "max_requests_per_peer" => config.max_requests_per_peer = words.number()?,
            "max_store_batches" => config.max_store_batches = words.number()?,
            "max_verify_jobs" => config.max_verify_jobs = words.number()?,
            "max_serving" => config.max_serving = words.number()?,
            "max_serving_per_peer" => config.max_serving_per_peer = words.number()?,
            "max_queued_per_peer" => config.max_queued_per_peer = words.number()?,
            "max_data_requests_per_second" => config.max_data_requests_per_second = words.number()?,
            "max_small_requests_per_second" => config.max_small_requests_per_second = words.number()?,
            "max_parked_per_peer" => config.max_parked_per_peer = words.number()?,
            "max_invalid_requests" => config.max_invalid_requests = words.number()?,
            "follow_requests" => config.follow_requests = words.number()?,
            other => return Err(format!("there is no setting '{other}' that a script can change")),
        }
    }
    Ok(())
}

/// Does what a line says.
fn act(play: &mut Play, words: &mut Words<'_>) -> Result<(), String> {
    match words.word()? {
        "auto" => play.set_auto(words, true),
        "manual" => play.set_auto(words, false),
        "wait" if words.end().is_ok() => play.wait_for_timer(),
        "wait" => {
            let time = words.time()?;
            play.wait(time)
        }
        "status" => {
            play.print_status();
            Ok(())
        }
        "peers" => {
            play.print_peers();
            Ok(())
        }
        "counters" => {
            play.print_counters();
            Ok(())
        }
        "explain" => {
            let index = words.index()?;
            play.print_explanation(index);
            Ok(())
        }
        "store" => storage(play, words),
        "consumers" => {
            words.expect("took")?;
            let through = words.index()?;
            play.handle(Event::Broadcasted { through })
        }
        "consensus" => consensus(play, words),
        "committee" => {
            words.expect("of epoch")?;
            let committee = play.committee(words.number()?)?;
            play.handle(Event::CommitteeKnown { committee })
        }
        "pruned" => {
            words.expect("below")?;
            let lowest = words.index()?;
            play.prune(lowest)
        }
        "restart" => play.restart(),
        "jobs" => {
            words.expect("done")?;
            play.finish_jobs()
        }
        first => numbered(play, first, words),
    }
}

/// A line that begins with an id, or with a peer's name.
fn numbered(play: &mut Play, first: &str, words: &mut Words<'_>) -> Result<(), String> {
    if let Some(id) = parse_id(first, 'j') {
        return match words.word()? {
            "done" => play.finish_job(id),
            "dies" => play.kill_job(id),
            other => Err(format!("unknown word '{other}'")),
        };
    }
    if let Some(id) = parse_id(first, 'b') {
        words.expect("stored")?;
        return play.store(id);
    }
    if let Some(id) = parse_id(first, 'r') {
        words.expect("fails here")?;
        return play.fail_request(id, RequestFailure::Local);
    }
    if let Some(id) = parse_id(first, 'i') {
        words.expect("sent")?;
        let bytes = words.number()?;
        words.expect("bytes")?;
        return play.served(id, bytes);
    }
    if words.end().is_ok() {
        return Err(format!("'{first}' is a peer, and then comes what it does"));
    }
    peers(play, first, words)
}

/// What a peer does.
fn peers(play: &mut Play, who: &str, words: &mut Words<'_>) -> Result<(), String> {
    let peer = peer(who)?;
    match words.word()? {
        "connects" if words.take("with") => {
            let claim = words.span()?;
            play.connect(peer, Some(claim))
        }
        "connects" => {
            words.end()?;
            play.connect(peer, None)
        }
        "disconnects" => play.disconnect(peer),
        "now" => {
            words.expect("has")?;
            let claim = words.span()?;
            play.claim(peer, claim);
            Ok(())
        }
        "answers" => {
            let id = words.id('r')?;
            play.answer(peer, id, words, true)
        }
        "sends" => {
            let id = words.id('r')?;
            play.answer(peer, id, words, false)
        }
        "ends" => {
            let id = words.id('r')?;
            play.end(peer, id, Ok(()))
        }
        "resets" => {
            let id = words.id('r')?;
            play.end(peer, id, Err(RequestFailure::Reset))
        }
        "refuses" => {
            let id = words.id('r')?;
            let reason = match words.word()? {
                "busy" => RefuseReason::Busy,
                "unavailable" => RefuseReason::Unavailable,
                "too-many" => RefuseReason::TooMany,
                "too-large" => RefuseReason::TooLarge,
                "internal" => RefuseReason::Internal,
                other => return Err(format!("unknown word '{other}'")),
            };
            play.end(peer, id, Err(RequestFailure::Refused(reason)))
        }
        "asks" => {
            let id = words.id('i')?;
            play.ask(peer, id, words)
        }
        other => Err(format!("unknown word '{other}'")),
    }
}

/// What happens to the store.
fn storage(play: &mut Play, words: &mut Words<'_>) -> Result<(), String> {
    if words.take("fails from") {
        let id = words.id('b')?;
        return play.fail_store(id);
    }
    words.expect("reopens")?;
    let chain = words.take("holding").then(|| words.number()).transpose()?;
    let of = if words.take("of the fork") { Chain::Fork } else { Chain::Ours };
    play.reopen(chain.map(|held| (held, of)))
}

/// What our own consensus does.
fn consensus(play: &mut Play, words: &mut Words<'_>) -> Result<(), String> {
    match words.word()? {
        "commits" => {
            let index = words.number()?;
            let chain = if words.take("of the fork") { Chain::Fork } else { Chain::Ours };
            let event = play.observed(chain, index)?;
            play.handle(event)
        }
        "votes" => {
            words.expect("for")?;
            let event = play.votes(words.number()?)?;
            play.handle(event)
        }
        other => Err(format!("unknown word '{other}'")),
    }
}
