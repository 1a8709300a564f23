//! The root file system that a kernel is started with, and what is done there.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use super::{
    cpio::{self, Entry},
    kernel::Files,
    report::MARK,
};
use crate::{cargo, machine, progress};

/// Something that must hold on a kernel.
pub(crate) struct Check {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// What the guest's shell runs: 0 means that it holds.
    command: &'static str,
}

/// What is tried on each kernel, in this order.
pub(crate) const CHECKS: &[Check] = &[
    // If it fails once more, it does so with the verifier's words.
    Check { name: "selftest", command: "fixer selftest || { fixer -vv selftest; false; }" },
    Check { name: "with clsact", command: "fixer selftest --attach-mode clsact" },
    Check { name: "all rules", command: "load --test-threads=1" },
    Check { name: "table in kernel", command: "table_in_kernel --test-threads=1" },
    Check { name: "table over veth", command: "table_over_veth --test-threads=1" },
    Check { name: "receivers", command: "receivers --test-threads=1" },
    Check { name: "VLAN devices", command: "vlan_devices --test-threads=1" },
    Check { name: "csum filter", command: "csum_filter --test-threads=1" },
    Check { name: "doctor", command: "doctor_on_debian --test-threads=1" },
    Check { name: "Open vSwitch", command: "openvswitch --test-threads=1" },
    Check { name: "traffic", command: "traffic --test-threads=1" },
];

/// The suites of fixer-tests that look into a kernel.
const SUITES: &[&str] = &[
    "load",
    "table_in_kernel",
    "table_over_veth",
    "receivers",
    "vlan_devices",
    "csum_filter",
    "doctor_on_debian",
    "openvswitch",
    "traffic",
];

/// The programs that they and the start of the system need.
const PROGRAMS: &[&str] = &["busybox", "ethtool", "ip", "bridge", "ovs-dpctl", "tc"];

/// The modules that they need, where these are not part of the kernel.
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "tun",
    "8021q",
    "sch_ingress",
    "cls_bpf",
    "sch_htb",
    "cls_u32",
    "act_csum",
    "openvswitch",
];

/// Where file systems are mounted, at the start or by a sandbox of the suites.
const MOUNT_POINTS: &[&str] = &["dev", "proc", "run", "sys", "tmp", "var"];

/// How the system starts; what is to be done follows.
pub(crate) const START: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do insmod \"$module\"; done
";

/// How long a check may take, in seconds.
const PATIENCE: u32 = 600;

/// Builds what is to be run on the kernels, and collects it with its libraries.
pub(crate) fn programs(sh: &Shell) -> Result<Vec<Entry>> {
    progress("build fixer and the suites");
    let mut built = built(sh, &["build", "--package", "fixer-user", "--bin", "fixer"])?;
    let suites = SUITES.iter().flat_map(|suite| ["--test", suite]);
    let args: Vec<_> =
        ["test", "--no-run", "--package", "fixer-tests"].into_iter().chain(suites).collect();
    built.extend(self::built(sh, &args)?);

    let ours = ["fixer"].iter().chain(SUITES).map(|name| {
        let path = built.iter().find_map(|(built, path)| (built == name).then_some(path));
        path.map(PathBuf::as_path).with_context(|| format!("cargo did not say where it put {name}"))
    });
    collect(sh, PROGRAMS, &ours.collect::<Result<Vec<_>>>()?)
}

/// Installed programs by name and `built` ones, which lose their debug information, with the libraries
/// of all of them.
pub(crate) fn collect(sh: &Shell, installed: &[&str], built: &[&Path]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut libraries = BTreeSet::new();
    for name in installed {
        let path = machine::program(name).with_context(|| format!("{name} is not installed"))?;
        libraries.extend(libraries_of(sh, &path)?);
        entries.push(Entry::new(format!("bin/{name}"), sh.read_binary_file(path)?));
    }
    let directory = sh.create_temp_dir()?;
    for path in built {
        libraries.extend(libraries_of(sh, path)?);
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // Cargo puts a hash behind the name of a test.
        let name = file.split('-').next().unwrap_or(&file);
        // Most of a program is debug information, and all of it would have to be unpacked.
        let stripped = directory.path().join(name);
        cmd!(sh, "strip --strip-debug -o {stripped} {path}").quiet().run()?;
        entries.push(Entry::new(format!("bin/{name}"), sh.read_binary_file(stripped)?));
    }
    for path in libraries {
        entries.push(Entry::new(path.as_str(), sh.read_binary_file(&path)?));
    }
    Ok(entries)
}

