//! What to do, in a line that can be given to a shell.
//!
//! Interfaces and namespaces are called what somebody called them, perhaps in a container. So names come
//! into a line in one way only, and are quoted on it.

use std::{borrow::Cow, fmt};

use serde::{Serialize, Serializer};

/// A line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The command, or a comment where there is none.
    pub command: String,
    /// What is to be known of it.
    pub remark: Option<&'static str>,
}

impl From<&'static str> for Remedy {
    fn from(line: &'static str) -> Self {
        Self { command: line.to_owned(), remark: None }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remark {
            Some(remark) => write!(f, "{} # {remark}", self.command),
            None => f.write_str(&self.command),
        }
    }
}

impl Serialize for Remedy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Remedy {
    /// A line with a name in place of each `{}`.
    pub fn line(line: &'static str, names: &[&str]) -> Self {
        let mut parts = line.split("{}");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for (part, name) in parts.zip(names) {
            filled.push_str(&quoted(name));
            filled.push_str(part);
        }
        Self { command: filled, remark: None }
    }

    /// This, and right behind it the rest of the line.
    #[must_use]
    pub fn with(mut self, rest: impl Into<Self>) -> Self {
        let rest = rest.into();
        self.command.push_str(&rest.command);
        self.remark = rest.remark.or(self.remark);
        self
    }

    /// This with a remark, as the shell passes it over. No name is in it: one with a line break would
    /// go on as a command.
    #[must_use]
    pub fn remark(mut self, remark: &'static str) -> Self {
        self.remark = Some(remark);
        self
    }
}

/// A name as a shell takes it. None has the NUL that could not be quoted.
fn quoted(name: &str) -> Cow<'_, str> {
    shlex::try_quote(name).unwrap_or(Cow::Borrowed("''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word() {
        let line = |name: &str| Remedy::line("ip link set {} up; {}", &[name, name]).to_string();
        assert_eq!(line("br0.5"), "ip link set br0.5 up; br0.5");
        assert_eq!(line(";reboot"), "ip link set ';reboot' up; ';reboot'");
        assert_eq!(line("$(id)"), "ip link set '$(id)' up; '$(id)'");
        assert_eq!(line("{}"), "ip link set '{}' up; '{}'");
        assert_eq!(line("it's"), r#"ip link set "it's" up; "it's""#);
    }

    #[test]
    fn a_remark_is_behind_all_of_the_command() {
        let line = Remedy::from("sh").remark("or another").with(Remedy::line(" {}", &["a b"]));
        assert_eq!(line.to_string(), "sh 'a b' # or another");
        assert_eq!(serde_json::to_string(&line).unwrap(), "\"sh 'a b' # or another\"");
    }
}
