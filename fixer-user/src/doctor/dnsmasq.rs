//! Which interfaces dnsmasq serves, as its arguments and its files tell it. It often listens at all of
//! them and passes over what came in elsewhere.

mod file;
mod range;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use self::{
    file::text,
    range::{Range, Relay},
};
use super::processes::{Program, Role};
use crate::net::inspect::Interface;

/// Its own file, read unless it is told another.
const OWN: &str = "/etc/dnsmasq.conf";

/// How many files are read of one server. Anybody may call a process dnsmasq, and name files without end.
const MOST_FILES: usize = 64;

/// How deep files may name each other.
const DEEPEST: usize = 8;

/// The options that matter, with their short names.
const OPTIONS: [(Option<char>, &str); 12] = [
    (Some('i'), "interface"),
    (Some('I'), "except-interface"),
    (Some('2'), "no-dhcp-interface"),
    (None, "no-dhcpv4-interface"),
    (Some('a'), "listen-address"),
    (Some('F'), "dhcp-range"),
    (None, "dhcp-relay"),
    (None, "shared-network"),
    (None, "bridge-interface"),
    (Some('x'), "pid-file"),
    (Some('C'), "conf-file"),
    (Some('7'), "conf-dir"),
];

/// What it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The interfaces that it serves; a star at the end stands for the rest of a name.
    pub only: Vec<String>,
    /// The addresses that it listens at.
    addresses: Vec<Ipv4Addr>,
    /// The interfaces that it does not serve.
    except: Vec<String>,
    /// The addresses that it has to give.
    ranges: Vec<Range>,
    /// Whom it passes requests on to.
    relays: Vec<Relay>,
    /// Whether interfaces are served as if they were others.
    has_others: bool,
    /// Where it writes its process id.
    pid_file: Option<String>,
    /// The process id that is there.
    recorded: Option<i32>,
    /// How many files were read.
    files: usize,
}

impl Told {
    /// What a process was told; `None`: it is no dnsmasq.
    pub fn of(program: &Program) -> Option<Self> {
        let first = program.arguments.first().map(Path::new);
        let name = first.and_then(Path::file_name).and_then(|name| name.to_str());
        if program.name != "dnsmasq" && name != Some("dnsmasq") {
            return None;
        }
        // As the process sees its files: it may live in a container.
        let root = PathBuf::from(format!("/proc/{}/root", program.pid));
        Some(Self::from(&root, program.arguments.get(1..).unwrap_or_default()))
    }

    fn from(root: &Path, arguments: &[String]) -> Self {
        let (mut told, options) = (Self::default(), options(arguments));
        if options.iter().all(|(name, _)| name != "conf-file") {
            told.read(root, OWN, 0);
        }
        options.iter().for_each(|(name, value)| told.hear(root, name, value, 0));
        let recorded = told.pid_file.as_ref().and_then(|path| {
            text(&root.join(path.trim_start_matches('/'))).ok()?.trim().parse().ok()
        });
        told.recorded = recorded;
        told
    }

    fn hear(&mut self, root: &Path, name: &str, value: &str, depth: usize) {
        let words = || value.split(',').map(str::trim).filter(|word| !word.is_empty());
        let names = || words().map(str::to_owned);
        let addresses = || words().filter_map(|word| word.parse::<Ipv4Addr>().ok());
        match name {
            "interface" => self.only.extend(names().filter(|name| name != "lo")),
            "except-interface" | "no-dhcp-interface" | "no-dhcpv4-interface" => {
                self.except.extend(names());
            }
            "listen-address" => self.addresses.extend(addresses()),
            "dhcp-range" => self.ranges.extend(Range::parse(value)),
            "dhcp-relay" => self.relays.extend(Relay::parse(value)),
            "shared-network" | "bridge-interface" => self.has_others = true,
            "pid-file" => self.pid_file = Some(value.to_owned()).filter(|path| !path.is_empty()),
            "conf-file" => self.read(root, value, depth),
            "conf-dir" => self.read_all(root, value, depth),
            _ => {}
        }
    }

