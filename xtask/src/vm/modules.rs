//! Kernel modules: which ones others need, and the order in which they load.
//!
//! What a module needs stands in its `.modinfo` section, from which `depmod` makes `modules.dep` when
//! a kernel is installed. Ours are not installed, so the sections are read themselves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// A module, ready to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Reads a module somewhere below `root`. `None` if there is none: then it is part of the kernel.
pub(crate) fn read(sh: &Shell, root: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = find(root, name) else { return Ok(None) };
    let bytes = match path.extension().is_some_and(|extension| extension == "xz") {
        true => cmd!(sh, "xz --decompress --stdout {path}").quiet().output()?.stdout,
        false => fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?,
    };
    Ok(Some(bytes))
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    entries.filter_map(|entry| Some(entry.ok()?.path())).find_map(|path| {
        if path.is_dir() {
            return find(&path, name);
        }
        let file = path.file_name()?.to_str()?;
        let (stem, _) = file.split_once(".ko")?;
        (canonical(stem) == canonical(name)).then_some(path)
    })
}

/// Modules are named with `_`, their files often with `-`.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules with these names and those they need, in the order in which they load. `read` gives a
/// module's bytes, or `None` if it is part of the kernel.
pub(crate) fn load_order(
    wanted: &[&str],
    mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Module>> {
    let mut order = Vec::new();
    for name in wanted {
        visit(&canonical(name), &mut order, &mut read)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    order: &mut Vec<Module>,
    read: &mut impl FnMut(&str) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(bytes) = read(name)? else { return Ok(()) };
    for needed in needs(&bytes) {
        visit(&needed, order, read)?;
    }
    order.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

/// The names after `depends=` in a module's `.modinfo` section, which is a row of C strings.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = value.split(|byte| *byte == b',').filter(|name| !name.is_empty());
    names.map(|name| canonical(&String::from_utf8_lossy(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(needs: &str) -> Vec<u8> {
        format!("\x7fELF...license=GPL\0depends={needs}\0retpoline=Y\0").into_bytes()
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(needs(&module("stp,llc")), ["stp", "llc"]);
        assert_eq!(needs(&module("libcrc32c,nf-conntrack")), ["libcrc32c", "nf_conntrack"]);
        assert!(needs(&module("")).is_empty());
        assert!(needs(b"\x7fELF").is_empty());
    }

    #[test]
    fn what_is_needed_loads_first_and_once() {
        let order = load_order(&["bridge", "8021q", "veth", "ipv6"], |name| {
            Ok(match name {
                "bridge" => Some(module("stp,llc")),
                "8021q" => Some(module("garp,mrp")),
                "stp" | "garp" => Some(module("llc")),
                "llc" | "mrp" | "veth" => Some(module("")),
                // Part of the kernel.
                _ => None,
            })
        });
        let names: Vec<_> = order.unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["llc", "stp", "bridge", "garp", "mrp", "8021q", "veth"]);
    }

    #[test]
    fn a_module_that_cannot_be_read_is_an_error() {
        assert!(load_order(&["veth"], |_| anyhow::bail!("no")).is_err());
    }
}
