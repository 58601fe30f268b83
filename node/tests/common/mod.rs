//! What the end-to-end tests have in common: a directory to work in, the real program in it, running nodes.

// Each test program uses some of it.
#![allow(dead_code, unreachable_pub)]

pub mod part;
pub mod running;

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A directory of its own for the program to work in.
pub struct Bench(TempDir);

impl Bench {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("the directory can be written to");
    }

    /// Names of all that is in the directory.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the directory is there");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_soma-sync"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path());
        command
    }

    pub fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Runs a command that succeeds, and gives the JSON object that it ends with.
    pub fn json(&self, arguments: &str) -> Value {
        let output = self.run(&format!("{arguments} --json"));
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", stderr(&output));
        last_line_json(&output)
    }

    /// Runs a command that fails, and gives what it says.
    pub fn failure(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
        let said = stderr(&output);
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
        said
    }

    /// What `chain verify` says of something bad: the result, and the first error.
    pub fn verify_bad(&self, what: &str) -> (Value, String) {
        let output = self.run(&format!("chain verify {what} --json"));
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        let result = last_line_json(&output);
        assert_eq!(result["ok"], false);
        let first_error = result["first_error"].as_str().expect("an error").to_owned();
        assert!(stderr(&output).contains(&first_error));
        (result, first_error)
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn last_line_json(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let line = text.lines().last().expect("there is a line on stdout");
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The vectors' directory, from `SOMA_SYNC_VECTORS` or beside the workspace.
pub fn vectors() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let directory = std::env::var_os("SOMA_SYNC_VECTORS").map_or_else(beside, PathBuf::from);
    if directory.join("chain.bin").exists() {
        return Some(directory);
    }
    assert!(std::env::var_os("CI").is_none(), "the vectors are not at {}", directory.display());
    println!("not run: the vectors are not at {}", directory.display());
    None
}
