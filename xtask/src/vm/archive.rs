//! Debian's archive, seen through an apt of our own: the machine's apt is asked where the archive is
//! and how to get there, and keeps its lists, its cache and its packages.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use xshell::{Cmd, Shell, cmd};

/// Who signs Debian's archive.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release of Debian, or a part of one.
#[derive(Clone, Copy)]
pub(crate) enum Suite {
    /// In the archive itself.
    Main(&'static str),
    /// Among the security updates, which are kept elsewhere.
    Security(&'static str),
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Main(name) | Self::Security(name) => name,
        }
    }

    /// What the archive that it is in calls itself.
    const fn label(self) -> &'static str {
        match self {
            Self::Main(_) => "Debian",
            Self::Security(_) => "Debian-Security",
        }
    }
}

/// Debian's archive with some suites.
pub(crate) struct Archive<'a> {
    sh: &'a Shell,
    directory: PathBuf,
}

impl<'a> Archive<'a> {
    /// Fetches the lists of these suites into `directory`.
    pub(crate) fn open(sh: &'a Shell, directory: &Path, suites: &[Suite]) -> Result<Self> {
        let archive = Self { sh, directory: directory.to_path_buf() };
        for part in ["state/lists/partial", "cache/archives/partial", "etc"] {
            sh.create_dir(directory.join(part))?;
        }
        sh.write_file(directory.join("state/status"), "")?;
        let known = cmd!(sh, "apt-get indextargets --format")
            .args(["$(LABEL) $(REPO_URI)", "Created-By: Packages"])
            .quiet()
            .read()?;
        sh.write_file(directory.join("sources.list"), sources(&known, suites)?)?;
        archive.apt("apt-get", &["-qq", "update"]).run().with_context(|| {
            let names: Vec<_> = suites.iter().map(|suite| suite.name()).collect();
            format!("the lists of {} could not be fetched", names.join(" and "))
        })?;
        Ok(archive)
    }

    /// The release of the newest kernel whose version starts with `series`.
    pub(crate) fn newest_kernel(&self, series: &str) -> Result<String> {
        let packages = self.apt("apt-cache", &["pkgnames", "linux-image-"]).read()?;
        let packages = packages.lines().filter(|name| release(name).is_some());
        let offers = self.apt("apt-cache", &["madison"]).args(packages).read()?;
        newest(&offers, series)
            .map(str::to_owned)
            .with_context(|| format!("Debian's archive has no kernel {series}* here"))
    }

    /// Downloads the packages that a kernel consists of. It may be one, or the kernel and its modules
    /// may have one each.
    pub(crate) fn download_kernel(&self, release: &str) -> Result<Vec<PathBuf>> {
        let packages = ["image", "binary", "modules"]
            .map(|part| format!("linux-{part}-{release}"))
            .into_iter()
            .filter(|name| self.has(name));
        self.download(packages)
            .with_context(|| format!("the kernel {release} could not be downloaded"))
    }

    /// Downloads packages, without what they depend on.
    pub(crate) fn download(
        &self,
        packages: impl IntoIterator<Item = String>,
    ) -> Result<Vec<PathBuf>> {
        // It downloads to where it is. An earlier download may not have been unpacked.
        let directory = self.directory.join("packages");
        self.sh.remove_path(&directory)?;
        let _here = self.sh.push_dir(self.sh.create_dir(&directory)?);
        self.apt("apt-get", &["-qq", "download"]).args(packages).run()?;
        Ok(self.sh.read_dir(&directory)?)
    }

    fn has(&self, package: &str) -> bool {
        self.apt("apt-cache", &["show", "--quiet=2", package])
            .ignore_stdout()
            .ignore_stderr()
            .run()
            .is_ok()
    }

    fn apt(&self, program: &str, args: &[&str]) -> Cmd<'a> {
        let at = |part: &str| self.directory.join(part).display().to_string();
        let options = [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("state/status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            format!("Dir::Etc::sourceparts={}", at("etc")),
            format!("Dir::Etc::preferences={}", at("etc/preferences")),
            format!("Dir::Etc::preferencesparts={}", at("etc")),
            // Only the lists of packages.
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // Another user could not write below our directory.
            "APT::Sandbox::User=".to_owned(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]);
        cmd!(self.sh, "{program}").args(options).args(args).quiet()
    }
}

/// The sources for these suites. `known` tells where the machine has its own from: a line for each,
/// its label and its address.
fn sources(known: &str, suites: &[Suite]) -> Result<String> {
    let address = |label: &str| {
        known
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(name, address)| (name == label).then_some(address))
            .with_context(|| {
                format!(
                    "this machine's apt does not know the archive with the label {label}, from \
                     which packages come; run `apt-get update` on a Debian machine"
                )
            })
    };
    suites
        .iter()
        .map(|suite| {
            let (name, address) = (suite.name(), address(suite.label())?);
            Ok(format!("deb [arch=amd64 signed-by={KEYRING}] {address} {name} main\n"))
        })
        .collect()
}

