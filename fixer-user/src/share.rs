//! One reads, everyone sees.
//!
//! A ring buffer has one reader. Who reads it hands the samples on, over a socket with an abstract name
//! in the network namespace that the programs are in: a `fixer run` does so beside what it shows
//! itself, and for pinned maps the first `fixer watch` starts a process that does nothing else and
//! ends with the last watcher. It is no watcher, so that one that is stopped or killed is nobody
//! else's trouble. The name is the lock: the kernel gives it to one process, and takes it back
//! however that process ends.
//!
//! Which verdicts make an event is the union of what everyone wants. With nobody there it is what it
//! was before, also if a watcher was killed.

mod client;
mod message;
mod server;
mod socket;

pub use self::{
    client::{Connection, Feed, Feeder, Received, server_of},
    message::Wish,
    server::{Door, Share},
    socket::Listener,
};
