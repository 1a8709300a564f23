//! libvirt's hook in `dist/libvirt`, called as libvirt calls it: with the real `fixer`, `xmllint` and
//! `logger`. `cargo xtask scenario libvirt` has libvirt itself call it.

use std::{fs, os::unix::net::UnixDatagram, path::Path};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, built, hooks, program},
    mounts::{PINS, private_mounts},
};
use fixer_user::lab::scene::{BRIDGE, Scene};
use tempfile::TempDir;

/// Starts the hook with a log of the test's own and, if there is a configuration, with that, too. What
/// it finds in `$1` goes before all other programs.
const CALL: &str = r#"
export PATH="$1:$PATH"
if [ -e "$1/libvirt.toml" ]; then
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work
    mount -t overlay overlay /etc -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work
    mkdir -p /etc/fixer
    cp "$1/libvirt.toml" /etc/fixer
fi
exec "$2" "$3" "$4" "$5" - < "$1/stdin"
"#;

/// A network with an address range, and with metadata that is meant for somebody else.
const SERVED: &str = "
<hookData>
  <network>
    <name>default</name>
    <metadata><x:bridge xmlns:x='urn:x' name='eth7'/><x:ip xmlns:x='urn:x'><dhcp/></x:ip></metadata>
    <forward mode='nat'/>
    <bridge name='br0' stp='on' delay='0'/>
    <ip family='ipv6' address='fd00::1' prefix='64'/>
    <ip address='192.168.122.1' netmask='255.255.255.0'>
      <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
    </ip>
  </network>
</hookData>";

/// What the hook finds, and what it says.
struct Caller {
    scene: Scene,
    directory: TempDir,
    log: UnixDatagram,
}

impl Caller {
    fn new() -> Result<Self> {
        private_mounts(true)?;
        let directory = TempDir::new()?;
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink(built()?, at("fixer"))?;
        let log = UnixDatagram::bind(at("log"))?;
        log.set_nonblocking(true)?;
        let logger = format!("#!/bin/sh\nexec /usr/bin/logger --socket {:?} \"$@\"\n", at("log"));
        fs::write(at("logger"), logger)?;
        let caller = Self { scene: Scene::new()?, directory, log };
        let ended = caller.run(program("chmod", &["755", &caller.path("logger")]))?;
        ensure!(ended.is_empty(), "{ended:?}");
        Ok(caller)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// Runs a program to its end, which has to be a good one, and hands over what it said.
    fn run(&self, command: std::process::Command) -> Result<Vec<String>> {
        let ended = Running::start(&self.scene.host, command)?.end()?.ok()?;
        Ok([ended.stdout, ended.stderr].concat())
    }

    /// Calls the hook, which must succeed without a word, and hands over what it logged.
    fn call(&self, operation: &str, part: &str, xml: &str) -> Result<String> {
        fs::write(self.path("stdin"), xml)?;
        let here = std::env::var("CARGO_MANIFEST_DIR").context("cargo runs the tests")?;
        let hook = Path::new(&here).join("../dist/libvirt/network");
        let hook = hook.to_string_lossy();
        let directory = self.path("");
        let mut arguments =
            vec!["--mount", "sh", "-c", CALL, "sh", directory.trim_end_matches('/')];
        arguments.extend([&*hook, "default", operation, part]);
        let said = self.run(program("unshare", &arguments))?;
        ensure!(said.is_empty(), "{operation}: {said:?}");
        let mut logged = [0; 4096];
        // It was sent before the hook ended.
        let len = self.log.recv(&mut logged).unwrap_or(0);
        Ok(String::from_utf8_lossy(&logged[..len]).into_owned())
    }

    fn attached(&self) -> Result<usize> {
        Ok(hooks(&self.scene.host, BRIDGE)?.len())
    }
}

#[test]
fn a_network_has_fixer_from_its_start_to_its_end() -> Result<()> {
    let caller = Caller::new()?;
    // Each operation of libvirt's, and how many programs are on the bridge then.
    for (operation, part, words, programs) in [
        ("start", "begin", "", 0),
        ("started", "begin", "<30>", 1),
        ("port-created", "begin", "", 1),
        ("started", "begin", "network default: replaced at egress of br0", 1),
        ("updated", "begin", "", 1),
        ("port-deleted", "begin", "", 1),
        ("stopped", "end", "", 0),
        ("stopped", "end", "", 0),
        ("started", "begin", "network default: attached to egress of br0", 1),
        ("stopped", "end", "", 0),
    ] {
        let logged = caller.call(operation, part, SERVED)?;
        let is_quiet = words.is_empty() && logged.is_empty();
        ensure!(is_quiet || !words.is_empty() && logged.contains(words), "{operation}: {logged}");
        ensure!(caller.attached()? == programs, "{operation}: {:?}", caller.attached());
    }
    ensure!(!fs::exists(PINS)?, "pins are left");
    Ok(())
}

#[test]
fn a_network_without_dhcp_is_left_alone() -> Result<()> {
    let caller = Caller::new()?;
    let (start, rest) = SERVED.split_once("<dhcp><range").context("it is above")?;
    let (_, end) = rest.split_once("</dhcp>").context("it is above")?;
    let bare = format!("{start}{end}");
    let passed_on = "<hookData><network><name>x</name><forward mode='bridge'/><bridge name='br0'/>\
                     </network></hookData>";
    for xml in [bare.as_str(), passed_on, "<hookData/>"] {
        let logged = caller.call("started", "begin", xml)?;
        ensure!(logged.is_empty() && caller.attached()? == 0, "{xml}: {logged}");
    }
    Ok(())
}

#[test]
fn what_goes_wrong_is_logged_and_keeps_no_network_from_starting() -> Result<()> {
    let caller = Caller::new()?;
    let elsewhere = SERVED.replace("'br0'", "'br7'");
    for (xml, words) in [
        ("", "its bridge is not known, because xmllint failed"),
        ("<hookData><network>", "its bridge is not known, because xmllint failed"),
        (&*elsewhere, "guests may get no lease: fixer: no interface 'br7'"),
    ] {
        let logged = caller.call("started", "begin", xml)?;
        ensure!(logged.starts_with("<27>") && logged.contains(words), "{xml}: {logged}");
    }
    fs::remove_file(caller.path("fixer"))?;
    fs::write(caller.path("fixer"), "")?;
    let logged = caller.call("started", "begin", SERVED)?;
    ensure!(logged.contains("guests may get no lease"), "{logged}");
    ensure!(caller.call("stopped", "end", SERVED)?.is_empty(), "stopped");
    Ok(())
}

#[test]
fn options_come_from_a_file() -> Result<()> {
    let caller = Caller::new()?;
    fs::write(caller.path("libvirt.toml"), "hook = \"both\"\n")?;
    let logged = caller.call("started", "begin", SERVED)?;
    ensure!(caller.attached()? == 2, "{logged}");
    fs::write(caller.path("libvirt.toml"), "hok = 1\n")?;
    let logged = caller.call("started", "begin", SERVED)?;
    ensure!(logged.contains("guests may get no lease: ") && logged.contains("hok"), "{logged}");
    Ok(())
}
