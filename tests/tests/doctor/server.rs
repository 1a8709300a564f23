//! Who serves, and who should not.

use std::{
    ffi::CString,
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Running, interfaces, output},
    tap::Tap,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        scene::{BRIDGE, Scene},
    },
    net::netns::NetNs,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::ReuseAddr,
    },
};

use super::{
    Diagnosis, Host,
    checksum::{dnsmasq_told, started},
    contains, finish_sums, run, scene,
};

/// OpenStack's hybrid: a bridge for each guest's rules, and the server on the next one.
#[test]
fn a_server_on_the_bridge_that_a_veth_pair_leads_to() -> Result<()> {
    let host = Host::partial()?;
    let netns = &host.scene.host;
    link::bridge(netns, "qbr0")?;
    link::veth(netns, "qvb0", netns, "qvo0")?;
    link::enslave(netns, "qvb0", "qbr0")?;
    let _guest = Tap::open(netns, "tap0", true)?;
    run(netns, "ip", "link set tap0 up master qbr0")?;
    let look = || Diagnosis::of(netns, &["-i", "qbr0"]);
    // Not yet a port of the other bridge, it leads nowhere.
    contains(&look()?.names("server", "possible")?, &["such as the one behind tap0"])?;
    link::enslave(netns, "qvo0", BRIDGE)?;
    let diagnosis = look()?;
    diagnosis.passes("server")?;
    contains(&diagnosis.names("checksum", "likely")?, &["ports that pass them on so: tap0"])?;
    host.finish_sums()?;
    diagnosis.passes("ports")?;
    look()?.is_healthy()?;
    // A pair into another switch leads to what cannot be seen from here.
    let other = NetNs::scratch("switch")?;
    link::delete(netns, "qvb0")?;
    link::veth(netns, "qvb0", &other, "qvo0")?;
    link::enslave(netns, "qvb0", "qbr0")?;
    contains(&look()?.names("server", "possible")?, &["the other end of qvb0"])
}

/// All of it leads to the same: it serves both bridges, and no third.
#[test]
fn dnsmasq_is_told_its_interfaces_in_many_ways() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    for (bridge, address) in [("br1", [10, 0, 4, 1]), ("br2", [10, 0, 5, 1])] {
        link::bridge(&scene.host, bridge)?;
        link::address(&scene.host, bridge, address.into(), 24)?;
    }
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    fs::write(path("dnsmasq.conf"), "# interface=br2\ninterface = br0,br1 # interface=br2\n")?;
    fs::create_dir(path("conf.d"))?;
    fs::write(path("conf.d/one.conf"), "interface=br0#br2\ninterface=br0\n")?;
    fs::write(path("conf.d/two.conf"), "interface=br1\n")?;
    for passed_over in ["three.conf.bak", ".four.conf", "five.conf~"] {
        fs::write(path("conf.d").to_owned() + "/" + passed_over, "interface=br2\n")?;
    }
    fs::write(path("outer.conf"), format!("conf-dir={},*.conf\n", path("conf.d")))?;
    let none = "--conf-file=/dev/null";
    let ways: Vec<Vec<String>> = vec![
        vec!["--interface=br0,br1".into(), none.into()],
        vec!["-ibr0".into(), "-i".into(), "br1".into(), none.into()],
        vec!["-C".into(), path("dnsmasq.conf")],
        vec![format!("-C{}", path("dnsmasq.conf"))],
        vec![format!("--conf-file={}", path("outer.conf"))],
        vec![none.into(), "-7".into(), format!("{},.bak", path("conf.d"))],
        vec!["--listen-address=10.0.3.1,10.0.4.1".into(), none.into()],
        vec!["--except-interface=br2".into(), none.into()],
        vec!["--no-dhcp-interface=br2".into(), none.into()],
        vec!["--no-dhcpv4-interface=br2".into(), none.into()],
        // Told nothing, it serves where it has addresses to give.
        vec![none.into()],
        // Its own file, which it reads unless it is told another.
        vec![],
    ];
    let own = CString::new(format!("lowerdir={}:/etc", directory.path().display()))?;
    for way in ways {
        let ranges = ["--dhcp-range=10.0.3.100,10.0.3.199", "--dhcp-range=10.0.4.100,10.0.4.199"];
        let words: Vec<&str> = way.iter().map(String::as_str).collect();
        let command = dnsmasq_told(&[&words[..], &ranges, &["--bind-dynamic"]].concat());
        let own = own.clone();
        let prepare = move || {
            const NONE: Option<&std::ffi::CStr> = None;
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            let kind = Some(c"overlay");
            Ok(mount(kind, c"/etc", kind, MsFlags::MS_RDONLY, Some(&*own))?)
        };
        let mut server = Running::start_as(&scene.host, command, prepare)?;
        server.stderr.wait("DHCP, IP range")?;
        for bridge in [BRIDGE, "br1"] {
            let diagnosis = Diagnosis::of(&scene.host, &["-i", bridge])?;
            diagnosis.is_healthy().with_context(|| format!("{bridge}, {way:?}"))?;
        }
        let diagnosis = Diagnosis::of(&scene.host, &["-i", "br2"])?;
        diagnosis.names("server", "certain").with_context(|| format!("{way:?}"))?;
        diagnosis.passes("leftover")?;
    }
    Ok(())
}

