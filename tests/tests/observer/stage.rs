//! A bridge with a real dnsmasq behind it, three guests before it, and everybody who asks there.

use std::{net::Ipv4Addr, thread};

use anyhow::{Result, ensure};
use dhcproto::{
    Encodable as _,
    v4::{DhcpOption, Message, MessageType, Opcode},
};
use fixer_tests::{
    client,
    command::PATIENCE,
    leases::{
        Protocol::{self, Dhcpv4, Dhcpv6},
        clients::{CLIENTS, Kind},
        program::{Programs, Recipe, Started},
        stage,
        wire::Wire,
    },
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        reply::{self, CHECKSUM_AT},
        scene::{BRIDGE, GUEST, PORT, SERVER},
        strict,
    },
    net::netns::NetNs,
};

/// The ports of the bridge that the guests are behind.
pub const PORTS: [&str; 3] = [PORT, "guest1", "guest2"];

/// The transactions of the last messages of all, one for each guest.
pub const LAST: [u32; 3] = [0xfeed_0000, 0xfeed_0001, 0xfeed_0002];

/// The transactions of a reply whose sum is wrong, and of one that has none.
pub const CORRUPT: u32 = 0xbad0_0001;
const UNCHECKED: u32 = 0xbad0_0002;

/// The strict client, which has an address of its own.
const STRICT: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// dnsmasq. It tells clients apart by what they call themselves: `PXEClient` is told what to boot,
/// `long` more than has room among the options (and of that, what comes first here goes last and into the
/// fields that are overloaded), `slow` has to wait, and `nobody` is not answered.
const DNSMASQ: Recipe = Recipe {
    package: "dnsmasq-base",
    program: "dnsmasq",
    arguments: "--keep-in-foreground --log-facility=- --conf-file=/run/dnsmasq.conf --pid-file",
    environment: &[],
    files: &[(
        "/run/dnsmasq.conf",
        "port=0
no-resolv
no-hosts
no-ping
leasefile-ro
user=root
group=root
bind-interfaces
interface=br0
dhcp-authoritative
dhcp-range=10.0.3.100,10.0.3.199,255.255.255.0,1h
dhcp-range=fd00:3::100,fd00:3::1ff,64,1h
dhcp-vendorclass=set:pxe,PXEClient
dhcp-boot=tag:pxe,pxelinux.0,boothost,10.0.3.9
dhcp-vendorclass=set:long,long
dhcp-option-force=tag:long,67,overloaded/netboot.efi
dhcp-option-force=tag:long,60,HTTPClient:Arch:00016
dhcp-option-force=tag:long,203,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-option-force=tag:long,204,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-option-force=tag:long,205,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-option-force=tag:long,206,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-option-force=tag:long,207,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-option-force=tag:long,208,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
dhcp-vendorclass=set:slow,slow
dhcp-reply-delay=tag:slow,1
dhcp-vendorclass=set:nobody,nobody
dhcp-ignore=tag:nobody
",
    )],
    says: "sockets bound exclusively to interface",
};

/// Everybody's place.
pub struct Stage {
    /// Where the bridge and the server are.
    pub host: NetNs,
    /// Where the clients are.
    pub guests: [NetNs; 3],
    /// Whether the strict client can get a lease.
    is_fixed: bool,
    programs: Programs,
    _dnsmasq: Started,
    _stage: stage::Stage,
}

impl Stage {
    /// Makes everything, and waits until the server listens.
    pub fn set(is_fixed: bool) -> Result<Self> {
        let stage = stage::Stage::set(Wire::Veth)?;
        let (host, first) = (stage.host.clone(), stage.guest.clone());
        let guests = [first, stage.another_guest(PORTS[1])?, stage.another_guest(PORTS[2])?];
        let programs = Programs::open()?;
        let mut dnsmasq = programs.start(&host, &DNSMASQ)?;
        if !dnsmasq.says(DNSMASQ.says, PATIENCE) {
            ensure!(false, "dnsmasq does not listen; it said {:#?}", dnsmasq.said());
        }
        Ok(Self { host, guests, is_fixed, programs, _dnsmasq: dnsmasq, _stage: stage })
    }

    /// Plays everything: in each guest one client after another, in all guests at once. Then what is told
    /// apart by its times, and what no program says on demand.
    pub fn play(&self) -> Result<()> {
        let udhcpc = |arguments: &'static str| Recipe { arguments, ..recipe("udhcpc", Dhcpv4) };
        let pxe = udhcpc(
            "udhcpc -i eth0 -f -q -n -t 8 -T 1 -s /bin/true -V PXEClient:Arch:00000:UNDI:002001",
        );
        let pxe_asks = udhcpc(
            "udhcpc -i eth0 -f -q -n -t 8 -T 1 -s /bin/true -O 66 -O 67 -V PXEClient:Arch:00007",
        );
        let long = udhcpc("udhcpc -i eth0 -f -q -n -t 8 -T 1 -s /bin/true -V long");
        let nobody = Recipe {
            says: "no lease, failing",
            ..udhcpc("udhcpc -i eth0 -f -q -n -t 2 -T 1 -s /bin/true -V nobody")
        };
        let four = |name| recipe(name, Dhcpv4);
        let six = |name| recipe(name, Dhcpv6);
        let clients = [
            vec![four("udhcpc"), four("dhcpcd"), six("dhclient"), pxe],
            vec![long, four("dhclient"), six("dhcpcd"), pxe_asks],
            vec![refused(), six("systemd-networkd"), four("systemd-networkd"), nobody],
        ];
        let programs = &self.programs;
        thread::scope(|scope| -> Result<()> {
            let guests = self.guests.iter().zip(&clients);
            let threads: Vec<_> = guests
                .map(|(guest, clients)| {
                    scope.spawn(move || one_after_another(programs, guest, clients))
                })
                .collect();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(())
        })?;
        let patience = if self.is_fixed { PATIENCE } else { std::time::Duration::from_secs(2) };
        let asked = strict::ask(&self.guests[0], GUEST, STRICT, patience)?;
        ensure!(asked.lease.is_some() == self.is_fixed && asked.replies > 0, "{asked:?}");
        one_after_another(programs, &self.guests[1], &[slow()])?;
        self.raw()
    }

