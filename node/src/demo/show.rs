//! What is seen of a demo while it runs: bars on a terminal, plain lines elsewhere.

use super::meter::{PeerView, Standing, View};
use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How often a plain line says how far the node is.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Where a demo is shown.
pub(super) struct Screen {
    began: Instant,
    form: Form,
}

enum Form {
    Bars(Bars),
    Lines(Lines),
}

impl Screen {
    /// Bars if somebody sits there. With `json`, stdout is for the result alone.
    pub(super) fn new(json: bool) -> Self {
        let bars = io::stderr().is_terminal() && (json || io::stdout().is_terminal());
        let form = if bars { Form::Bars(Bars::new()) } else { Form::Lines(Lines { json, next: None }) };
        Self { began: Instant::now(), form }
    }

    /// Says something that happened.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:6.2} s  {text}", self.began.elapsed().as_secs_f64());
        match &self.form {
            Form::Bars(bars) => bars.say(&line),
            Form::Lines(lines) => lines.say(&line),
        }
    }

    /// Shows how much of the chain is made.
    pub(super) fn making(&mut self, commits: u32, of: u32) {
        match &mut self.form {
            Form::Bars(bars) => bars.making(commits, of),
            Form::Lines(_) => {}
        }
    }

    /// Shows how far the fresh node is.
    pub(super) fn show(&mut self, view: &View) {
        let due = match &mut self.form {
            Form::Bars(bars) => {
                bars.show(view);
                false
            }
            Form::Lines(lines) => lines.is_due(Instant::now()),
        };
        if due {
            self.say(&line(view));
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        if let Form::Bars(bars) = &self.form {
            bars.clear();
        }
    }
}

/// Everything in one line.
fn line(view: &View) -> String {
    let peers: Vec<_> = view
        .peers
        .iter()
        .map(|peer| format!("{} {} {}", peer.name, word(peer.standing), rate(peer.bytes_per_s)))
        .collect();
    format!(
        "{}/{} commits, {:.0} commits/s, {}; {}",
        view.height,
        view.target,
        view.commits_per_s,
        rate(view.bytes_per_s),
        peers.join(", ")
    )
}

fn rate(bytes_per_s: f64) -> String {
    format!("{:.1} MB/s", bytes_per_s / 1e6)
}

const fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Unmet => "not met",
        Standing::Good => "ok",
        Standing::Slow => "slow",
        Standing::Silent => "silent",
        Standing::Banned => "banned",
        Standing::Down => "down",
    }
}

/// Plain lines on stdout, or on stderr where stdout is for the result.
struct Lines {
    json: bool,
    next: Option<Instant>,
}

impl Lines {
    fn say(&self, line: &str) {
        // That nobody reads progress is no reason to end; the result says so if it cannot be written either.
        let _ = if self.json { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| next <= now);
        if due {
            self.next = Some(now + LINE_INTERVAL);
        }
        due
    }
}

/// Bars on stderr: the chain's, and below it a line for each peer. Colours go where `NO_COLOR` is set.
struct Bars {
    all: MultiProgress,
    chain: ProgressBar,
    peers: Vec<(ProgressBar, Standing)>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let chain = all.add(ProgressBar::new(0));
        chain.set_style(style("{prefix:.bold} {bar:36.cyan/dim} {human_pos:>7}/{human_len} commits  {msg}"));
        Self { all, chain, peers: Vec::new() }
    }

    fn say(&self, line: &str) {
        // As for lines.
        let _ = self.all.println(line);
    }

    fn making(&mut self, commits: u32, of: u32) {
        self.chain.set_prefix("making ");
        self.chain.set_length(of.into());
        self.chain.set_position(commits.into());
    }

    fn show(&mut self, view: &View) {
        self.chain.set_prefix("syncing");
        self.chain.set_length(view.target.into());
        self.chain.set_position(view.height.into());
        let commits = HumanCount(view.commits_per_s as u64);
        self.chain.set_message(format!("{commits} commits/s  {}", rate(view.bytes_per_s)));
        for (position, peer) in view.peers.iter().enumerate() {
            if self.peers.len() <= position {
                let bar = self.all.add(ProgressBar::new(0));
                bar.set_prefix(peer.name.clone());
                bar.set_style(peer_style(peer.standing));
                self.peers.push((bar, peer.standing));
            }
            let Some((bar, standing)) = self.peers.get_mut(position) else { continue };
            if *standing != peer.standing {
                *standing = peer.standing;
                bar.set_style(peer_style(peer.standing));
            }
            bar.set_message(peer_message(peer));
        }
    }

    fn clear(&self) {
        for (bar, _) in &self.peers {
            bar.finish_and_clear();
        }
        self.chain.finish_and_clear();
    }
}

fn peer_message(peer: &PeerView) -> String {
    let served = HumanBytes(peer.served_bytes).to_string();
    format!("{:<8} {:>11}  {served:>11} in all", word(peer.standing), rate(peer.bytes_per_s))
}

fn peer_style(standing: Standing) -> ProgressStyle {
    style(match standing {
        Standing::Unmet => "  {prefix} {msg:.dim}",
        Standing::Good => "  {prefix} {msg:.green}",
        Standing::Slow | Standing::Silent => "  {prefix} {msg:.yellow}",
        Standing::Banned | Standing::Down => "  {prefix} {msg:.red}",
    })
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(standing: Standing) -> PeerView {
        PeerView { name: "peer 1".to_owned(), standing, bytes_per_s: 1_500_000.0, served_bytes: 9 }
    }

    #[test]
    fn a_template_is_none() {
        for standing in [
            Standing::Unmet,
            Standing::Good,
            Standing::Slow,
            Standing::Silent,
            Standing::Banned,
            Standing::Down,
        ] {
            let bar = ProgressBar::hidden();
            bar.set_style(peer_style(standing));
            bar.set_message(peer_message(&peer(standing)));
        }
        Bars::new();
    }

    #[test]
    fn a_plain_line_leaves_something_out() {
        let peers = vec![peer(Standing::Slow)];
        let view = View { height: 3, target: 9, commits_per_s: 2.0, bytes_per_s: 1_500_000.0, peers };
        assert_eq!(line(&view), "3/9 commits, 2 commits/s, 1.5 MB/s; peer 1 slow 1.5 MB/s");
    }

    #[test]
    fn lines_come_more_often_than_once_a_second() {
        let mut lines = Lines { json: true, next: None };
        let start = Instant::now();
        let due = [0, 10, 999, 1_000, 1_010, 3_000].map(|ms| lines.is_due(start + Duration::from_millis(ms)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
