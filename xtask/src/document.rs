//! Puts what a verb printed into the documents that explain it, between marks.

use anyhow::{Context, Result};
use xshell::Shell;

/// A place in a document.
pub(crate) struct Place<'a> {
    /// The document, from the root of the repository.
    pub(crate) document: &'a str,
    /// The verb that fills it.
    pub(crate) verb: &'a str,
    /// Which of its places it is.
    pub(crate) name: &'a str,
}

impl Place<'_> {
    /// What stands before and behind it.
    fn marks(&self) -> (String, String) {
        let Self { verb, name, .. } = self;
        (format!("<!-- {verb}: {name} -->\n"), format!("<!-- end of {name} -->"))
    }

    fn replaced(&self, text: &str, new: &str) -> Option<String> {
        let (begin, end) = self.marks();
        let (before, rest) = text.split_once(&begin)?;
        let (_, behind) = rest.split_once(&end)?;
        Some(format!("{before}{begin}\n{}\n\n{end}{behind}", new.trim_end()))
    }
}

/// Replaces what is at these places.
pub(crate) fn write(sh: &Shell, places: &[(Place<'_>, String)]) -> Result<()> {
    for (place, new) in places {
        let Place { document, verb, name } = place;
        let path = sh.current_dir().join(document);
        let text = place
            .replaced(&sh.read_file(&path)?, new)
            .with_context(|| format!("{document} has no marks for '{verb}: {name}'"))?;
        sh.write_file(path, text)?;
    }
    Ok(())
}

/// A text as a block of code in Markdown.
pub(crate) fn code(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = "Cost.\n\n<!-- bench: felt -->\n\n| old |\n\n<!-- end of felt -->\n\nMore.\n";
        let place = |name: &'static str| Place { document: "README.md", verb: "bench", name };
        let replaced = place("felt").replaced(text, "| new |\n").unwrap();
        assert_eq!(replaced, text.replace("old", "new"));
        assert_eq!(place("exact").replaced(text, "| new |\n"), None);
    }

    #[test]
    fn code_has_no_spaces_at_its_ends() {
        assert_eq!(code("one  \n\ntwo"), "    one\n\n    two\n");
    }
}
