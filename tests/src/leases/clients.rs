//! The one table of clients.
//!
//! None of them runs a script: what a lease would change on the machine is not the question. Those of
//! DHCPv6 ask without waiting for a router's word.

use super::{
    Protocol::{self, Dhcpv4, Dhcpv6},
    program::Recipe,
};

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it is.
    pub kind: Kind,
}

/// What a client is.
#[derive(Debug)]
pub enum Kind {
    /// smoltcp, which verifies every checksum and believes no mark; it is part of the suites.
    Strict,
    /// A program.
    Program(Recipe),
}

impl Client {
    /// Whether it drops what does not verify, although the kernel says that the sum is partial.
    pub fn is_strict(&self) -> bool {
        matches!(self.kind, Kind::Strict)
    }
}

/// Every client, those of DHCPv4 first.
pub const CLIENTS: &[Client] = &[
    Client { name: "smoltcp", protocol: Dhcpv4, kind: Kind::Strict },
    Client { name: "udhcpc", protocol: Dhcpv4, kind: Kind::Program(UDHCPC) },
    Client { name: "dhclient", protocol: Dhcpv4, kind: Kind::Program(DHCLIENT) },
    Client { name: "dhcpcd", protocol: Dhcpv4, kind: Kind::Program(DHCPCD) },
    Client { name: "systemd-networkd", protocol: Dhcpv4, kind: Kind::Program(NETWORKD) },
    Client {
        name: "dhclient",
        protocol: Dhcpv6,
        kind: Kind::Program(Recipe {
            arguments: "-6 -1 -d -v -sf /bin/true -cf /run/dhclient.conf -lf /run/dhclient.leases \
                        --no-pid eth0",
            says: "PRC: Bound to lease",
            ..DHCLIENT
        }),
    },
    Client {
        name: "dhcpcd",
        protocol: Dhcpv6,
        kind: Kind::Program(Recipe {
            arguments: "-6 -B -d -f /var/lib/dhcpcd/dhcpcd.conf -c /bin/true eth0",
            says: "adding address fd00:3::",
            ..DHCPCD
        }),
    },
    Client {
        name: "systemd-networkd",
        protocol: Dhcpv6,
        kind: Kind::Program(Recipe {
            files: &[(
                "/run/systemd/network/eth0.network",
                "[Match]\nName=eth0\n\
                 [Network]\nDHCP=ipv6\nIPv6AcceptRA=no\n\
                 [DHCPv6]\nWithoutRA=solicit\n",
            )],
            says: "DHCPv6 address fd00:3::",
            ..NETWORKD
        }),
    },
];

/// busybox's client, in the foreground. Debian's busybox has none for DHCPv6.
const UDHCPC: Recipe = Recipe {
    package: "busybox-static",
    program: "busybox",
    arguments: "udhcpc -i eth0 -f -q -n -t 8 -T 1 -s /bin/true",
    environment: &[],
    files: &[],
    says: "lease of 10.0.3.",
};

/// ISC dhclient, in the foreground.
const DHCLIENT: Recipe = Recipe {
    package: "isc-dhcp-client",
    program: "dhclient",
    arguments: "-4 -1 -d -v -sf /bin/true -cf /run/dhclient.conf -lf /run/dhclient.leases \
                --no-pid eth0",
    environment: &[],
    files: &[("/run/dhclient.conf", "initial-interval 3; backoff-cutoff 3; timeout 20;\n")],
    says: "bound to 10.0.3.",
};

/// dhcpcd, in the foreground. Its configuration lies where it keeps its leases, for that directory
/// has to be there.
const DHCPCD: Recipe = Recipe {
    package: "dhcpcd-base",
    program: "dhcpcd",
    arguments: "-4 -B -d -f /var/lib/dhcpcd/dhcpcd.conf -c /bin/true eth0",
    environment: &[],
    files: &[("/var/lib/dhcpcd/dhcpcd.conf", "noarp\nnodelay\nnoipv6rs\nia_na\n")],
    says: "eth0: leased 10.0.3.",
};

/// systemd-networkd, as it runs in a container: a read-only `/sys` tells it not to wait for udev.
const NETWORKD: Recipe = Recipe {
    package: "systemd",
    program: "systemd-networkd",
    arguments: "",
    environment: &[("SYSTEMD_LOG_TARGET", "console"), ("SYSTEMD_LOG_LEVEL", "info")],
    files: &[(
        "/run/systemd/network/eth0.network",
        "[Match]\nName=eth0\n\
         [Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n",
    )],
    says: "DHCPv4 address 10.0.3.",
};
