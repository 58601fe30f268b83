//! `soma-sync trace view`.

mod collect;
mod incidents;
mod requests;
mod series;
mod told;

use super::{Output, TraceFileArgument, ending, is_free, open, unreadable};
use crate::output::{about, print_result};
use anyhow::Result;
use collect::{Collected, Extent};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

const PAGE: &str = include_str!("view/page.html");
const STYLE: &str = include_str!("view/page.css");
const SCRIPTS: [&str; 3] =
    [include_str!("view/model.js"), include_str!("view/draw.js"), include_str!("view/page.js")];

/// Arguments of `trace view`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page is one file that loads nothing: heights and claims, throughput, buffered bytes against the budget, the window
ahead of the tip, and a lane per peer with its requests. Press ? in it for what it understands.

Example:
  soma-sync trace view node.trace --out node.html")]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: TraceFileArgument,
    /// Where the page is written.
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.file.path;
    is_free(&arguments.out)?;
    let extent = Extent::of(open(path)?).map_err(|error| unreadable(path, error))?;
    let mut reader = open(path)?;
    let collected = Collected::of(&mut reader, &extent).map_err(|error| unreadable(path, error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let header = reader.header();
    let tip = header.start.tip.reference.index.get();
    let data = json!({
        "file": name,
        "build": header.build,
        "chain": header.start.chain_id.to_string(),
        "start": tip,
        "started_unix_ms": header.started_unix_ms,
        "events": reader.events(),
        "commands": reader.commands(),
        "ending": ending(reader.ending()),
        "duration": extent.duration(),
        "budget": header.config.max_buffered_bytes,
        "replayed": collected.replayed(),
        "notes": collected.notes(&extent),
        "stored": collected.series.stored(),
        "bytes": collected.requests.bytes(),
        "counts": collected.incidents.counts(),
        "series": collected.series.json(),
        "stages": collected.series.stages_json(),
        "peers": collected.peers_json(),
        "requests": collected.requests.json(),
        "incidents": collected.incidents.json(),
    });
    let page = page(&data);
    fs::write(&arguments.out, &page)
        .map_err(|error| about(format_args!("cannot write {}", arguments.out.display()), error))?;
    let object = json!({
        "events": reader.events(),
        "requests": collected.requests.count(),
        "peers": collected.peers.len(),
        "replayed": collected.replayed(),
        "bytes": page.len(),
    });
    let text = format!(
        "{}: {} events, {} requests, {} peers, {} bytes",
        arguments.out.display(),
        reader.events(),
        collected.requests.count(),
        collected.peers.len(),
        page.len(),
    );
    print_result(arguments.output.json, &object, &text)
}

/// The page. What is put in last is what was recorded, so that nothing in it can pass for a place to fill.
fn page(data: &Value) -> String {
    PAGE.replacen("/*style*/", STYLE, 1).replacen("/*script*/", &SCRIPTS.concat(), 1).replacen(
        "/*data*/",
        &embedded(data),
        1,
    )
}

/// JSON that a script element can hold, whatever strings are in it: none can end the element or begin a comment.
fn embedded(data: &Value) -> String {
    let text = data.to_string();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_the_script_that_it_is_in_or_is_another_one_when_read() {
        let hostile = json!({ "build": "</script><script>alert(1)</script><!-- /*data*/ & \u{2028}" });
        let text = embedded(&hostile);
        assert!(["<", ">", "&", "\u{2028}"].iter().all(|part| !text.contains(part)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("still JSON"), hostile);
        let page = page(&hostile);
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(page.contains(&text), "the data is in it as it is");
    }

    #[test]
    fn the_page_loads_something() {
        let page = page(&json!({}));
        for load in ["http://", "https://", "src=", "@import", "url(", "fetch(", "import("] {
            assert!(!page.contains(load), "{load}");
        }
        assert!(page.contains("default-src 'none'"));
        assert!(["/*style*/", "/*script*/", "/*data*/"].iter().all(|place| !page.contains(place)));
    }
}
