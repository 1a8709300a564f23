//! Which interfaces promise to finish checksums later.

use std::{collections::BTreeMap, io};

use ethtool::{EthtoolAttr, EthtoolError, EthtoolFeatureAttr, EthtoolHeader, EthtoolMessage};
use futures_util::TryStreamExt as _;

use super::netns::NetNs;

/// The features that let the checksum of UDP over IPv4 be left partial.
const PROMISES: [&str; 2] = ["tx-checksum-ip-generic", "tx-checksum-ipv4"];

/// Whether each interface of a namespace has one of them active, by its name. Needs no privilege, and
/// Linux 5.8.
pub fn promises(netns: &NetNs) -> io::Result<BTreeMap<String, bool>> {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, mut handle, _) = ethtool::new_connection()?;
            tokio::spawn(connection);
            let features = handle.feature().get(None).execute().await.map_err(error)?;
            let messages: Vec<_> = features.try_collect().await.map_err(error)?;
            Ok(messages.iter().filter_map(|message| promise(&message.payload)).collect())
        })
    })?
}

fn promise(message: &EthtoolMessage) -> Option<(String, bool)> {
    let (mut name, mut promises) = (None, false);
    for attribute in &message.nlas {
        match attribute {
            EthtoolAttr::Feature(EthtoolFeatureAttr::Header(headers)) => {
                name = headers.iter().find_map(|header| match header {
                    EthtoolHeader::DevName(name) => Some(name.clone()),
                    _ => None,
                });
            }
            EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => {
                promises =
                    bits.iter().any(|bit| bit.value && PROMISES.contains(&bit.name.as_str()));
            }
            _ => {}
        }
    }
    Some((name?, promises))
}

fn error(error: EthtoolError) -> io::Error {
    match error {
        EthtoolError::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
