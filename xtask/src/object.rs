//! What a compiled object must be, whoever compiled it.

use std::path::Path;

use anyhow::{Result, ensure};

/// Checks that the object holds BTF and no other debug information, and that none of the
/// `private` directories, which are this machine's own, is named in it.
pub(crate) fn verify(object: &[u8], private: &[&Path]) -> Result<()> {
    ensure!(object.starts_with(b"\x7fELF"), "the object is not an ELF file");
    ensure!(
        contains(object, b".BTF\0") && contains(object, b".BTF.ext\0"),
        "the object has no BTF: bpf-linker did not see --btf, or the code no debug information"
    );
    ensure!(
        !contains(object, b".debug_"),
        "the object still has DWARF sections: llvm-objcopy did not strip them"
    );
    for directory in private {
        ensure!(
            !contains(object, directory.as_os_str().as_encoded_bytes()),
            "the object names {}, so another machine cannot reproduce it; \
             map the path away in xtask/src/ebpf.rs",
            directory.display()
        );
    }
    Ok(())
}

/// Where two objects differ, in words; `None` if they are equal.
pub(crate) fn difference(committed: &[u8], rebuilt: &[u8]) -> Option<String> {
    if committed == rebuilt {
        return None;
    }
    let at = committed.iter().zip(rebuilt).take_while(|(one, other)| one == other).count();
    Some(format!(
        "{} bytes committed, {} bytes rebuilt, equal up to byte {at}",
        committed.len(),
        rebuilt.len()
    ))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"\x7fELF code \0.text\0.rel.BTF\0.rel.BTF.ext\0";

    fn reason(object: &[u8]) -> String {
        verify(object, &[Path::new("/home/me/fixer")]).unwrap_err().to_string()
    }

    #[test]
    fn an_object_with_btf_and_nothing_else_is_good() {
        verify(GOOD, &[Path::new("/home/me/fixer")]).unwrap();
    }

    #[test]
    fn every_fault_has_its_own_message() {
        assert!(reason(b"\x7fBAD").contains("not an ELF file"));
        assert!(reason(b"\x7fELF \0.text\0").contains("no BTF"));
        assert!(reason(&[GOOD, b".debug_info\0"].concat()).contains("DWARF"));
        assert!(reason(&[GOOD, b"/home/me/fixer/a.rs\0"].concat()).contains("/home/me/fixer"));
    }

    #[test]
    fn a_difference_is_where_the_bytes_part() {
        assert_eq!(difference(b"same", b"same"), None);
        let longer = difference(b"same", b"same too").unwrap();
        assert!(longer.ends_with("equal up to byte 4"), "{longer}");
    }
}
