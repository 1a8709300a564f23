//! What the options of iptables and of ebtables ask, in the words of nftables.

use serde_json::{Value, json};

/// An option: its names, what it asks about, and what stands behind it.
type Meaning = (&'static [&'static str], &'static str, Given);

/// What stands behind an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing.
    Nothing,
    /// The name of an interface, or the beginning of one.
    Name,
    /// A word.
    Word,
    /// Several, with commas between them.
    Words,
    /// An address of IPv4, or a network.
    Network,
    /// A port, a range, or several.
    Ports,
    /// A hardware address, with a mask if it is several.
    Mac,
}

/// The options of iptables.
pub(super) const IPTABLES: &[Meaning] = &[
    (&["-i"], "meta iifname", Given::Name),
    (&["-o"], "meta oifname", Given::Name),
    (&["-p"], "meta l4proto", Given::Word),
    (&["-s"], "ip saddr", Given::Network),
    (&["-d"], "ip daddr", Given::Network),
    (&["-f"], "ip fragment", Given::Nothing),
    (&["--dport", "--dports"], "udp dport", Given::Ports),
    (&["--sport", "--sports"], "udp sport", Given::Ports),
    (&["--ports"], "udp ports", Given::Ports),
    (&["--ctstate", "--state"], "ct state", Given::Words),
    (&["--ctstatus"], "ct status", Given::Words),
    (&["--ctdir"], "ct direction", Given::Words),
    (&["--pkt-type"], "meta pkttype", Given::Word),
    (&["--dst-type"], "fib daddr", Given::Words),
    (&["--src-type"], "fib saddr", Given::Words),
    (&["--mac-source"], "ether saddr", Given::Mac),
    (&["--physdev-in"], "physdev in", Given::Name),
    (&["--physdev-out"], "physdev out", Given::Name),
    (&["--physdev-is-in"], "physdev is-in", Given::Nothing),
    (&["--physdev-is-out"], "physdev is-out", Given::Nothing),
    (&["--physdev-is-bridged"], "physdev is-bridged", Given::Nothing),
];

/// The options of ebtables.
pub(super) const EBTABLES: &[Meaning] = &[
    (&["-i"], "meta iifname", Given::Name),
    (&["-o"], "meta oifname", Given::Name),
    (&["--logical-in"], "meta ibrname", Given::Name),
    (&["--logical-out"], "meta obrname", Given::Name),
    (&["-p"], "ether type", Given::Word),
    (&["-s"], "ether saddr", Given::Mac),
    (&["-d"], "ether daddr", Given::Mac),
    (&["--ip-proto", "--ip-protocol"], "ip protocol", Given::Word),
    (&["--ip-src", "--ip-source"], "ip saddr", Given::Network),
    (&["--ip-dst", "--ip-destination"], "ip daddr", Given::Network),
    (&["--ip-sport", "--ip-source-port"], "udp sport", Given::Ports),
    (&["--ip-dport", "--ip-destination-port"], "udp dport", Given::Ports),
    (&["--pkttype-type"], "meta pkttype", Given::Word),
];

/// Matches whose names say nothing by themselves: they are told by their options.
pub(super) const TOLD: [&str; 13] = [
    "addrtype",
    "comment",
    "conntrack",
    "hashlimit",
    "icmp",
    "limit",
    "mac",
    "multiport",
    "physdev",
    "pkttype",
    "state",
    "tcp",
    "udp",
];

/// Options that ask nothing more.
pub(super) const SILENT: [&str; 6] = [
    "--limit-iface-in",
    "--limit-iface-out",
    "--loose",
    "--validmark",
    "--accept-local",
    "--invert",
];

/// What nftables calls what an option asks about: a kind, and a name of that kind.
pub(super) fn left(asked: &str) -> Value {
    let (kind, name) = asked.split_once(' ').unwrap_or((asked, ""));
    match kind {
        "meta" | "ct" | "physdev" => json!({kind: {"key": name}}),
        "fib" => json!({"fib": {"result": "type", "flags": [name]}}),
        _ => json!({"payload": {"protocol": kind, "field": name}}),
    }
}

