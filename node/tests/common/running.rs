//! A program that runs beside the test: what it says is read as it comes, and it is killed when it is dropped.

use super::Bench;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

/// A running program.
pub struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What it said on stderr so far.
    said: Vec<String>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Lines on stdout that were not taken before.
    pub stdout: Vec<String>,
    /// All of stderr.
    pub stderr: String,
}

impl Ended {
    /// The JSON object that it ended with.
    pub fn json(&self) -> Value {
        let line = self.stdout.last().unwrap_or_else(|| panic!("nothing on stdout: {}", self.stderr));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }
}

impl Running {
    /// Starts the program, with the log that shows what it stores.
    pub fn start(bench: &Bench, arguments: &str) -> Self {
        Self::spawn(bench.command(arguments).env("RUST_LOG", "warn,soma_sync::node=debug"))
    }

    /// Starts this command.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let stdout = lines(child.stdout.take().expect("it is piped"));
        let stderr = lines(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr, said: Vec::new() }
    }

    /// A node that serves the store `store`, and where it can be reached, as `--peer` takes it.
    pub fn serve(bench: &Bench, store: &str, more: &str) -> (Self, String) {
        let mut node = Self::start(bench, &format!("node --store {store} --listen 127.0.0.1:0 {more}"));
        let address = node.listening();
        (node, address)
    }

    /// `PEER_ID@ADDR`, from the first line on stdout.
    pub fn listening(&mut self) -> String {
        let Ok(line) = self.stdout.recv() else {
            let said: Vec<_> = self.stderr.iter().collect();
            panic!("it ended before it listened: {said:?}")
        };
        line.strip_prefix("listening ").unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    /// Waits until it says a line on stderr of which `find` makes something.
    pub fn hear<R>(&mut self, find: impl Fn(&str) -> Option<R>) -> R {
        loop {
            let Ok(line) = self.stderr.recv() else { panic!("it ended without saying it: {:#?}", self.said) };
            let found = find(&line);
            self.said.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Waits until it has stored a commit of `index` or above, and says which. `None` where it ended before.
    pub fn stored(&mut self, index: u64) -> Option<u64> {
        while let Ok(line) = self.stderr.recv() {
            let through = stored_through(&line);
            self.said.push(line);
            if through.is_some_and(|through| through >= index) {
                return through;
            }
        }
        None
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let status = self.child.wait().expect("it is our child");
        self.said.extend(self.stderr.iter());
        Ended { code: status.code(), stdout: self.stdout.iter().collect(), stderr: self.said.join("\n") }
    }

    /// Waits for its end, which must be a good one, and gives the JSON object that it ended with.
    pub fn done(self) -> Value {
        let ended = self.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.json()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last commit that this line of the log says is stored.
fn stored_through(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("stored through commit ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Lines as they come. Read to the end whatever happens, so that nobody waits to write.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // The test may not listen any more.
            let _ = sender.send(line);
        }
    });
    lines
}
