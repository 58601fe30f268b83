use super::{value::Value, *};
use clap::Command;
use proptest::prelude::*;
use std::{collections::BTreeSet, fs};

/// What these flags set.
fn flags(arguments: &[&str]) -> Flags {
    use clap::{Args, FromArgMatches};
    let command = Flags::augment_args(Command::new("node").no_binary_name(true));
    Flags::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

/// A value other than the default for a setting, as it is typed.
fn other_value(setting: &Setting) -> String {
    let default = (setting.write)(&Settings::default()).unwrap_or_default();
    match setting.form {
        "N" => (default.parse::<u64>().unwrap() + 1).to_string(),
        "BYTES" => format!("{}B", u64::read(&[default.trim_matches('"').to_owned()]).unwrap() + 1),
        "DURATION" => "1234ms".to_owned(),
        "full|digest" => "digest".to_owned(),
        "INDEX:DIGEST" => format!("5:{}", "ab".repeat(32)),
        "PEER_ID@ADDR" => format!("{}@127.0.0.1:1", "ab".repeat(32)),
        "PEER_ID" => "ab".repeat(32),
        "ADDR" => "127.0.0.1:2".to_owned(),
        "PATH" => "a \"strange\"\\path".to_owned(),
        form => panic!("{form}"),
    }
}

fn written(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn refused(text: &str) -> String {
    let (_directory, path) = written("node.toml", text);
    let error = Settings::resolve(Some(&path), &Flags::default()).unwrap_err();
    assert!(error.is::<WrongUsage>(), "{error}");
    error.to_string()
}

#[test]
fn what_is_printed_says_something_else_or_a_setting_sets_nothing() {
    let mut all = Settings::default();
    for setting in TABLE {
        let mut settings = Settings::default();
        (setting.read)(&mut settings, &[other_value(setting)]).unwrap();
        assert_ne!(settings, Settings::default(), "{setting:?}");
        (setting.read)(&mut all, &[other_value(setting)]).unwrap();
        assert_ne!((setting.write)(&all), (setting.write)(&Settings::default()), "{setting:?}");
    }
    for settings in [Settings::default(), all] {
        let text = settings.print();
        let (_directory, path) = written("node.toml", &text);
        let mut again = Settings::default();
        for (setting, texts) in file::read(&path).unwrap() {
            (setting.read)(&mut again, &texts).unwrap();
        }
        assert_eq!(again, settings, "{text}");
        assert!(TABLE.iter().all(|setting| text.contains(&format!("{} =", setting.key))), "{text}");
    }
}

#[test]
fn a_field_of_a_configuration_cannot_be_set() {
    // The names at the first level of what is printed of a struct are its fields.
    let fields = |debug: String| -> BTreeSet<String> {
        let field = |line: &str| {
            let line = line.strip_prefix("    ").filter(|line| !line.starts_with([' ', '}', ')', ']']))?;
            Some(line.split_once(':')?.0.to_owned())
        };
        debug.lines().filter_map(field).collect()
    };
    let settings = Settings::default();
    let configurations = [
        ("sync", format!("{:#?}", settings.sync)),
        ("limits", format!("{:#?}", settings.sync.limits)),
        ("runtime", format!("{:#?}", settings.runtime)),
        ("quic", format!("{:#?}", settings.quic)),
        ("store_file", format!("{:#?}", settings.store_file)),
    ];
    for (section, debug) in configurations {
        let mut keys: BTreeSet<String> =
            TABLE.iter().filter(|s| s.section == section).map(|s| s.key.to_owned()).collect();
        match section {
            "sync" => drop(keys.insert("limits".to_owned())),
            "quic" => drop(keys.insert("allow".to_owned())),
            _ => {}
        }
        assert_eq!(keys, fields(debug), "{section}");
    }
}

#[test]
fn a_flag_is_overruled_by_the_file_or_the_file_by_a_default() {
    let (_directory, path) = written(
        "node.toml",
        "store = \"there\"\n[sync]\nmax_requests = 7\ntimeout = \"9s\"\n[quic]\nmax_streams = 5",
    );
    let settings =
        Settings::resolve(Some(&path), &flags(&["--max-requests", "8", "--verification", "digest"])).unwrap();
    assert_eq!(settings.store, Some("there".into()));
    assert_eq!(settings.sync.max_requests, 8);
    assert_eq!(settings.sync.timeout, std::time::Duration::from_secs(9));
    assert_eq!(settings.quic.max_streams, 5);
    assert_eq!(settings.sync.block_verification, soma_sync_core::config::BlockVerification::Digest);
}

#[test]
fn what_the_file_has_wrong_is_not_named_with_the_file_and_what_it_must_be() {
    for (text, said) in [
        ("nonsense = 1", "nonsense is unknown; `soma-sync node --print-config` shows"),
        ("[sync]\nnonsense = 1", "nonsense is unknown in [sync]; `soma-sync node"),
        ("[nonsense]\n", "[nonsense] is unknown; `soma-sync node"),
        ("max_requests = 1", "max_requests is unknown; it stands in [sync]"),
        ("[sync]\nstore = \"a\"", "store is unknown in [sync]; it stands above all tables"),
        ("[sync]\nmax_requests = 0", "sync.max_requests must be between 1 and 10,000"),
        ("[sync]\nmax_requests = -1", "sync.max_requests: must be a whole number, not \"-1\""),
        ("[sync]\ntimeout = 5", "sync.timeout: \"5\" has no unit; give ms or s"),
        ("[sync]\ntimeout = \"2h\"", "sync.timeout: \"h\" is no unit of time; give ms or s"),
        ("[sync]\ntimeout = \"0s\"", "sync.timeout must be between 1 ms and 1 h"),
        ("[sync]\ntimeout = true", "sync.timeout must be one string or whole number"),
        ("[limits]\nmax_block_bytes = \"1B\"", "limits.max_block_bytes must be between 1 KiB and 1 GiB"),
        ("[runtime]\nmailbox_capacity = 0", "runtime.mailbox_capacity must be between 1 and 100,000"),
        ("[runtime]\nmax_connections = 100001", "runtime.max_connections must be at most 100,000"),
        ("[quic]\nmax_connections = 100001", "quic.max_connections must be between 1 and 100,000"),
        ("peers = \"a@b\"", "peers must be a list of strings"),
        ("peers = [\"a@b\"]", "peers: \"b\" is no address; give IP:PORT"),
        ("listen = \"here\"", "listen: must be an address, IP:PORT, not \"here\""),
        ("\n[sync\n", "line 2 is no TOML: "),
    ] {
        let refused = refused(text);
        assert!(refused.contains("node.toml: ") && refused.contains(said), "{text}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}

#[test]
fn a_flag_out_of_bounds_is_named_as_something_else() {
    let error = Settings::resolve(None, &flags(&["--quic-max-streams", "0"])).unwrap_err();
    assert_eq!(error.to_string(), "--quic-max-streams must be between 1 and 10,000");
    // A default that another flag makes impossible.
    let error = Settings::resolve(None, &flags(&["--max-fetch-response-bytes", "64MiB"])).unwrap_err();
    assert!(error.to_string().starts_with("sync.max_buffered_bytes must be at least twice"), "{error}");
}

/// Pieces that files of configurations are made of, and some that they are not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "\n[",
        "]\n",
        " = ",
        "\"",
        "{",
        "}",
        "[[",
        "#",
        "-1",
        "1e9",
        "0x",
        "99999999999999999999",
        "MiB",
        "ms",
    ];
    let words = words.map(|word| word.as_bytes().to_vec());
    let names = TABLE.iter().map(|setting| setting.key.as_bytes().to_vec()).collect::<Vec<_>>();
    prop_oneof![
        proptest::sample::select(words.to_vec()),
        proptest::sample::select(names),
        proptest::collection::vec(any::<u8>(), 1..4)
    ]
}

proptest! {
    #[test]
    fn a_damaged_file_is_more_than_one_line_or_is_not_refused_as_wrong_usage(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..40usize, piece()), 1..5),
    ) {
        let mut text = Settings::default().print().into_bytes();
        for (at, removed, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.toml");
        fs::write(&path, &text).unwrap();
        match Settings::resolve(Some(&path), &Flags::default()) {
            // What was taken can be written down and read again.
            Ok(settings) => {
                fs::write(&path, settings.print()).unwrap();
                prop_assert_eq!(Settings::resolve(Some(&path), &Flags::default()).unwrap(), settings);
            }
            Err(error) => {
                let said = format!("{error:#}");
                prop_assert_eq!(said.lines().count(), 1, "{}", said);
                let no_text = std::str::from_utf8(&text).is_err();
                prop_assert!(error.is::<WrongUsage>() || no_text, "{}", said);
            }
        }
    }
}