/// What is compared, left and right.
pub(super) fn sides(asked: &str, kind: Given, given: &str) -> (Value, Value) {
    let right = match kind {
        Given::Nothing => true.into(),
        // iptables writes a glob with a plus.
        Given::Name => match given.strip_suffix('+') {
            Some(start) => format!("{start}*").into(),
            None => given.into(),
        },
        Given::Word => word(given).into(),
        Given::Words => given.split(',').map(|one| Value::from(one.to_lowercase())).collect(),
        Given::Network => network(given),
        Given::Ports if given.contains(',') => given.split(',').map(ports).collect(),
        Given::Ports => ports(given),
        Given::Mac => return hardware(asked, given),
    };
    (left(asked), right)
}

fn word(given: &str) -> String {
    match given {
        "17" => "udp".to_owned(),
        "IPv4" | "0x0800" => "ip".to_owned(),
        "IPv6" => "ip6".to_owned(),
        "802_1Q" => "vlan".to_owned(),
        word => word.to_lowercase(),
    }
}

fn network(given: &str) -> Value {
    let (address, len) = given.split_once('/').unwrap_or((given, "32"));
    // Some write a mask in place of a length.
    let mask = |len: &str| {
        let mask = len.parse::<std::net::Ipv4Addr>().ok()?.to_bits();
        (mask.leading_ones() + mask.trailing_zeros() >= 32).then(|| mask.leading_ones())
    };
    json!({"prefix": {"addr": address, "len": len.parse().ok().or_else(|| mask(len))}})
}

fn ports(given: &str) -> Value {
    let number = |given: &str| given.parse::<u16>().unwrap_or_default();
    match given.split_once(':') {
        Some((first, last)) => json!({"range": [number(first), number(last)]}),
        None => number(given).into(),
    }
}

/// ebtables has names for a few.
fn hardware(asked: &str, given: &str) -> (Value, Value) {
    const GROUP: &str = "01:00:00:00:00:00";
    let (address, mask) = match given {
        "Broadcast" => ("ff:ff:ff:ff:ff:ff", None),
        "Multicast" => (GROUP, Some(GROUP)),
        "Unicast" => ("00:00:00:00:00:00", Some(GROUP)),
        given => match given.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (given, None),
        },
    };
    let left = match mask {
        Some(mask) => json!({"&": [left(asked), mask.to_lowercase()]}),
        None => left(asked),
    };
    (left, address.to_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(given: &str, kind: Given) -> Value {
        sides("ip saddr", kind, given).1
    }

    #[test]
    fn what_stands_behind_options() {
        let network = |given: &str| right(given, Given::Network);
        assert_eq!(network("10.0.3.7"), json!({"prefix": {"addr": "10.0.3.7", "len": 32}}));
        assert_eq!(network("10.0.0.0/255.255.0.0"), network("10.0.0.0/16"));
        let unknown = json!({"prefix": {"addr": "10.0.0.0", "len": null}});
        assert_eq!(network("10.0.0.0/255.0.255.0"), unknown);
        assert_eq!(right("53,67:68", Given::Ports), json!([53, {"range": [67, 68]}]));
        assert_eq!(right("RELATED,ESTABLISHED", Given::Words), json!(["related", "established"]));
        assert_eq!(right("IPv4", Given::Word), "ip");
        assert_eq!(right("vnet+", Given::Name), "vnet*");
    }

    #[test]
    fn hardware_addresses_have_masks_and_names() {
        let sides = |given: &str| sides("ether daddr", Given::Mac, given);
        let (plain, address) = sides("02:00:00:AB:00:01");
        assert_eq!((plain, address), (left("ether daddr"), "02:00:00:ab:00:01".into()));
        let group = "01:00:00:00:00:00/01:00:00:00:00:00";
        assert_eq!(sides("Multicast"), sides(group));
        assert_eq!(sides(group).0, json!({"&": [left("ether daddr"), "01:00:00:00:00:00"]}));
    }
}