/// Who waits for an interface that is not there does no harm.
#[test]
fn a_server_for_an_interface_that_is_not_there_yet() -> Result<()> {
    let host = Host::new()?;
    let arguments = ["--conf-file=/dev/null", "--bind-dynamic", "--interface=br8,br9"];
    let range = ["--dhcp-range=10.0.8.100,10.0.8.199"];
    let server = started(&host.scene.host, dnsmasq_told(&[&arguments[..], &range].concat()))?;
    let diagnosis = host.diagnosis()?;
    let finding = diagnosis.names("leftover", "note")?;
    contains(&finding, &[&format!("dnsmasq (pid {})", server.pid()), "br8, br9"])?;
    ensure!(!finding.contains("kill") && diagnosis.status == Some(0), "{finding}");
    Ok(())
}

#[test]
fn a_server_whose_interface_is_gone() -> Result<()> {
    let host = Host::new()?;
    run(&host.scene.host, "ip", "link add old0 type bridge")?;
    run(&host.scene.host, "ip", "addr add 10.0.9.1/24 dev old0")?;
    run(&host.scene.host, "ip", "link set old0 up")?;
    let left = super::checksum::dnsmasq(&host.scene.host, "old0", "10.0.9", &[])?;
    host.diagnosis()?.is_healthy()?;
    link::delete(&host.scene.host, "old0")?;
    let finding = host.diagnosis()?.names("leftover", "possible")?;
    contains(&finding, &["is left over", &format!("kill {}", left.pid())])
}

/// A socket at the servers' port that takes from every interface, and lets others have it too.
pub(super) fn everywhere(netns: &NetNs) -> Result<OwnedFd> {
    netns.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 67))?;
        Ok(socket)
    })?
}

/// A host with dhcpd on one bridge, libvirt's dnsmasq on another, and containers without DHCP.
#[test]
fn a_server_with_packet_sockets_serves_where_these_are() -> Result<()> {
    let scene = scene()?;
    finish_sums(&scene)?;
    for (bridge, address) in [("virbr0", [10, 0, 4, 1]), ("docker0", [10, 0, 5, 1])] {
        link::bridge(&scene.host, bridge)?;
        link::address(&scene.host, bridge, address.into(), 24)?;
    }
    let _udp = everywhere(&scene.host)?;
    let packets = PacketSocket::open(&scene.host, BRIDGE)?;
    let _dnsmasq = super::checksum::dnsmasq(&scene.host, "virbr0", "10.0.4", &[])?;
    super::firewall::load(
        &scene.host,
        "add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }; \
         add rule inet f in ct state established,related accept; \
         add rule inet f in iifname { br0, virbr0 } udp dport 67 accept",
    )?;
    let diagnosis = Diagnosis::of(&scene.host, &[])?;
    for check in ["servers", "firewall", "checksum"] {
        diagnosis.passes(check)?;
    }
    contains(&diagnosis.names("server", "note")?, &["docker0"])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    // Of one without, it is not known where it serves: that is no alarm unless somebody asks.
    drop(packets);
    let diagnosis = Diagnosis::of(&scene.host, &[])?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    let diagnosis = Diagnosis::of(&scene.host, &["-i", "docker0"])?;
    diagnosis.names("firewall", "possible")?;
    diagnosis.passes("servers")?;
    ensure!(!diagnosis.report.to_string().contains("kill"), "{diagnosis:#?}");
    Ok(())
}

/// A server in a namespace of its own, as OpenStack has it, behind a port of the bridge.
pub(super) struct Behind {
    pub(super) scene: Scene,
    _netns: NetNs,
    _dnsmasq: Running,
}

pub(super) fn behind() -> Result<Behind> {
    let scene = scene()?;
    let netns = NetNs::scratch("qdhcp")?;
    link::veth(&scene.host, "tap-dhcp", &netns, "ns-dhcp")?;
    link::enslave(&scene.host, "tap-dhcp", BRIDGE)?;
    link::address(&netns, "ns-dhcp", [10, 0, 3, 2].into(), 24)?;
    let dnsmasq = super::checksum::dnsmasq(&netns, "ns-dhcp", "10.0.3", &[])?;
    ensure!(interfaces(&netns)?.len() == 2);
    Ok(Behind { scene, _netns: netns, _dnsmasq: dnsmasq })
}

