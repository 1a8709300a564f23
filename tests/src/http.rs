//! Asks over HTTP, as plainly as it can be done.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use fixer_user::net::netns::NetNs;

use crate::command::PATIENCE;

/// Where `fixer run` serves metrics by default.
pub const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9767);

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status line and the headers, in small letters.
    pub head: String,
    /// What was asked for.
    pub body: String,
}

impl Response {
    /// Whether it has this status.
    pub fn is(&self, status: u16) -> bool {
        self.head.split(' ').nth(1) == Some(&status.to_string())
    }
}

/// A connection to whoever listens there in a namespace, with an end to all waiting.
pub fn connect(netns: &NetNs, place: impl Into<SocketAddr>) -> Result<TcpStream> {
    let place = place.into();
    let stream = netns.run(move || TcpStream::connect_timeout(&place, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks for a page. HTTP/1.0, so that the answer comes in one piece and ends with the connection.
pub fn get(netns: &NetNs, place: impl Into<SocketAddr>, path: &str) -> Result<Response> {
    let mut stream = connect(netns, place)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: fixer\r\n\r\n")?;
    read(stream)
}

/// Reads the answer to what was asked, until the connection ends.
pub fn read(mut stream: TcpStream) -> Result<Response> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no whole answer came")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    Ok(Response { head: head.to_ascii_lowercase(), body: body.to_owned() })
}
