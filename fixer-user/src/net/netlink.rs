//! Conversations with rtnetlink inside a namespace, for those who have no runtime.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::netns::NetNs;

/// What speaks it for us, as it calls itself in log lines.
pub const LIBRARY: &str = "netlink_proto";

/// Runs one conversation with rtnetlink inside a namespace, and waits for its end.
pub fn converse<T: Send>(
    netns: &NetNs,
    talk: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T, rtnetlink::Error> + Send,
) -> io::Result<T> {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            talk(handle).await.map_err(error)
        })
    })?
}

/// What the kernel said, as its errno.
pub fn error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// What the kernel answered to some requests.
#[derive(Debug)]
pub struct Answer {
    /// What it told, as far as it can be read here.
    pub told: Vec<RouteNetlinkMessage>,
    /// How many messages cannot be, such as a filter of a kind that is not known.
    pub unread: usize,
    /// How each request ended, in their order.
    pub outcomes: Vec<io::Result<()>>,
}

/// Makes some requests in the calling thread's namespace. Each has its flags beside `NLM_F_REQUEST`, and
/// is to be acknowledged (`NLM_F_ACK`) or a dump.
///
/// They go in one system call, so the kernel works through all of them even if the process is killed in
/// the meantime. One that is refused does not keep it from the next.
pub fn ask<const N: usize>(requests: [(u16, RouteNetlinkMessage); N]) -> io::Result<Answer> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut bytes = Vec::new();
    for (number, (flags, request)) in requests.into_iter().enumerate() {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = number as u32;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let (mut told, mut unread) = (Vec::new(), 0);
    let mut outcomes: Vec<Option<io::Result<()>>> = (0..N).map(|_| None).collect();
    while outcomes.iter().any(Option::is_none) {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            let Some(message) = message else {
                unread += 1;
                continue;
            };
            let outcome = outcomes.get_mut(message.header.sequence_number as usize);
            match (message.payload, outcome) {
                (NetlinkPayload::Error(error), Some(outcome)) => {
                    *outcome = Some(error.code.map_or(Ok(()), |_| Err(error.to_io())));
                }
                (NetlinkPayload::Done(_), Some(outcome)) => *outcome = Some(Ok(())),
                (NetlinkPayload::InnerMessage(message), _) => told.push(message),
                _ => {}
            }
        }
    }
    Ok(Answer { told, unread, outcomes: outcomes.into_iter().flatten().collect() })
}

/// The messages of a datagram; `None` for what cannot be read.
fn messages(mut datagram: &[u8]) -> Vec<Option<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut found = Vec::new();
    while let Some((len, _)) = datagram.split_first_chunk() {
        let len = u32::from_ne_bytes(*len) as usize;
        let Some(message) = datagram.get(..len).filter(|_| len > 0) else { break };
        found.push(NetlinkMessage::deserialize(message).ok());
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

impl Answer {
    /// Fails with the first refusal.
    pub fn ok(self) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.counted().map(|(told, _)| told)
    }

    /// The same, with the number of messages that cannot be read.
    pub fn counted(self) -> io::Result<(Vec<RouteNetlinkMessage>, usize)> {
        self.outcomes.into_iter().collect::<io::Result<()>>()?;
        Ok((self.told, self.unread))
    }
}