    fn read(&mut self, root: &Path, file: &str, depth: usize) {
        self.files += 1;
        if self.files > MOST_FILES {
            return;
        }
        let text = text(&root.join(file.trim_start_matches('/'))).unwrap_or_default();
        for (name, value) in text.lines().filter_map(|line| uncommented(line).split_once('=')) {
            if depth < DEEPEST {
                self.hear(root, name.trim(), value.trim(), depth + 1);
            }
        }
    }

    /// A directory, and which of its files: `DIRECTORY,.bak,*.conf`.
    fn read_all(&mut self, root: &Path, given: &str, depth: usize) {
        let mut words = given.split(',').map(str::trim);
        let directory = words.next().unwrap_or_default().trim_start_matches('/');
        let (only, never): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('*'));
        let is_meant = |name: &&String| {
            let is_only = only.is_empty() || only.iter().any(|end| name.ends_with(&end[1..]));
            let is_never = never.iter().any(|end| name.ends_with(end));
            let is_passed_over = name.starts_with(['.', '#']) || name.ends_with(['~', '#']);
            is_only && !is_never && !is_passed_over
        };
        let entries = fs::read_dir(root.join(directory)).into_iter().flatten().flatten();
        let names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for name in names.iter().filter(is_meant) {
            self.read(root, &format!("{directory}/{name}"), depth);
        }
    }

    /// Whether it serves an interface. `None`: that cannot be told from this.
    pub fn serves(&self, interface: &Interface) -> Option<bool> {
        let has = |at: &Ipv4Addr| interface.addresses.iter().any(|(own, _)| own == at);
        if self.shuns(&interface.name) {
            return Some(false);
        }
        if !self.only.is_empty() || !self.addresses.is_empty() {
            return Some(is_named(&self.only, &interface.name) || self.addresses.iter().any(has));
        }
        if self.ranges.is_empty() && self.relays.is_empty() {
            return None;
        }
        // Told no interface, it serves those in whose network it has addresses to give.
        match self.ranges_of(interface).next().is_some() || self.relay_of(interface).is_some() {
            false if self.has_others => None,
            serves => Some(serves),
        }
    }

    /// Whether it is told to leave an interface alone.
    pub fn shuns(&self, interface: &str) -> bool {
        is_named(&self.except, interface)
    }

    /// The addresses that it has for an interface.
    pub fn ranges_of(&self, interface: &Interface) -> impl Iterator<Item = &Range> {
        self.ranges.iter().filter(|range| range.is_of(interface))
    }

    /// Whom it passes the requests of an interface on to.
    pub fn relay_of(&self, interface: &Interface) -> Option<&Relay> {
        self.relays.iter().find(|relay| relay.is_of(interface))
    }

    /// What it is for the guests of an interface.
    pub fn role(&self, interface: &Interface) -> Role {
        let has_ranges = self.ranges_of(interface).next().is_some();
        if self.ranges_of(interface).any(|range| !range.is_proxy) {
            Role::Server
        } else if self.relay_of(interface).is_some() {
            Role::Relay
        } else if has_ranges {
            Role::Proxy
        } else if self.is_at_loss(interface) {
            Role::Idle
        } else {
            Role::Server
        }
    }

    /// Whether it answers nobody on an interface: that has no address, or is in no network that it has
    /// addresses of.
    fn is_at_loss(&self, interface: &Interface) -> bool {
        let is_told = !self.ranges.is_empty() || !self.relays.is_empty();
        !self.has_others && (interface.addresses.is_empty() || is_told)
    }

    /// The addresses that it has to give, in words.
    pub fn ranges(&self) -> String {
        let ranges: Vec<_> = self.ranges.iter().take(4).map(Range::to_string).collect();
        if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") }
    }

    /// Whether another one took its place: it wrote its own process id where this one's was.
    pub fn is_replaced_by(&self, other: &Self, process: i32) -> bool {
        self.pid_file.is_some() && self.pid_file == other.pid_file && self.recorded == Some(process)
    }

    /// Whether another has some of the same addresses for an interface.
    pub fn overlaps(&self, other: &Self, interface: &Interface) -> bool {
        self.ranges_of(interface).any(|one| other.ranges_of(interface).any(|it| one.overlaps(it)))
    }

    /// The interfaces that it serves, in words, if it was told any.
    pub fn names(&self) -> Option<String> {
        let names = self.only.iter().filter(|name| !self.except.contains(name));
        let names: Vec<_> = names.map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }

    /// Whether it serves named interfaces only, and none of these is in this list.
    pub fn lacks(&self, interfaces: &[Interface]) -> bool {
        let is_there =
            |name: &String| interfaces.iter().any(|interface| is_match(name, &interface.name));
        let is_star = |name: &String| name.ends_with('*');
        !self.only.is_empty()
            && self.addresses.is_empty()
            && !self.only.iter().any(|name| is_star(name) || is_there(name))
    }
}

