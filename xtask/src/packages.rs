//! The one table of what must be installed, and what for.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::{
    machine::{Manager, is_root, program},
    progress,
    vm::archive::KEYRING,
};

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// `cargo xtask demo`.
    Demo,
    /// `cargo xtask test`.
    Tests,
    /// `cargo xtask ebpf`.
    Toolchain,
    /// `cargo xtask vm`.
    Vm,
    /// `cargo xtask pxe`.
    Pxe,
    /// `cargo xtask fuzz --target`.
    LibFuzzer,
    /// `cargo xtask bench`.
    Bench,
}

/// How to tell that a package is there, or another one that does as well.
enum Proof {
    /// A program of this name.
    Program(&'static str),
    /// This file.
    File(&'static str),
    /// Nothing so simple: [`crate::toolchain`] tries it. Old and new compilers have one name.
    Trial,
}

/// Something to install.
pub(crate) struct Package {
    debian: &'static str,
    purpose: &'static str,
    needs: &'static [Need],
    proof: Proof,
    /// What others call it. `None`: they get it from rustup and cargo instead.
    elsewhere: Option<Names>,
}

/// What a package is called where it is not called what Debian calls it.
struct Names {
    dnf: &'static str,
    zypper: &'static str,
    pacman: &'static str,
    apk: &'static str,
}

impl Names {
    const fn same(name: &'static str) -> Option<Self> {
        Some(Self { dnf: name, zypper: name, pacman: name, apk: name })
    }
}

const PACKAGES: &[Package] = &[
    Package {
        debian: "dnsmasq-base",
        purpose: "the DHCP server that fixer's clients talk to",
        needs: &[Need::Demo, Need::Tests, Need::Pxe],
        proof: Proof::Program("dnsmasq"),
        elsewhere: Names::same("dnsmasq"),
    },
    Package {
        debian: "tcpdump",
        purpose: "a second opinion on checksums",
        needs: &[Need::Tests],
        proof: Proof::Program("tcpdump"),
        elsewhere: Names::same("tcpdump"),
    },
    Package {
        debian: "iproute2",
        purpose: "tc and ip, to see what fixer left behind in the kernel",
        needs: &[Need::Tests, Need::Vm, Need::Bench],
        proof: Proof::Program("tc"),
        elsewhere: Some(Names {
            dnf: "iproute-tc",
            zypper: "iproute2",
            pacman: "iproute2",
            apk: "iproute2",
        }),
    },
    Package {
        debian: "ethtool",
        purpose: "turns checksum offload on and off",
        needs: &[Need::Tests, Need::Vm, Need::Bench],
        proof: Proof::Program("ethtool"),
        elsewhere: Names::same("ethtool"),
    },
    Package {
        debian: "iptables",
        purpose: "the rule that fixer replaces",
        needs: &[Need::Tests, Need::Bench],
        proof: Proof::Program("iptables"),
        elsewhere: Some(Names {
            dnf: "iptables-nft",
            zypper: "iptables",
            pacman: "iptables",
            apk: "iptables",
        }),
    },
    Package {
        debian: "nftables",
        purpose: "firewall rules for the doctor to find",
        needs: &[Need::Tests],
        proof: Proof::Program("nft"),
        elsewhere: Names::same("nftables"),
    },
    Package {
        debian: "python3-pip",
        purpose: "fetches the schemas of Kubernetes",
        needs: &[Need::Tests],
        proof: Proof::Program("pip3"),
        elsewhere: Some(Names {
            dnf: "python3-pip",
            zypper: "python3-pip",
            pacman: "python-pip",
            apk: "py3-pip",
        }),
    },
    Package {
        debian: "openvswitch-switch",
        purpose: "Open vSwitch, whose mappings the doctor reads",
        needs: &[Need::Tests],
        proof: Proof::Program("ovs-vsctl"),
        elsewhere: Names::same("openvswitch"),
    },
    Package {
        debian: "iperf3",
        purpose: "sends as much as goes through",
        needs: &[Need::Bench],
        proof: Proof::Program("iperf3"),
        elsewhere: Names::same("iperf3"),
    },
    Package {
        debian: "libxml2-utils",
        purpose: "xmllint, by which libvirt's hook finds a network's bridge",
        needs: &[Need::Tests],
        proof: Proof::Program("xmllint"),
        elsewhere: Some(Names {
            dnf: "libxml2",
            zypper: "libxml2-tools",
            pacman: "libxml2",
            apk: "libxml2-utils",
        }),
    },
    Package {
        debian: "procps",
        purpose: "sysctl, for the settings of a network namespace",
        needs: &[Need::Tests],
        proof: Proof::Program("sysctl"),
        elsewhere: Some(Names {
            dnf: "procps-ng",
            zypper: "procps",
            pacman: "procps-ng",
            apk: "procps",
        }),
    },
    Package {
        debian: "systemd",
        purpose: "starts the unit of dist/systemd, and says how exposed it is",
        needs: &[Need::Tests],
        proof: Proof::Program("systemd-analyze"),
        elsewhere: Names::same("systemd"),
    },
    Package {
        debian: "rustc-web",
        purpose: "a compiler new enough to compile for BPF",
        needs: &[Need::Toolchain],
        proof: Proof::Trial,
        elsewhere: None,
    },
    Package {
        debian: "cargo-web",
        purpose: "that compiler's cargo",
        needs: &[Need::Toolchain],
        proof: Proof::Trial,
        elsewhere: None,
    },
    Package {
        debian: "rust-web-src",
        purpose: "the source of core, which nobody ships compiled for BPF",
        needs: &[Need::Toolchain],
        proof: Proof::Trial,
        elsewhere: None,
    },
    Package {
        debian: "llvm-22-dev",
        purpose: "bpf-linker is built on that compiler's LLVM; and llvm-objcopy",
        needs: &[Need::Toolchain],
        proof: Proof::File("/usr/lib/llvm-22/bin/llvm-config"),
        elsewhere: None,
    },
    Package {
        debian: "libpolly-22-dev",
        purpose: "LLVM links to it",
        needs: &[Need::Toolchain],
        proof: Proof::Trial,
        elsewhere: None,
    },
    Package {
        debian: "libzstd-dev",
        purpose: "LLVM links to it",
        needs: &[Need::Toolchain],
        proof: Proof::File("/usr/include/zstd.h"),
        elsewhere: None,
    },
    Package {
        debian: "zlib1g-dev",
        purpose: "LLVM links to it",
        needs: &[Need::Toolchain],
        proof: Proof::File("/usr/include/zlib.h"),
        elsewhere: None,
    },
    Package {
        debian: "g++",
        purpose: "libFuzzer is written in C++",
        needs: &[Need::LibFuzzer],
        proof: Proof::Program("c++"),
        elsewhere: Some(Names { dnf: "gcc-c++", zypper: "gcc-c++", pacman: "gcc", apk: "g++" }),
    },
    Package {
        // It brings the firmware with it: seabios, and ipxe-qemu for the network cards.
        debian: "qemu-system-x86",
        purpose: "the machines in which kernels are tried, and which boot over the network",
        needs: &[Need::Tests, Need::Vm, Need::Pxe, Need::Bench],
        proof: Proof::Program("qemu-system-x86_64"),
        elsewhere: Some(Names {
            dnf: "qemu-system-x86-core",
            zypper: "qemu-x86",
            pacman: "qemu-system-x86",
            apk: "qemu-system-x86_64",
        }),
    },
    Package {
        debian: "busybox-static",
        purpose: "all that these machines have besides fixer",
        needs: &[Need::Vm, Need::Bench],
        proof: Proof::Program("busybox"),
        elsewhere: Names::same("busybox"),
    },
    Package {
        debian: "apt",
        purpose: "fetches kernels, and a receiver of OTLP, from Debian's archive",
        needs: &[Need::Tests, Need::Vm, Need::Bench],
        proof: Proof::Program("apt-get"),
        elsewhere: Names::same("apt"),
    },
    Package {
        debian: "debian-archive-keyring",
        purpose: "who signs that archive",
        needs: &[Need::Tests, Need::Vm, Need::Bench],
        proof: Proof::File(KEYRING),
        elsewhere: Names::same("debian-archive-keyring"),
    },
    Package {
        debian: "xz-utils",
        purpose: "unpacks their modules",
        needs: &[Need::Vm, Need::Bench],
        proof: Proof::Program("xz"),
        elsewhere: Names::same("xz"),
    },
    Package {
        debian: "binutils",
        purpose: "strip, so that those machines need not unpack debug information",
        needs: &[Need::Vm, Need::Bench],
        proof: Proof::Program("strip"),
        elsewhere: Names::same("binutils"),
    },
];

impl Package {
    fn name(&self, manager: Manager) -> Option<&'static str> {
        let names = self.elsewhere.as_ref();
        match manager {
            Manager::Apt => Some(self.debian),
            Manager::Dnf => names.map(|names| names.dnf),
            Manager::Zypper => names.map(|names| names.zypper),
            Manager::Pacman => names.map(|names| names.pacman),
            Manager::Apk => names.map(|names| names.apk),
        }
    }

    fn is_there(&self) -> bool {
        match self.proof {
            Proof::Program(name) => program(name).is_some(),
            Proof::File(path) => Path::new(path).exists(),
            Proof::Trial => false,
        }
    }
}

/// Installs what `need` lacks, or says what to install.
pub(crate) fn ensure(sh: &Shell, need: Need) -> Result<()> {
    let lacking: Vec<_> =
        PACKAGES.iter().filter(|p| p.needs.contains(&need) && !p.is_there()).collect();
    if lacking.is_empty() {
        Ok(())
    } else if can_install(sh)? {
        apt(sh, &lacking)
    } else {
        bail!("programs are missing here:\n{}", advice(&lacking, Manager::here()))
    }
}

/// Whether [`ensure`] can install packages by itself.
pub(crate) fn can_install(sh: &Shell) -> Result<bool> {
    Ok(program("apt-get").is_some() && is_root(sh)?)
}

/// The command by which Debian installs everything for `need`.
pub(crate) fn on_debian(need: Need) -> String {
    let packages: Vec<_> = PACKAGES.iter().filter(|p| p.needs.contains(&need)).collect();
    command(&packages, Manager::Apt)
}

fn apt(sh: &Shell, lacking: &[&Package]) -> Result<()> {
    let names: Vec<_> = lacking.iter().map(|package| package.debian).collect();
    progress(&format!("install {}", names.join(" ")));
    let _noninteractive = sh.push_env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt-get, started by the machine itself, may hold the lock for a while.
    let patience = "DPkg::Lock::Timeout=300";
    cmd!(sh, "apt-get -qq -o {patience} update").ignore_stdout().run().context(
        "apt-get could not fetch the package lists; check the network and /etc/apt/sources.list",
    )?;
    cmd!(sh, "apt-get -qq -y -o {patience} install --no-install-recommends {names...}")
        .ignore_stdout()
        .run()
        .with_context(|| {
            format!("apt-get could not install what is needed:\n{}", purposes(lacking))
        })
}

/// What to do about the packages: the command of this machine's package manager, or of every
/// one we know.
fn advice(lacking: &[&Package], manager: Option<Manager>) -> String {
    let managers = manager.map_or(Manager::ALL.to_vec(), |manager| vec![manager]);
    let commands: Vec<_> = managers.into_iter().map(|manager| command(lacking, manager)).collect();
    format!("{}\nas root, run: {}", purposes(lacking), commands.join("\n          or: "))
}

fn command(packages: &[&Package], manager: Manager) -> String {
    let names: Vec<_> = packages.iter().filter_map(|package| package.name(manager)).collect();
    format!("{} {}", manager.install(), names.join(" "))
}

fn purposes(packages: &[&Package]) -> String {
    let lines: Vec<_> =
        packages.iter().map(|p| format!("  {:<16} {}", p.debian, p.purpose)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(debian: &str) -> &'static Package {
        PACKAGES.iter().find(|package| package.debian == debian).unwrap()
    }

    #[test]
    fn the_demo_needs_one_package() {
        let demo: Vec<_> = PACKAGES.iter().filter(|p| p.needs.contains(&Need::Demo)).collect();
        assert_eq!(
            command(&demo, Manager::Apt),
            format!("{} dnsmasq-base", Manager::Apt.install())
        );
    }

    #[test]
    fn advice_uses_the_distributions_own_names() {
        let lacking = [named("dnsmasq-base"), named("iproute2")];
        let advice = advice(&lacking, Some(Manager::Dnf));
        assert!(advice.ends_with("as root, run: dnf install dnsmasq iproute-tc"), "{advice}");
        assert!(advice.contains("the DHCP server"), "{advice}");
    }

    #[test]
    fn advice_for_an_unknown_distribution_names_them_all() {
        let advice = advice(&[named("procps")], None);
        for manager in Manager::ALL {
            assert!(advice.contains(manager.install()), "{advice}");
        }
    }

    #[test]
    fn what_rustup_brings_has_no_name_elsewhere() {
        assert_eq!(named("rustc-web").name(Manager::Dnf), None);
        assert!(on_debian(Need::Toolchain).contains("rustc-web"));
    }
}
