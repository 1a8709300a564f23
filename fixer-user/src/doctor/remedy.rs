//! What to do, in a line that can be given to a shell.
//!
//! Interfaces and namespaces are called what somebody called them, perhaps in a container. So names come
//! into a line in one way only, and are quoted on it.

use std::borrow::Cow;

use serde::Serialize;

/// A line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Remedy(String);

impl From<&'static str> for Remedy {
    fn from(line: &'static str) -> Self {
        Self(line.to_owned())
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
        Self(filled)
    }

    /// This, and right behind it the rest of the line.
    #[must_use]
    pub fn with(mut self, rest: impl Into<Self>) -> Self {
        self.0.push_str(&rest.into().0);
        self
    }

    /// This with a remark, as the shell passes it over. No name is in it: one with a line break would
    /// go on as a command.
    #[must_use]
    pub fn remark(mut self, remark: &'static str) -> Self {
        self.0.push_str(" # ");
        self.0.push_str(remark);
        self
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
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
        let line = |name: &str| Remedy::line("ip link set {} up ({})", &[name, name]);
        assert_eq!(line("br0.5").as_str(), "ip link set br0.5 up (br0.5)");
        assert_eq!(line(";reboot").as_str(), "ip link set ';reboot' up (';reboot')");
        assert_eq!(line("$(id)").as_str(), "ip link set '$(id)' up ('$(id)')");
        assert_eq!(line("{}").as_str(), "ip link set '{}' up ('{}')");
        assert_eq!(line("it's").as_str(), r#"ip link set "it's" up ("it's")"#);
    }
}
