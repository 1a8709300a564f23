//! Scratch networks that leave nothing behind: for the self-test, the demo, and the tests.
//!
//! Every namespace here is nameless. It ends with the threads and sockets in it, and so do the
//! links, programs and processes that were put there, however this process ends.

pub mod link;
pub mod packet;
pub mod reply;
pub mod sandbox;
pub mod scene;
pub mod strict;
