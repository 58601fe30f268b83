//! A process that this one starts, and asks how it is: a line there, a line of JSON back.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    env,
    io::{BufRead, BufReader, Lines, Write, stdin, stdout},
    process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running process. It ends when its input does.
pub(crate) struct Child {
    process: Process,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts this program with the same arguments and these. It says its first line when it is ready.
    pub(crate) fn start(more: &[&str]) -> Result<(Self, Value)> {
        let program = env::current_exe().context("cannot tell which program this is")?;
        let mut process = Command::new(program)
            .args(env::args_os().skip(1))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("a process has no output")?;
        let mut child = Self { process, input, output: BufReader::new(output).lines() };
        let first = child.line()?;
        Ok((child, first))
    }

    fn line(&mut self) -> Result<Value> {
        let line = self.output.next().context("a process ended")?.context("cannot hear of a process")?;
        serde_json::from_str(&line).context("a process does not speak JSON")
    }

    /// How it is.
    pub(crate) fn ask(&mut self) -> Result<Value> {
        let input = self.input.as_mut().context("it is being stopped")?;
        writeln!(input).and_then(|()| input.flush()).context("cannot ask a process")?;
        self.line()
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.input = None;
        let status = self.process.wait().context("a process does not end")?;
        ensure!(status.success(), "a process failed: {status}");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Most often it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other end: says `ready`, then what `answer` gives for each line that comes, until no more come.
pub(crate) fn serve(ready: &Value, mut answer: impl FnMut() -> Result<Value>) -> Result<()> {
    let say = |value: &Value| {
        let mut stdout = stdout();
        writeln!(stdout, "{value}").and_then(|()| stdout.flush()).context("cannot write to stdout")
    };
    say(ready)?;
    for line in stdin().lines() {
        line.context("cannot read from stdin")?;
        say(&answer()?)?;
    }
    Ok(())
}
