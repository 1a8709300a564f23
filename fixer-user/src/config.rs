//! The configuration file: the options of `fixer run`, under the names that they have there.
//!
//! There is no second list of options. What the file says becomes arguments, which the parser of the
//! command line reads; an option that the command line gives as well is not taken from the file.

use std::{
    any::TypeId,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory as _, Parser as _, parser::ValueSource,
};
use toml::de::{DeTable, DeValue};

use crate::cli::Cli;

/// The verb whose options the file knows. Other verbs take of them what they have too.
const VERB: &str = "run";

/// What only the command line can say.
const NOT_HERE: [&str; 4] = ["config", "help", "version", "verbose"];

/// Which interfaces: said in one of these on the command line, it is said there alone.
const WHICH: [&str; 2] = ["interfaces", "auto"];

/// How alike two names must be for one to be a slip of the other.
const ALIKE: f64 = 0.7;

/// The command line or the configuration file makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Mistake {
    /// The command line.
    #[error("{}", one_line(.0))]
    Usage(#[from] clap::Error),
    /// The file could not be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the file.
    #[error("{} line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        what: String,
    },
}

impl Mistake {
    /// Says so, and ends the process: with 0 if help was asked for, else with 2.
    pub fn exit(&self) -> ! {
        if let Self::Usage(error) = self {
            error.exit();
        }
        crate::say::say(self);
        std::process::exit(2)
    }
}

/// Reads a command line, and the file that it names.
pub fn read(mut arguments: Vec<OsString>) -> Result<Cli, Mistake> {
    let mut command = Cli::command();
    command.build();
    let matches = command.clone().try_get_matches_from(&arguments)?;
    if let Some((verb, given)) = matches.subcommand()
        && let Ok(Some(path)) = given.try_get_one::<PathBuf>("config")
        && let (Some(verb), Some(known)) =
            (command.find_subcommand(verb), command.find_subcommand(VERB))
    {
        arguments.extend(File { path, verb, known, given }.arguments()?);
    }
    let cli = Cli::try_parse_from(arguments)?;
    cli.check()?;
    Ok(cli)
}

struct File<'a> {
    path: &'a Path,
    /// The verb that reads it.
    verb: &'a Command,
    /// The verb whose options it may hold.
    known: &'a Command,
    /// What the command line gave.
    given: &'a ArgMatches,
}

impl File<'_> {
    fn arguments(&self) -> Result<Vec<OsString>, Mistake> {
        let path = self.path.to_owned();
        let text = text(self.path).map_err(|source| Mistake::Read { path, source })?;
        let mistake = |at: usize, what| Mistake::Line {
            path: self.path.to_owned(),
            line: text[..at].matches('\n').count() + 1,
            what,
        };
        let table = DeTable::parse(&text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            mistake(at, error.message().replace('\n', ", "))
        })?;
        let mut arguments = Vec::new();
        for (key, value) in table.into_inner() {
            let at = key.span().start;
            let option = self.option(key.as_ref()).map_err(|what| mistake(at, what))?;
            let words = words(option, value.get_ref()).map_err(|what| mistake(at, what))?;
            // Tried alone, so that it is known which line is wrong.
            let alone = Command::new("").no_binary_name(true).arg(option.clone().required(false));
            alone.try_get_matches_from(&words).map_err(|error| mistake(at, one_line(&error)))?;
            if self.is_wanted(option) {
                arguments.extend(words.into_iter().map(OsString::from));
            }
        }
        Ok(arguments)
    }

    fn option(&self, key: &str) -> Result<&Arg, String> {
        let options = || {
            let names = self.known.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
            names.filter(|(name, _)| !NOT_HERE.contains(name))
        };
        if let Some((_, option)) = options().find(|(name, _)| *name == key) {
            return Ok(option);
        }
        let likeness = |name: &str| strsim::jaro_winkler(name, &key.replace('_', "-"));
        let nearest = options()
            .map(|(name, _)| (likeness(name), name))
            .filter(|(likeness, _)| *likeness > ALIKE)
            .max_by(|(one, _), (other, _)| one.total_cmp(other));
        Err(match nearest {
            Some((_, name)) => format!("there is no option '{key}'; is '{name}' meant?"),
            None => {
                let names: Vec<_> = options().map(|(name, _)| name).collect();
                format!("there is no option '{key}'; there are {}", names.join(", "))
            }
        })
    }

    /// Whether the verb has this option, and the command line has left it to the file.
    fn is_wanted(&self, option: &Arg) -> bool {
        let id = option.get_id().as_str();
        let is_given = |id: &str| self.given.value_source(id) == Some(ValueSource::CommandLine);
        let is_elsewhere = WHICH.contains(&id) && WHICH.into_iter().any(is_given);
        self.verb.get_arguments().any(|arg| arg.get_id() == id) && !is_given(id) && !is_elsewhere
    }
}