/// The release of the kernel that a package holds. Cloud kernels have all we need and no drivers for
/// hardware; a package without a patch level in its name only depends on another one.
fn release(package: &str) -> Option<&str> {
    let release = package.strip_prefix("linux-image-")?;
    let numbers = release.strip_suffix("-cloud-amd64")?;
    (numbers.starts_with(|c: char| c.is_ascii_digit()) && numbers.matches('.').count() >= 2)
        .then_some(release)
}

/// The release of the newest kernel among what `apt-cache madison` prints: package, version and
/// source, separated by `|`.
fn newest<'a>(offers: &'a str, series: &str) -> Option<&'a str> {
    offers
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            Some((release(columns.next()?)?, columns.next()?))
        })
        .filter(|(_, version)| version.starts_with(series))
        .max_by(|(_, one), (_, other)| compare(one, other))
        .map(|(release, _)| release)
}

/// Compares two versions of packages as deb-version(7) says; those of kernels have no epoch.
fn compare(mut one: &str, mut other: &str) -> Ordering {
    while !(one.is_empty() && other.is_empty()) {
        let ((words, number), (other_words, other_number)) = (take(&mut one), take(&mut other));
        let order = compare_words(words, other_words).then(number.cmp(&other_number));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes what is not a number, and then a number, from the front of a version. Nothing is 0.
fn take<'a>(version: &mut &'a str) -> (&'a str, u64) {
    let is_digit = |c: char| c.is_ascii_digit();
    let (words, rest) = version.split_at(version.find(is_digit).unwrap_or(version.len()));
    let end = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(end);
    *version = rest;
    (words, number.parse().unwrap_or(0))
}

/// A tilde comes before the end, then come letters, then everything else.
fn compare_words(one: &str, other: &str) -> Ordering {
    let weight = |word: &str, at: usize| match word.as_bytes().get(at) {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    (0..one.len().max(other.len()))
        .map(|at| weight(one, at).cmp(&weight(other, at)))
        .fold(Ordering::Equal, Ordering::then)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ascending = [
            "5.10.223-1",
            "5.10.262-1",
            "6.1.9-1",
            "6.1.176-1~deb11u1",
            "6.1.176-1",
            "6.1.192-1",
            "6.1.192-2",
            "6.12~rc7-1",
            "6.12.95-1~bpo12+1",
            "6.12.117-1~deb12u1",
            "7.2.13-1",
            "7.2.13-1+b1",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
            assert_eq!(compare(pair[0], pair[0]), Ordering::Equal, "{pair:?}");
        }
    }

    #[test]
    fn the_newest_kernel_of_a_series_is_chosen() {
        let offers = "\
            linux-image-6.1.0-9-cloud-amd64 | 6.1.99-1 | example bookworm/main amd64 Packages\n\
            linux-image-6.1.0-56-cloud-amd64 |  6.1.192-2 | example bookworm-security/main\n\
            linux-image-6.1.0-55-cloud-amd64 |  6.1.192-1 | example bookworm-security/main\n\
            linux-image-6.12-cloud-amd64 | 6.12.117-1~deb12u1 | example bookworm-security/main\n\
            linux-image-6.12.95+deb12-cloud-amd64 | 6.12.95-1~bpo12+1 | example backports/main\n";
        assert_eq!(newest(offers, "6.1."), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(offers, "6.12."), Some("6.12.95+deb12-cloud-amd64"));
        assert_eq!(newest(offers, ""), Some("6.12.95+deb12-cloud-amd64"));
        assert_eq!(newest(offers, "5.10."), None);
    }

    #[test]
    fn only_kernels_for_clouds_are_looked_at() {
        assert_eq!(release("linux-image-6.1.0-56-cloud-amd64"), Some("6.1.0-56-cloud-amd64"));
        for package in [
            "linux-image-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64-dbg",
            "linux-headers-6.1.0-56-cloud-amd64",
        ] {
            assert_eq!(release(package), None, "{package}");
        }
    }

    #[test]
    fn sources_come_from_where_the_machine_has_its_own() {
        let known = "Other https://other.example/\n\
                     Debian https://main.example/debian/\n\
                     Debian-Security https://security.example/\n";
        let suites = [Suite::Main("bullseye"), Suite::Security("bullseye-security")];
        let sources = sources(known, &suites).unwrap();
        assert!(sources.contains("] https://main.example/debian/ bullseye main\n"), "{sources}");
        assert!(sources.contains("] https://security.example/ bullseye-security main\n"));
        let error = super::sources("", &suites).unwrap_err().to_string();
        assert!(error.contains("apt-get update"), "{error}");
    }
}
