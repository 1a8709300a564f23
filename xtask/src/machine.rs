//! What machine this is: who we are on it, whose distribution it is, which programs it has.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// How software is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Zypper,
    Pacman,
    Apk,
}

impl Manager {
    pub(crate) const ALL: [Self; 5] = [Self::Apt, Self::Dnf, Self::Zypper, Self::Pacman, Self::Apk];

    /// The package manager of the distribution that an os-release(5) file describes.
    fn of(os_release: &str) -> Option<Self> {
        let value = |key: &str| {
            os_release
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map_or("", |(_, value)| value.trim_matches(['"', '\'']))
        };
        // A derivative that os-release does not name itself names its parents, closest first.
        let mut names = value("ID").split(' ').chain(value("ID_LIKE").split(' '));
        names.find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" | "centos" => Some(Self::Dnf),
            "suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap" => Some(Self::Zypper),
            "arch" => Some(Self::Pacman),
            "alpine" => Some(Self::Apk),
            _ => None,
        })
    }

    /// The package manager of this machine, if it is one we know names for.
    pub(crate) fn here() -> Option<Self> {
        ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .and_then(|text| Self::of(&text))
    }

    /// The command that installs the packages named after it.
    pub(crate) const fn install(self) -> &'static str {
        match self {
            Self::Apt => "apt-get install --no-install-recommends",
            Self::Dnf => "dnf install",
            Self::Zypper => "zypper install",
            Self::Pacman => "pacman -S --needed",
            Self::Apk => "apk add",
        }
    }
}

/// Whether we may do what only root may.
pub(crate) fn is_root(sh: &Shell) -> Result<bool> {
    let uid = cmd!(sh, "id -u").quiet().read().context("`id -u` did not say who we are")?;
    Ok(uid == "0")
}

/// Stops here unless we are root: `verb` cannot do its work otherwise, because of `why`.
pub(crate) fn require_root(sh: &Shell, verb: &str, why: &str) -> Result<()> {
    ensure!(
        is_root(sh)?,
        "`cargo xtask {verb}` must be root: {why}\n\
         run as root: sudo -E env \"PATH=$PATH\" cargo xtask {verb}"
    );
    Ok(())
}

/// Where `name` is installed. Looks where only root's PATH may lead, too: being installed is one
/// thing, being callable another.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// Where cargo keeps what it downloads and installs.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(home)
        .context("neither CARGO_HOME nor HOME is set; set one to where cargo may keep its files")
}

/// `path` itself and, where symbolic links lead elsewhere, what it really is.
pub(crate) fn spellings(path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().ok().filter(|real| real != path);
    std::iter::once(path.to_path_buf()).chain(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_tells_the_package_manager() {
        for (os_release, manager) in [
            ("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n", Some(Manager::Apt)),
            ("ID=ubuntu\nID_LIKE=debian\n", Some(Manager::Apt)),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(Manager::Apt)),
            ("NAME=\"Fedora Linux\"\nID=fedora\n", Some(Manager::Dnf)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(Manager::Dnf)),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Some(Manager::Zypper)),
            ("ID=manjaro\nID_LIKE=arch\n", Some(Manager::Pacman)),
            ("ID=alpine\n", Some(Manager::Apk)),
            ("ID=plan9\n", None),
            ("", None),
        ] {
            assert_eq!(Manager::of(os_release), manager, "{os_release:?}");
        }
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(program("sh").is_some());
        assert_eq!(program("no-such-program-anywhere"), None);
    }
}