    /// One client that takes no offer, one whose request nobody answers, and one each that asks for
    /// settings only, gives its address back, or found it taken.
    fn raw(&self) -> Result<()> {
        use MessageType::{Decline, Discover, Inform, Release, Request};
        let (server, none) = (DhcpOption::ServerIdentifier(SERVER), Ipv4Addr::UNSPECIFIED);
        let nobody = DhcpOption::ClassIdentifier(b"nobody".to_vec());
        // Whoever asks for settings has an address, and is answered there.
        let own = Ipv4Addr::new(10, 0, 3, 200);
        link::address(&self.guests[0], GUEST, own.into(), 24)?;
        for (number, message_type, address, options) in [
            (1, Discover, none, vec![]),
            (2, Request, none, vec![nobody, server.clone()]),
            (3, Inform, own, vec![]),
            (4, Release, own, vec![server.clone()]),
            (5, Decline, none, vec![server]),
        ] {
            self.say(0, number, message_type, number.into(), address, &options)?;
        }
        self.damaged()
    }

    /// Replies that nobody should mend: fixer must neither make a damaged one look well, nor give one a
    /// sum that has none.
    fn damaged(&self) -> Result<()> {
        let none = Ipv4Addr::UNSPECIFIED;
        let sender = PacketSocket::open(&self.host, BRIDGE)?;
        for xid in [CORRUPT, UNCHECKED] {
            let mac = [2, 0, 0, 0, 1, 0xff];
            let mut message = Message::new_with_id(xid, none, none, none, none, &mac);
            message.set_opcode(Opcode::BootReply);
            message.opts_mut().insert(DhcpOption::MessageType(MessageType::Offer));
            message.opts_mut().insert(DhcpOption::ServerIdentifier(SERVER));
            let mut frame = reply::frame(&message.to_vec()?);
            match xid {
                CORRUPT => frame[CHECKSUM_AT] ^= 0x55,
                _ => frame[CHECKSUM_AT..CHECKSUM_AT + 2].fill(0),
            }
            sender.send(&frame, None)?;
        }
        Ok(())
    }

    /// The last message of a guest: it asks for an address that is refused, and all hear of it.
    pub fn last(&self, guest: usize) -> Result<()> {
        let foreign = DhcpOption::RequestedIpAddress(Ipv4Addr::new(192, 168, 99, 9));
        let (request, none) = (MessageType::Request, Ipv4Addr::UNSPECIFIED);
        self.say(guest, 0x10 + guest as u8, request, LAST[guest], none, &[foreign])
    }

    fn say(
        &self,
        guest: usize,
        client: u8,
        message_type: MessageType,
        xid: u32,
        address: Ipv4Addr,
        options: &[DhcpOption],
    ) -> Result<()> {
        let mac = [2, 0, 0, 0, 1, client];
        let frame = client::frame_of(mac, message_type, xid, address, options)?;
        Ok(PacketSocket::open(&self.guests[guest], GUEST)?.send(&frame, None)?)
    }
}

fn one_after_another(programs: &Programs, guest: &NetNs, clients: &[Recipe]) -> Result<()> {
    for recipe in clients {
        let mut client = programs.start(guest, recipe)?;
        let is_done = client.says(recipe.says, PATIENCE);
        ensure!(is_done, "{recipe:?} has said {:#?}", client.said());
    }
    Ok(())
}

/// A client of the table.
fn recipe(name: &str, protocol: Protocol) -> Recipe {
    let client = CLIENTS.iter().find(|row| row.name == name && row.protocol == protocol);
    match client.map(|row| &row.kind) {
        Some(Kind::Program(recipe)) => *recipe,
        _ => panic!("no {protocol} client {name} in the table"),
    }
}

/// dhclient that remembers an address from elsewhere: it asks for that, is refused, and starts over.
fn refused() -> Recipe {
    Recipe {
        files: &[
            ("/run/dhclient.conf", "initial-interval 3; backoff-cutoff 3; timeout 20;\n"),
            (
                "/run/dhclient.leases",
                "lease { interface \"eth0\"; fixed-address 192.168.99.9; \
                 option subnet-mask 255.255.255.0; option dhcp-message-type 5; \
                 option dhcp-server-identifier 10.0.3.1; renew never; rebind never; expire never; }\n",
            ),
        ],
        ..recipe("dhclient", Dhcpv4)
    }
}

/// dhclient that waits for more offers, with a server that takes its time: what happens between DISCOVER
/// and OFFER and between OFFER and REQUEST each takes a second.
fn slow() -> Recipe {
    Recipe {
        files: &[(
            "/run/dhclient.conf",
            "initial-interval 8; backoff-cutoff 8; timeout 20; select-timeout 2; \
             send vendor-class-identifier \"slow\";\n",
        )],
        ..recipe("dhclient", Dhcpv4)
    }
}
