//! Replies that go through the bridge, from one port to another: only these come to the rules of iptables that
//! `bridge-nf-call-iptables` calls. What the host itself sends out of the bridge does not.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{command::turn_off, mounts::private_mounts};
use fixer_user::{
    lab::{
        link,
        packet::{PacketSocket, wait_until_open},
        scene::{BRIDGE, Dnsmasq, GUEST, PORT, SERVER, Scene},
        strict,
    },
    net::netns::NetNs,
};

use crate::{
    BRIDGED, PATIENCE, REPLIES, WAYS, arrives_mended, attached_at, ruled, saw_each, state,
    untouched,
};

/// The server's port.
const SERVERS: &str = "server0";

/// Where fixer is: before the rule, or behind it.
const PLACES: [(&str, &str); 2] = [(SERVERS, "ingress"), (PORT, "egress")];

/// Mended twice, by fixer and by the rule, in whichever order, they are right, and the rule acts on each.
#[test]
fn a_rule_for_what_is_bridged_may_mend_the_same_replies() -> Result<()> {
    private_mounts(true)?;
    for has_offload in [true, false] {
        let scene = Scene::new()?;
        let server = NetNs::scratch("server")?;
        link::up(&server, "lo")?;
        // For dnsmasq it is what the bridge is elsewhere.
        link::veth(&server, BRIDGE, &scene.host, SERVERS)?;
        link::enslave(&scene.host, SERVERS, BRIDGE)?;
        link::address(&server, BRIDGE, IpAddr::V4(SERVER), 24)?;
        if !has_offload {
            turn_off(&scene.host, PORT, "tx")?;
        }
        BRIDGED.comes(&scene)?;
        let served = Scene { host: server, guest: scene.guest.clone() };
        let sender = PacketSocket::open(&served.host, BRIDGE)?;
        let receiver = PacketSocket::open(&scene.guest, GUEST)?;
        wait_until_open(&sender, &receiver)?;
        let _dnsmasq = Dnsmasq::start(&served)?;
        let before = state(&scene)?;
        for place in PLACES {
            for way in WAYS {
                attached_at(&scene, place, way, || {
                    let rules = ruled(&scene)?;
                    ensure!(rules.len() == 1, "{rules:?}");
                    let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 0, 0x92], PATIENCE)?;
                    ensure!(asked.lease.is_some() && asked.bad.is_empty(), "no lease: {asked:?}");
                    for number in 0..REPLIES {
                        arrives_mended(&sender, &receiver, number as u8)?;
                    }
                    saw_each(&rules, &ruled(&scene)?, asked.replies as u64 + REPLIES)?;
                    untouched(&before, &state(&scene)?)
                })
                .with_context(|| format!("{way:?} at {place:?}, offload: {has_offload}"))?;
            }
        }
    }
    Ok(())
}
