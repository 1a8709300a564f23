//! Puts tables into the document that explains them, between marks.

use anyhow::{Context, Result};
use xshell::Shell;

/// The document, from the root of the repository.
const DOCUMENT: &str = "docs/performance.md";

/// What stands before and behind a table.
fn marks(name: &str) -> (String, String) {
    (format!("<!-- bench: {name} -->\n"), format!("<!-- end of {name} -->"))
}

/// Replaces tables by their names.
pub(crate) fn write(sh: &Shell, tables: &[(&str, String)]) -> Result<()> {
    let path = sh.current_dir().join(DOCUMENT);
    let mut text = sh.read_file(&path)?;
    for (name, table) in tables {
        text = replaced(&text, name, table)
            .with_context(|| format!("{DOCUMENT} has no marks for the table '{name}'"))?;
    }
    sh.write_file(path, text)?;
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
