//! Puts tables into the documents that explain them, between marks.

use anyhow::{Context, Result};
use xshell::Shell;

/// A table of which documents, from the root of the repository, and where in them.
pub(crate) struct Place {
    document: &'static str,
    name: &'static str,
}

/// What every packet pays, in short, for whoever meets fixer first.
pub(crate) const COST: Place = Place { document: "README.md", name: "cost" };
/// The counted instructions.
pub(crate) const EXACT: Place = details("exact");
/// What is felt of them.
pub(crate) const FELT: Place = details("felt");
/// Time and memory of `fixer run`.
pub(crate) const BEYOND: Place = details("beyond");
/// The limits, and what was measured.
pub(crate) const TARGETS: Place = details("targets");

const fn details(name: &'static str) -> Place {
    Place { document: "docs/performance.md", name }
}

/// What stands before and behind a table.
fn marks(name: &str) -> (String, String) {
    (format!("<!-- bench: {name} -->\n"), format!("<!-- end of {name} -->"))
}

/// Replaces these tables.
pub(crate) fn write(sh: &Shell, tables: &[(Place, String)]) -> Result<()> {
    for (Place { document, name }, table) in tables {
        let path = sh.current_dir().join(document);
        let text = replaced(&sh.read_file(&path)?, name, table)
            .with_context(|| format!("{document} has no marks for the table '{name}'"))?;
        sh.write_file(path, text)?;
    }
    Ok(())
}

fn replaced(text: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = marks(name);
    let (before, rest) = text.split_once(&begin)?;
    let (_, behind) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{behind}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = "Cost.\n\n<!-- bench: felt -->\n\n| old |\n\n<!-- end of felt -->\n\nMore.\n";
        let replaced = replaced(text, "felt", "| new |\n").unwrap();
        assert_eq!(replaced, text.replace("old", "new"));
        assert_eq!(super::replaced(text, "exact", "| new |\n"), None);
    }
}