fn is_named(names: &[String], interface: &str) -> bool {
    names.iter().any(|name| is_match(name, interface))
}

fn is_match(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// A line of a file without what is behind a `#` at its start or after a space.
fn uncommented(line: &str) -> &str {
    let mut is_after_space = true;
    for (at, letter) in line.char_indices() {
        if letter == '#' && is_after_space {
            return &line[..at];
        }
        is_after_space = letter.is_whitespace();
    }
    line
}

/// The options that matter among arguments, by their long names.
fn options(arguments: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut words = arguments.iter().peekable();
    while let Some(word) = words.next() {
        let (name, value) = if let Some(long) = word.strip_prefix("--") {
            match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            }
        } else {
            let mut letters = word.strip_prefix('-').unwrap_or_default().chars();
            let short = letters.next();
            let is_it = |(letter, _): &&(Option<char>, _)| letter.is_some() && *letter == short;
            let Some((_, name)) = OPTIONS.iter().find(is_it) else { continue };
            (*name, Some(letters.as_str()).filter(|value| !value.is_empty()))
        };
        if OPTIONS.iter().any(|(_, known)| *known == name) {
            // These may stand without a value, for no file at all.
            let is_value = |word: &&String| {
                !(["conf-file", "pid-file"].contains(&name) && word.starts_with('-'))
            };
            let value = value.or_else(|| words.next_if(|word| is_value(word)).map(String::as_str));
            found.push((name.to_owned(), value.unwrap_or_default().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Told {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Told::from(Path::new("/nowhere"), &words)
    }

    #[test]
    fn arguments_name_interfaces_in_many_ways() {
        let only = |line: &str| told(line).only;
        assert_eq!(only("--interface=br0 -i br1 --interface br2"), ["br0", "br1", "br2"]);
        assert_eq!(only("-ibr0 --interface=br1,br2,lo -k"), ["br0", "br1", "br2"]);
        assert!(only("--interface=lo --conf-file=/nowhere --port 0").is_empty());
        assert!(only("-C -i").is_empty());
        assert_eq!(only("--conf-file --interface=br0"), ["br0"]);
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        let at = |name: &str, address: [u8; 4]| Interface {
            name: name.to_owned(),
            addresses: vec![(address.into(), 24)],
            ..Interface::default()
        };
        let (br0, br1) = (at("br0", [10, 0, 3, 1]), at("br1", [10, 0, 4, 1]));
        let serves = |line: &str| [&br0, &br1].map(|bridge| told(line).serves(bridge));
        assert_eq!(serves(""), [None, None]);
        assert_eq!(serves("-i br*"), [Some(true), Some(true)]);
        assert_eq!(serves("-i br0"), [Some(true), Some(false)]);
        assert_eq!(serves("-a 127.0.0.1,10.0.4.1"), [Some(false), Some(true)]);
        assert_eq!(serves("-I br1"), [None, Some(false)]);
        assert_eq!(serves("-F set:a,10.0.3.9,10.0.3.20,1h"), [Some(true), Some(false)]);
        assert_eq!(serves("-F ::1,ra-only"), [None, None]);
        assert_eq!(serves("-i br* --no-dhcpv4-interface=br1"), [Some(true), Some(false)]);
        assert_eq!(serves("--dhcp-relay=10.0.4.1,192.0.2.1"), [Some(false), Some(true)]);
        assert_eq!(
            serves("-F 10.0.3.9,10.0.3.20 --shared-network=br1,10.0.3.0"),
            [Some(true), None]
        );
    }

    #[test]
    fn what_it_is_for_an_interface_follows_from_its_addresses() {
        let role = |line: &str, addresses: &[[u8; 4]]| {
            let addresses = addresses.iter().map(|at| ((*at).into(), 24)).collect();
            let interface = Interface { name: "br0".into(), addresses, ..Interface::default() };
            told(line).role(&interface)
        };
        let here = &[[10, 0, 3, 1]][..];
        assert_eq!(role("-i br0 -F 10.0.3.9,10.0.3.20", here), Role::Server);
        assert_eq!(role("-i br0 -F 10.0.3.9,10.0.3.20 -F 10.0.3.0,proxy", here), Role::Server);
        assert_eq!(role("-i br0 -F 10.0.3.9,10.0.3.20", &[]), Role::Idle);
        assert_eq!(role("-i br0 -F 10.0.9.9,10.0.9.20", here), Role::Idle);
        assert_eq!(
            role("-i br0 -F 10.0.9.9,10.0.9.20 --shared-network=br0,10.0.9.1", here),
            Role::Server
        );
        assert_eq!(role("-i br0 -F 10.0.3.0,proxy", here), Role::Proxy);
        assert_eq!(role("-i br0 --dhcp-relay 10.0.3.1,192.0.2.1", here), Role::Relay);
        // Of one that was told nothing that was found, nothing is known.
        assert_eq!(role("-i br0", here), Role::Server);
    }

    #[test]
    fn a_pid_file_may_be_none() {
        assert_eq!(told("--pid-file --interface=br0").pid_file, None);
        assert_eq!(told("--pid-file=/run/a -i br0").pid_file.as_deref(), Some("/run/a"));
        assert_eq!(told("-x /run/a").pid_file.as_deref(), Some("/run/a"));
        assert_eq!(told("--pid-file --interface=br0").only, ["br0"]);
    }

    #[test]
    fn who_took_ones_place_wrote_it_down() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("pid"), "7\n").unwrap();
        let told = |file: &str| Told::from(directory.path(), &[format!("--pid-file={file}")]);
        assert!(told("/pid").is_replaced_by(&told("/pid"), 7));
        assert!(!told("/pid").is_replaced_by(&told("/pid"), 8));
        assert!(!told("/pid").is_replaced_by(&told("/other"), 7));
        assert!(!told("/other").is_replaced_by(&told("/other"), 7));
    }

    #[test]
    fn a_comment_stands_at_the_start_or_after_a_space() {
        assert_eq!(uncommented("interface=br0 # two"), "interface=br0 ");
        assert_eq!(uncommented("#interface=br0"), "");
        assert_eq!(uncommented("interface=br0#1"), "interface=br0#1");
    }

    /// Anybody can call a process dnsmasq.
    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let circle = directory.path().join("circle");
        fs::write(&circle, "conf-file=circle\n".repeat(9) + "interface=br0\n").unwrap();
        let told = |file: &str| Told::from(directory.path(), &[format!("--conf-file={file}")]);
        assert!(told("pipe").only.is_empty());
        let told = told("circle");
        assert!(told.only.len() < MOST_FILES && told.only.contains(&"br0".to_owned()), "{told:?}");
    }
}
