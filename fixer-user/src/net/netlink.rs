//! One netlink conversation inside a namespace, for those who have no runtime.

use std::io;

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
