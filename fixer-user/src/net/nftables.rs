//! Which tables of nftables there are: for those who have no nft to ask.

use std::{fs, io, path::Path};

use netlink_packet_core::{
    Emitable as _, ErrorBuffer, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::netns::NetNs;
use crate::metrics::kernel;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family, as nft calls it.
    pub family: &'static str,
    /// Its name.
    pub name: String,
}

/// The request, and its answer (`NFNL_SUBSYS_NFTABLES`, `NFT_MSG_GETTABLE`, `NFT_MSG_NEWTABLE`).
const GET: u16 = 10 << 8 | 1;
const NEW: u16 = 10 << 8;
/// The attribute that holds a table's name (`NFTA_TABLE_NAME`).
const NAME: u16 = 1;
/// How long a message's header is, and how long that of netfilter's behind it (`nfgenmsg`).
const HEADERS: [usize; 2] = [16, 4];
/// Families by their numbers (`NFPROTO_*`): those in which DHCPv4 is seen.
const FAMILIES: [(u8, &str); 4] = [(1, "inet"), (2, "ip"), (5, "netdev"), (7, "bridge")];

/// The tables in which DHCPv4 is seen.
pub fn tables(netns: &NetNs) -> io::Result<Vec<Table>> {
    if is_idle() {
        return Ok(Vec::new());
    }
    let told = netns.run(dump)?;
    // A kernel without netfilter, or without nftables, has no such tables.
    let is_missing = |error: &io::Error| {
        matches!(
            error.raw_os_error(),
            Some(libc::EPROTONOSUPPORT | libc::EINVAL | libc::EOPNOTSUPP)
        )
    };
    match told {
        Err(error) if is_missing(&error) => Ok(Vec::new()),
        told => told,
    }
}

/// Whether the kernel has nftables as a module that nobody has loaded. To ask would load it.
fn is_idle() -> bool {
    let is_loaded = |modules: &str| modules.lines().any(|line| line.starts_with("nf_tables "));
    let list = Path::new("/lib/modules").join(kernel()).join("modules.dep");
    fs::read_to_string("/proc/modules").is_ok_and(|modules| !is_loaded(&modules))
        && fs::read_to_string(list).is_ok_and(|list| list.contains("/nf_tables.ko"))
}

fn dump() -> io::Result<Vec<Table>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    let mut request = [0; HEADERS[0] + HEADERS[1]];
    let mut header = NetlinkHeader::default();
    header.length = request.len() as u32;
    header.message_type = GET;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.emit(&mut request);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while let Ok(message) = NetlinkBuffer::new_checked(rest) {
            match message.message_type() {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(refusal(message.payload())),
                NEW => found.extend(table(message.payload())),
                _ => {}
            }
            let len = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

fn refusal(payload: &[u8]) -> io::Error {
    let code = ErrorBuffer::new_checked(payload).ok().and_then(|error| error.code());
    code.map_or_else(
        || io::Error::other("an empty answer"),
        |code| io::Error::from_raw_os_error(-code.get()),
    )
}

fn table(payload: &[u8]) -> Option<Table> {
    let (header, attributes) = payload.split_at_checked(HEADERS[1])?;
    let (_, family) = FAMILIES.iter().find(|(number, _)| *number == header[0])?;
    let name =
        NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == NAME)?;
    let name = String::from_utf8_lossy(name.value()).trim_end_matches('\0').to_owned();
    Some(Table { family, name })
}
