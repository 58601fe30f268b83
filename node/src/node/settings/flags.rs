//! A flag for everything that can be set.

use super::{Setting, Settings, table::TABLE};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// What the flags set, as text.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Flags(Vec<(&'static Setting, Vec<String>)>);

impl Flags {
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static Setting, &[String])> {
        self.0.iter().map(|(setting, texts)| (*setting, &**texts))
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = TABLE.iter().filter_map(|setting| {
            let texts = matches.get_many::<String>(setting.flag)?;
            Some((setting, texts.cloned().collect()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let defaults = Settings::default();
        command.args(TABLE.iter().map(|setting| flag(setting, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting, defaults: &Settings) -> Arg {
    let default = (setting.write)(defaults).filter(|_| !setting.many);
    let default =
        default.map(|default| format!(" [default: {}]", default.trim_matches('"'))).unwrap_or_default();
    let check = |text: &str| {
        (setting.read)(&mut Settings::default(), &[text.to_owned()])?;
        Ok::<_, String>(text.to_owned())
    };
    let flag = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.form)
        .help(format!("{}{default}", setting.about.trim()))
        .value_parser(check)
        .action(if setting.many { ArgAction::Append } else { ArgAction::Set });
    let flag = if setting.key == "block_verification" { flag.visible_alias("verification") } else { flag };
    match setting.section {
        "" => flag,
        // The short help has what everybody needs.
        section => flag.hide_short_help(true).help_heading(section),
    }
}
