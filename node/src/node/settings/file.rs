//! The configuration file.

use super::{Setting, table::TABLE};
use crate::{cli::WrongUsage, output::about};
use anyhow::Result;
use std::{fs::File, io::Read, path::Path};

/// No configuration is as long as this.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the file sets, as text. A key that is none, or a value of a kind that no setting has, is wrong usage.
pub(super) fn read(path: &Path) -> Result<Vec<(&'static Setting, Vec<String>)>> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| about(format_args!("cannot read {}", path.display()), error))?;
    if text.len() as u64 == BYTES_MAX {
        return Err(WrongUsage(format!("{} is too long for a configuration", path.display())).into());
    }
    parse(&text).map_err(|reason| WrongUsage(format!("{}: {reason}", path.display())).into())
}

fn parse(text: &str) -> Result<Vec<(&'static Setting, Vec<String>)>, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line} is no TOML: {}", error.message().replace('\n', " "))
    })?;
    let mut found = Vec::new();
    for (key, value) in &table {
        match value {
            toml::Value::Table(entries) => {
                if !TABLE.iter().any(|setting| setting.section == key) {
                    return Err(format!(
                        "[{key}] is unknown; `soma-sync node --print-config` shows all there are"
                    ));
                }
                for (inner, value) in entries {
                    found.push(entry(key, inner, value)?);
                }
            }
            value => found.push(entry("", key, value)?),
        }
    }
    Ok(found)
}

fn entry(section: &str, key: &str, value: &toml::Value) -> Result<(&'static Setting, Vec<String>), String> {
    let setting = TABLE.iter().find(|setting| setting.section == section && setting.key == key);
    let Some(setting) = setting else { return Err(unknown(section, key)) };
    let texts = match value {
        toml::Value::Array(values) if setting.many => values.iter().map(scalar).collect(),
        value if !setting.many => scalar(value).map(|text| vec![text]),
        _ => None,
    };
    let kind = if setting.many { "a list of strings" } else { "one string or whole number" };
    texts.map(|texts| (setting, texts)).ok_or_else(|| format!("{} must be {kind}", setting.path()))
}

fn unknown(section: &str, key: &str) -> String {
    let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    match TABLE.iter().find(|setting| setting.key == key) {
        Some(known) if known.section.is_empty() => {
            format!("{key} is unknown{place}; it stands above all tables")
        }
        Some(known) => format!("{key} is unknown{place}; it stands in [{}]", known.section),
        None => format!("{key} is unknown{place}; `soma-sync node --print-config` shows all there are"),
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}