/// A program at another path than others, with its libraries.
pub(crate) fn program_at(sh: &Shell, path: &str, program: &Path) -> Result<Vec<Entry>> {
    let libraries = libraries_of(sh, program)?.into_iter();
    let libraries =
        libraries.map(|library| Ok(Entry::new(&*library, sh.read_binary_file(&library)?)));
    let program = Ok(Entry::new(path, sh.read_binary_file(program)?));
    libraries.chain([program]).collect()
}

/// Runs cargo, and says which executables it made and where.
pub(crate) fn built(sh: &Shell, args: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let cargo = cargo();
    let messages = cmd!(sh, "{cargo} {args...} --message-format json-render-diagnostics")
        .quiet()
        .read()
        .context("what is to be tried could not be built")?;
    Ok(executables(&messages))
}

/// The executables among cargo's messages, one JSON object a line.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?;
            Some((name.to_owned(), PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

/// The libraries that a program is linked to, and the loader that loads them.
fn libraries_of(sh: &Shell, program: &Path) -> Result<Vec<String>> {
    // It fails for a program that needs none.
    let text = cmd!(sh, "ldd {program}").quiet().ignore_status().ignore_stderr().read()?;
    Ok(libraries(&text))
}

/// The files that ldd(1) lists; one that is in no file (the vDSO) has no slash.
fn libraries(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(str::to_owned)
        .collect()
}

/// The root file system for one kernel, on which everything is checked.
pub(crate) fn pack(sh: &Shell, programs: &[Entry], kernel: &Files) -> Result<Vec<u8>> {
    pack_with(sh, programs, kernel, MODULES, &init())
}

/// A root file system that loads these modules and starts with this script.
pub(crate) fn pack_with(
    sh: &Shell,
    programs: &[Entry],
    kernel: &Files,
    modules: &[&str],
    script: &str,
) -> Result<Vec<u8>> {
    let modules = kernel.load_order(sh, modules)?;
    let modules = modules
        .into_iter()
        .enumerate()
        .map(|(place, module)| {
            Entry::new(format!("modules/{place:02}-{}.ko", module.name), module.bytes)
        })
        .collect::<Vec<_>>();
    let init = [Entry::new("init", script)];
    Ok(cpio::archive(programs.iter().chain(&modules).chain(&init), MOUNT_POINTS))
}

/// What the kernel starts first, and what this starts.
fn init() -> String {
    let mut script = format!("{START}echo \"{MARK}up $(uname -r -v)\"\n");
    for Check { name, command } in CHECKS {
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "echo '{MARK}begin {name}'\n\
             timeout {PATIENCE} sh -c '{command}' 2>&1\n\
             echo \"{MARK}end $?\"\n"
        );
    }
    script + &format!("echo '{MARK}done'\npoweroff -f\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_executables_are() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"anyhow"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"fixer"},"executable":"/t/fixer"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("fixer".to_owned(), PathBuf::from("/t/fixer"))]);
    }

    #[test]
    fn a_program_comes_with_its_libraries() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f7ae360b000)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f7ae221e000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f7ae360d000)\n";
        assert_eq!(
            libraries(ldd),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn every_check_is_in_the_script_and_can_be() {
        let script = init();
        for check in CHECKS {
            assert!(script.contains(&format!("begin {}'", check.name)), "{script}");
            assert!(!check.command.contains('\''), "{} is quoted with it", check.name);
        }
        assert!(script.ends_with("poweroff -f\n"));
    }
}
