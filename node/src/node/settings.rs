//! The configuration of a node: what flags and the configuration file say, over the defaults.

mod file;
mod flags;
mod table;
#[cfg(test)]
mod tests;
mod value;

pub(super) use flags::Flags;

use super::arguments::{Peer, parse_peer, parse_peer_id};
use crate::cli::WrongUsage;
use anyhow::Result;
use soma_sync_core::Config;
use soma_sync_runtime_tokio::{config::RuntimeConfig, store::RedbOptions};
use soma_sync_transport_quic::QuicConfig;
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use table::TABLE;

/// Everything about a node that can be set, in flags and in the file alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) store: Option<PathBuf>,
    pub(super) genesis: Option<PathBuf>,
    pub(super) identity: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) peers: Vec<Peer>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) store_file: RedbOptions,
    pub(super) sync: Config,
    pub(super) runtime: RuntimeConfig,
    pub(super) quic: QuicConfig,
}

/// One thing that can be set.
pub(super) struct Setting {
    /// Its table in the file; none of them is named `""`.
    section: &'static str,
    /// Its key there.
    key: &'static str,
    /// Its flag, without dashes.
    flag: &'static str,
    /// What it is: unit, bounds, trade-off.
    about: &'static str,
    /// What stands for its value.
    form: &'static str,
    /// Whether it is a list.
    many: bool,
    read: fn(&mut Settings, &[String]) -> Result<(), String>,
    write: fn(&Settings) -> Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
enum Source {
    Flag,
    File(PathBuf),
}

impl Setting {
    /// How it is called where it was set.
    fn named(&self, source: Option<&Source>) -> String {
        match source {
            Some(Source::Flag) => format!("--{}", self.flag),
            Some(Source::File(path)) => format!("{}: {}", path.display(), self.path()),
            None => self.path(),
        }
    }

    /// Section and key.
    fn path(&self) -> String {
        if self.section.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.section, self.key) }
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path())
    }
}

impl Settings {
    /// The defaults, changed by the file and then by the flags. What cannot work is wrong usage.
    pub(super) fn resolve(file: Option<&Path>, flags: &Flags) -> Result<Self> {
        let (mut settings, mut sources) = (Self::default(), BTreeMap::new());
        if let Some(path) = file {
            for (setting, texts) in file::read(path)? {
                settings.set(setting, &texts, Source::File(path.to_owned()), &mut sources)?;
            }
        }
        for (setting, texts) in flags.given() {
            settings.set(setting, texts, Source::Flag, &mut sources)?;
        }
        settings.validate(&sources)?;
        Ok(settings)
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        texts: &[String],
        source: Source,
        sources: &mut BTreeMap<String, Source>,
    ) -> Result<()> {
        (setting.read)(self, texts)
            .map_err(|reason| WrongUsage(format!("{}: {reason}", setting.named(Some(&source)))))?;
        sources.insert(setting.path(), source);
        Ok(())
    }

    /// That everything can work, alone and together.
    fn validate(&self, sources: &BTreeMap<String, Source>) -> Result<()> {
        let wrong = |sections: &[&str], field: &str, requirement: &str| {
            let setting =
                TABLE.iter().find(|setting| sections.contains(&setting.section) && setting.key == field);
            let name = setting
                .map_or_else(|| field.to_owned(), |setting| setting.named(sources.get(&setting.path())));
            WrongUsage(format!("{name} must be {requirement}"))
        };
        self.sync.validate().map_err(|error| wrong(&["sync", "limits"], error.field, error.requirement))?;
        self.runtime.validate().map_err(|error| wrong(&["runtime"], error.field, error.requirement))?;
        self.quic.validate().map_err(|error| wrong(&["quic"], error.field, error.requirement))?;
        Ok(())
    }

    /// The whole configuration as a file that says the same.
    pub(super) fn print(&self) -> String {
        let mut text =
            "# The configuration of `soma-sync node`. Each key has a flag, and flags win.\n".to_owned();
        let (mut section, defaults) = ("", Self::default());
        for setting in TABLE {
            if setting.section != section {
                section = setting.section;
                // Writing to a string does not fail.
                let _ = write!(text, "\n[{section}]\n");
            }
            let _ = writeln!(text, "\n{}", comment(setting.about));
            let (value, default) = ((setting.write)(self), (setting.write)(&defaults));
            let default = default.map(|default| format!("; default {default}")).unwrap_or_default();
            let _ = writeln!(text, "# --{} {}{default}", setting.flag, setting.form);
            let _ = match value {
                Some(value) => writeln!(text, "{} = {value}", setting.key),
                None => writeln!(text, "# {} =", setting.key),
            };
        }
        text
    }
}

/// Text as comment lines of at most 110 columns.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < 109 => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(format!("# {word}")),
        }
    }
    lines.join("\n")
}