/// What is in a file. A pipe would be waited for, with a reload for as long as nobody writes to it.
fn text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.is_file() {
        fs::read_to_string(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

/// An option and its value as the command line would have them.
fn words(option: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let name = option.get_long().unwrap_or_default();
    let is_number = option.get_value_parser().type_id() == TypeId::of::<u64>();
    let word = |value: &DeValue<'_>| match value {
        DeValue::Integer(number) if is_number => Some(format!("--{name}={number}")),
        value => value.as_str().map(|value| format!("--{name}={value}")),
    };
    let words = match (option.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Some(vec![format!("--{name}")]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Some(Vec::new()),
        (ArgAction::SetTrue, _) => None,
        (ArgAction::Append, DeValue::Array(values)) => {
            values.iter().map(|value| word(value.get_ref())).collect()
        }
        _ => word(value).map(|word| vec![word]),
    };
    words.ok_or_else(|| match option.get_action() {
        ArgAction::SetTrue => format!("'{name}' is true or false"),
        ArgAction::Append => format!("'{name}' is a text in quotes, or a list of them in brackets"),
        _ if is_number => format!("'{name}' is a number"),
        _ => format!("'{name}' is a text in quotes"),
    })
}

/// What the parser of the command line has to say, without what it says about usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let about = text.split("\n\nUsage").next().unwrap_or_default();
    let about = about.split("\n\nFor more").next().unwrap_or_default();
    let words: Vec<_> = about.split_whitespace().collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::cli::{Hooks, Run, Verb};

    fn read_with(text: &str, arguments: &[&str]) -> Result<Run, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fixer.toml");
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        let file = ["fixer", "run", "--config", path.to_str().unwrap()];
        let all = file.iter().chain(arguments).map(OsString::from).collect();
        match read(all) {
            Ok(Cli { verb: Verb::Run(run), .. }) => Ok(run),
            Ok(_) => Err("another verb".to_owned()),
            Err(mistake) => Err(mistake.to_string().replace(path.to_str().unwrap(), "FILE")),
        }
    }

    #[test]
    fn every_option_has_its_name_in_the_file() {
        let text = "interface = ['virbr0', 'br-*']\nauto = true\nnetns = ['blue', 'qdhcp-*']\nhook = 'both'\n\
                    match = ['dhcp', 'udp:69:*']\nobserve-only = true\nevents = 'json'\nall = true\n\
                    pcapng = '/tmp/x'\nmetrics = 'off'\nattach-mode = 'tcx'\nskip-selftest = false\n\
                    user = 'nobody'\nexchange-timeout = 10\notlp-interval = 60\n\
                    otlp = 'http://[::1]:4318'\n";
        let understood = read_with(text, &[]);
        let without = text.replace("otlp = ", "# otlp = ");
        // Only a fixer that can push takes the last line.
        let run = if cfg!(feature = "otlp") {
            understood.unwrap()
        } else {
            let mistake = understood.unwrap_err();
            assert!(
                mistake.contains("FILE line 16: ") && mistake.contains("feature otlp"),
                "{mistake}"
            );
            read_with(&without, &[]).unwrap()
        };
        assert_eq!(run.select.interfaces.len(), 2);
        assert!(
            run.select.auto && run.what.observe_only && run.output.all && !run.what.skip_selftest
        );
        assert_eq!((run.what.hook, run.what.rules.len()), (Hooks::Both, 2));
        assert_eq!((run.select.netns.len(), run.select.globs().count()), (2, 1));
        assert_eq!((run.metrics.0, run.user.as_deref()), (None, Some("nobody")));
        assert_eq!((run.exchange_timeout, run.otlp_interval), (10, 60));
        assert_eq!(run.otlp.is_some(), cfg!(feature = "otlp"));
        let mut run = Cli::command();
        run.build();
        for option in run.find_subcommand(VERB).unwrap().get_arguments() {
            let name = option.get_long().unwrap();
            assert!(text.contains(&format!("{name} =")) || NOT_HERE.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_command_line_wins() {
        let text = "interface = 'virbr0'\nhook = 'both'\n";
        let run = read_with(text, &["-i", "br7", "--hook", "egress"]).unwrap();
        let given: Vec<_> = run.select.interfaces.iter().map(|pattern| pattern.given()).collect();
        assert_eq!((given, run.what.hook), (vec!["br7"], Hooks::Egress));
        let which = |arguments: &[&str]| {
            let run = read_with("interface = 'virbr0'\nauto = true\n", arguments).unwrap();
            (run.select.interfaces.len(), run.select.auto)
        };
        assert_eq!(which(&[]), (1, true));
        assert_eq!(which(&["-i", "br7", "-i", "br8"]), (2, false));
        assert_eq!(which(&["--auto"]), (0, true));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, words) in [
            (
                "auto = true\nintreface = 'x'\n",
                "FILE line 2: there is no option 'intreface'; is 'interface' meant?",
            ),
            (
                "observe_only = true",
                "FILE line 1: there is no option 'observe_only'; is 'observe-only' meant?",
            ),
            ("zzz = 1", "FILE line 1: there is no option 'zzz'; there are interface, auto,"),
            ("config = 'x'", "there is no option 'config'"),
            (
                "\n\nhook = 'sideways'",
                "FILE line 3: invalid value 'sideways' for '--hook <HOOK>' [possible values: egress,",
            ),
            ("match = ['dhcp', 'udp:0:1']", "'0' is no port"),
            ("metrics = 9767", "FILE line 1: 'metrics' is a text in quotes"),
            ("auto = 'yes'", "FILE line 1: 'auto' is true or false"),
            ("netns = 'qdhcp-['", "FILE line 1: invalid value 'qdhcp-[' for '--netns"),
            ("interface = [1]", "'interface' is a text in quotes, or a list"),
            ("interface = 'a'\ninterface = 'b'", "FILE line 2: duplicate key"),
            ("[run]\nauto = true", "FILE line 1: there is no option 'run'"),
            ("hook = 'both'", "no interface is selected"),
            ("interface = 'br0\n", "FILE line 1: "),
        ] {
            let mistake = read_with(text, &[]).unwrap_err();
            assert!(mistake.contains(words), "'{words}' is not in: {mistake}");
            assert!(!mistake.contains('\n'), "{mistake}");
        }
    }
}
