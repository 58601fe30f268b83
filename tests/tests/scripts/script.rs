//! A script as a file: lines to play, remarks that are kept, and what is printed below each line.

use crate::stage::Stage;

/// A script that was read.
pub(crate) struct Script {
    name: String,
    items: Vec<Item>,
}

enum Item {
    /// A remark or an empty line, kept as it is.
    Remark(String),
    Step(Step),
}

/// A line to play.
struct Step {
    /// Its number in the file, from 1.
    number: usize,
    line: String,
    /// What the file says is printed.
    expected: Vec<String>,
    /// What was printed.
    printed: Vec<String>,
}

/// A script that was played.
pub(crate) struct Played {
    script: Script,
    /// The line that makes no sense, where there is one: it and what comes after it was not played.
    error: Option<String>,
}

impl Script {
    /// Reads a script; `name` is for errors.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let number = at + 1;
            if let Some(step) = line.strip_prefix("> ") {
                let line = step.trim().to_owned();
                items.push(Item::Step(Step { number, line, expected: Vec::new(), printed: Vec::new() }));
            } else if let Some(printed) = line.strip_prefix("  ") {
                match items.last_mut() {
                    Some(Item::Step(step)) => step.expected.push(printed.to_owned()),
                    Some(Item::Remark(_)) | None => {
                        return Err(format!("{name}:{number}: '{printed}' is printed below no line"));
                    }
                }
            } else if line.is_empty() || line.starts_with('#') {
                items.push(Item::Remark(line.to_owned()));
            } else {
                return Err(format!("{name}:{number}: a line begins with '>', '#' or two spaces"));
            }
        }
        Ok(Self { name: name.to_owned(), items })
    }

    /// Plays it, up to the line that makes no sense if there is one.
    pub(crate) fn play(mut self) -> Played {
        let mut stage = Stage::default();
        let mut error = None;
        for item in &mut self.items {
            let Item::Step(step) = item else { continue };
            match error.is_none().then(|| stage.step(&step.line)) {
                Some(Ok(printed)) => step.printed = printed,
                Some(Err(why)) => {
                    error = Some(format!("{}:{}: > {}: {why}", self.name, step.number, step.line));
                    step.printed = step.expected.clone();
                }
                None => step.printed = step.expected.clone(),
            }
        }
        Played { script: self, error }
    }
}

impl Played {
    /// The script with what was printed.
    pub(crate) fn text(&self) -> String {
        let mut lines = Vec::new();
        for item in &self.script.items {
            match item {
                Item::Remark(remark) => lines.push(remark.clone()),
                Item::Step(step) => {
                    lines.push(format!("> {}", step.line));
                    lines.extend(step.printed.iter().map(|printed| format!("  {printed}")));
                }
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// Whether all of it made sense.
    pub(crate) fn finished(&self) -> Result<(), String> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// Whether what was printed is what the script says; the error shows the first difference.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let steps = self.script.items.iter().filter_map(|item| match item {
            Item::Step(step) => Some(step),
            Item::Remark(_) => None,
        });
        match steps.clone().find(|step| step.expected != step.printed) {
            Some(step) => Err(step.difference(&self.script.name)),
            None => self.finished(),
        }
    }
}

impl Step {
    /// What was expected and what was printed, with what is common to both around it.
    fn difference(&self, name: &str) -> String {
        let (expected, printed) = (&self.expected, &self.printed);
        let before = expected.iter().zip(printed).take_while(|(a, b)| a == b).count();
        let rest = expected.len().min(printed.len()) - before;
        let pairs = expected.iter().rev().zip(printed.iter().rev()).take(rest);
        let after = pairs.take_while(|(a, b)| a == b).count();
        let mut lines = vec![format!("{name}:{}: > {}", self.number, self.line)];
        let mut show = |mark: &str, part: &[String]| {
            lines.extend(part.iter().map(|line| format!("{mark}   {line}")));
        };
        show(" ", &expected[..before]);
        show("-", &expected[before..expected.len() - after]);
        show("+", &printed[before..printed.len() - after]);
        show(" ", &expected[expected.len() - after..]);
        lines.join("\n")
    }
}
