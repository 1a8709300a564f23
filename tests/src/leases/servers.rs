//! The one table of servers. Each serves the pool that every client's row looks for.

use super::{
    Protocol::{self, Dhcpv4, Dhcpv6},
    program::Recipe,
};

/// A server.
#[derive(Debug)]
pub struct Server {
    /// Its name in the matrix.
    pub name: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    /// Who computes the checksums of its replies.
    pub sums: Sums,
    /// How it is started.
    pub recipe: Recipe,
}

/// Who computes the checksums of a server's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// The kernel, for it sends through a UDP socket: over a bridge they stay partial.
    Kernel,
    /// The server itself, for it sends whole frames through a raw socket: they are always right.
    Server,
}

/// Every server, those of DHCPv4 first.
pub const SERVERS: &[Server] = &[
    Server { name: "dnsmasq", protocol: Dhcpv4, sums: Sums::Kernel, recipe: DNSMASQ },
    Server { name: "dhcpd", protocol: Dhcpv4, sums: Sums::Server, recipe: DHCPD },
    Server { name: "kea", protocol: Dhcpv4, sums: Sums::Server, recipe: KEA },
    Server { name: "dnsmasq", protocol: Dhcpv6, sums: Sums::Kernel, recipe: DNSMASQ },
    Server {
        name: "dhcpd",
        protocol: Dhcpv6,
        sums: Sums::Kernel,
        recipe: Recipe {
            arguments: "-6 -f -d -cf /run/dhcpd.conf -lf /run/dhcpd.leases --no-pid br0",
            files: &[
                (
                    "/run/dhcpd.conf",
                    "authoritative; subnet6 fd00:3::/64 { range6 fd00:3::100 fd00:3::1ff; }\n",
                ),
                ("/run/dhcpd.leases", ""),
            ],
            ..DHCPD
        },
    },
    Server {
        name: "kea",
        protocol: Dhcpv6,
        sums: Sums::Kernel,
        recipe: Recipe {
            package: "kea-dhcp6-server",
            program: "kea-dhcp6",
            files: &[(
                "/run/kea.json",
                r#"{"Dhcp6": {
                    "interfaces-config": {"interfaces": ["br0"]},
                    "server-id": {"type": "LL", "persist": false},
                    "lease-database": {"type": "memfile", "persist": false},
                    "subnet6": [{
                        "subnet": "fd00:3::/64",
                        "interface": "br0",
                        "pools": [{"pool": "fd00:3::100 - fd00:3::1ff"}]
                    }],
                    "loggers": [{
                        "name": "kea-dhcp6",
                        "severity": "INFO",
                        "output_options": [{"output": "stdout"}]
                    }]
                }}"#,
            )],
            says: "DHCP6_STARTED",
            ..KEA
        },
    },
];

/// dnsmasq, in the foreground. It does not ping before it offers: that takes three seconds.
const DNSMASQ: Recipe = Recipe {
    package: "dnsmasq-base",
    program: "dnsmasq",
    arguments: "--keep-in-foreground --log-facility=- --conf-file=/dev/null --port=0 --no-resolv \
                --no-hosts --no-ping --leasefile-ro --user=root --group=root --pid-file \
                --bind-interfaces --interface=br0 --dhcp-authoritative \
                --dhcp-range=10.0.3.100,10.0.3.199,255.255.255.0,1h \
                --dhcp-range=fd00:3::100,fd00:3::1ff,64,1h",
    environment: &[],
    files: &[],
    says: "sockets bound exclusively to interface",
};

/// ISC dhcpd, in the foreground. The file with its leases has to be there.
const DHCPD: Recipe = Recipe {
    package: "isc-dhcp-server",
    program: "dhcpd",
    arguments: "-4 -f -d -cf /run/dhcpd.conf -lf /run/dhcpd.leases --no-pid br0",
    environment: &[],
    files: &[
        (
            "/run/dhcpd.conf",
            "authoritative; ping-check false; \
             subnet 10.0.3.0 netmask 255.255.255.0 { range 10.0.3.100 10.0.3.199; }\n",
        ),
        ("/run/dhcpd.leases", ""),
    ],
    says: "Server starting service.",
};

/// Kea, in the foreground.
const KEA: Recipe = Recipe {
    package: "kea-dhcp4-server",
    program: "kea-dhcp4",
    arguments: "-c /run/kea.json",
    environment: &[("KEA_LOCKFILE_DIR", "none"), ("KEA_PIDFILE_DIR", "/run")],
    files: &[(
        "/run/kea.json",
        r#"{"Dhcp4": {
            "interfaces-config": {"interfaces": ["br0"]},
            "lease-database": {"type": "memfile", "persist": false},
            "subnet4": [{
                "subnet": "10.0.3.0/24",
                "pools": [{"pool": "10.0.3.100 - 10.0.3.199"}]
            }],
            "loggers": [{
                "name": "kea-dhcp4",
                "severity": "INFO",
                "output_options": [{"output": "stdout"}]
            }]
        }}"#,
    )],
    says: "DHCP4_STARTED",
};