#[test]
fn a_server_in_another_namespace_is_found_and_so_are_its_checksums() -> Result<()> {
    let behind = behind()?;
    let diagnosis = Diagnosis::of(&behind.scene.host, &["-i", BRIDGE])?;
    diagnosis.passes("server")?;
    let pid = behind._dnsmasq.pid();
    let finding = diagnosis.names("checksum", "likely")?;
    let option = format!("fixer attach -i ns-dhcp --netns pid:{pid}");
    contains(&finding, &[&format!("dnsmasq (pid {pid}) on pid:{pid}/ns-dhcp"), &option])?;
    let ingress = ["-i", "tap-dhcp", "--hook", "ingress", "--metrics", "off"];
    let _fixer = fixer_tests::command::attached(&behind.scene.host, &ingress)?;
    Diagnosis::of(&behind.scene.host, &["-i", BRIDGE])?.is_healthy()
}

/// Every namespace counts its interfaces from 1, so there are many with the same numbers.
#[test]
fn a_server_behind_another_bridge_of_the_same_numbers_is_not_taken_for_this_ones() -> Result<()> {
    let (here, there) = (scene()?, scene()?);
    let index = |scene: &Scene| {
        let line = run(&scene.host, "ip", "-o link show guest0")?;
        line.split(':').next().map(str::to_owned).context("no index")
    };
    ensure!(index(&here)? == index(&there)?);
    link::address(&there.guest, "eth0", [10, 0, 3, 2].into(), 24)?;
    let _dnsmasq = super::checksum::dnsmasq(&there.guest, "eth0", "10.0.3", &[])?;
    Diagnosis::of(&there.host, &["-i", BRIDGE])?.passes("server")?;
    Diagnosis::of(&here.host, &["-i", BRIDGE])?.names("server", "possible").map(drop)
}

/// Docker drops what is routed between containers, which ask no server.
#[test]
fn containers_without_dhcp_are_no_alarm() -> Result<()> {
    let scene = scene()?;
    let host = &scene.host;
    link::veth(host, "guest1", &scene.guest, "eth1")?;
    link::enslave(host, "guest1", BRIDGE)?;
    run(host, "iptables", "-P FORWARD DROP")?;
    run(host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=1")?;
    let diagnosis = Diagnosis::of(host, &[])?;
    diagnosis.names("bridge-nf", "note")?;
    ensure!(diagnosis.status == Some(0), "{diagnosis:#?}");
    run(host, "ip", "link add vx0 type vxlan id 5 dstport 4789 local 10.0.3.1")?;
    run(host, "ip", "link set vx0 up master br0")?;
    Diagnosis::of(host, &[])?.names("bridge-nf", "likely").map(drop)
}

#[test]
fn rules_for_routed_packets_act_on_bridged_ones_if_told_to() -> Result<()> {
    let behind = behind()?;
    let host = &behind.scene.host;
    run(host, "iptables", "-P FORWARD DROP")?;
    run(host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=0")?;
    let look = || Diagnosis::of(host, &["-i", BRIDGE]);
    look()?.passes("bridge-nf")?;
    run(host, "sysctl", "-w net.bridge.bridge-nf-call-iptables=1")?;
    let finding = look()?.names("bridge-nf", "likely")?;
    let words = ["ip filter FORWARD: policy drop", "bridge-nf-call-iptables=0"];
    contains(&finding, &words)?;
    // The bridge's own setting is another, and either does it.
    run(host, "ip", "link set br0 type bridge nf_call_iptables 1")?;
    let (diagnosis, seen) =
        (look()?, ["net.bridge.bridge-nf-call-iptables = 1", "nf_call_iptables 1"]);
    contains(&diagnosis.names("bridge-nf", "likely")?, &seen)?;
    for (at, is_last) in [(2, false), (1, true)] {
        let findings = diagnosis.report["findings"].as_array().context("there are no findings")?;
        let found = findings.iter().find(|finding| finding["check"] == "bridge-nf");
        let command = found.and_then(|finding| finding["do"][at].as_str());
        output(host, "sh", &["-c", command.context("no command")?])?;
        ensure!(look()?.passes("bridge-nf").is_ok() == is_last);
    }
    look()?.passes("bridge-nf")
}

/// What anybody may call an interface must not run when the administrator does what we say.
#[test]
fn names_are_quoted_in_commands() -> Result<()> {
    let scene = scene()?;
    let netns = NetNs::scratch("hostile")?;
    let name = ";reboot;$(id)";
    link::veth(&scene.host, "tap0", &netns, name)?;
    link::enslave(&scene.host, "tap0", BRIDGE)?;
    link::address(&netns, name, [10, 0, 3, 2].into(), 24)?;
    let server = super::checksum::dnsmasq(&netns, name, "10.0.3", &[])?;
    let diagnosis = Diagnosis::of(&scene.host, &["-i", BRIDGE])?;
    let command = diagnosis.remedy("checksum")?;
    let expected = format!("fixer attach -i ';reboot;$(id)' --netns pid:{}", server.pid());
    ensure!(command == expected, "{command}");
    Ok(())
}
