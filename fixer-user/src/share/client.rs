//! Who watches: finds whoever reads the ring buffer, or has it read, and hears what is handed out.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    message::{LONGEST, Message, Wish},
    socket::{Listener, RUN, Server, Socket, connect},
};
use crate::{
    bpf::ring::Maps,
    net::{claim::names, netns::NetNs},
};

/// The time between two attempts, while one server ends and the next one starts.
const PAUSE: Duration = Duration::from_millis(20);

/// How long a server may take to be there and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages that are taken at once.
const BATCH: usize = 256;

/// Who hands out the events of some programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// The `fixer run` with this process id.
    Run(u32),
    /// A process that reads these pinned maps for whoever watches.
    Pins(Maps),
}

impl Feed {
    /// Connects to whoever hands it out, in the calling thread's namespace.
    fn reach(self) -> io::Result<socket2::Socket> {
        let pid = match self {
            Self::Pins(maps) => return connect(&server_of(maps), Server::Trusted),
            Self::Run(pid) => pid,
        };
        // A name holds the number that the process has in its own container, and anybody can bind one.
        let mut outcome = Err(io::ErrorKind::ConnectionRefused.into());
        for name in names()?.iter().filter(|name| name.starts_with(RUN)) {
            match connect(name, Server::Process(pid)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => outcome = Err(error),
                Err(_) => {}
                socket => return socket,
            }
        }
        outcome
    }
}

/// The name of the socket at which the events of pinned maps are handed out.
pub fn server_of(maps: Maps) -> String {
    format!("fixer-events-map-{}", maps.events)
}

/// The way to the events of one feed.
#[derive(Debug)]
pub struct Feeder {
    netns: NetNs,
    feed: Feed,
    wish: Wish,
    /// The process that reads pinned maps, if it was started from here.
    helper: Option<Child>,
}

/// A connection to whoever hands out events. When it is dropped nothing is wanted any more.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    buffer: Box<[u8; LONGEST]>,
}

/// What was handed out, in this order.
#[derive(Debug, Default)]
pub struct Received {
    /// Samples.
    pub samples: Vec<Bytes>,
    /// How many are missing behind them.
    pub lost: u64,
    /// Whether exchanges are followed there, if that is said to who has asked.
    pub follows: Option<bool>,
    /// Whether that is all, for ever.
    pub is_over: bool,
}

impl Feeder {
    /// The way to a feed in a namespace.
    pub fn new(netns: NetNs, feed: Feed, wish: Wish) -> Self {
        Self { netns, feed, wish, helper: None }
    }

    /// What it leads to.
    pub const fn feed(&self) -> Feed {
        self.feed
    }

    /// Connects. Must be called on a tokio runtime.
    pub async fn connect(&mut self) -> Result<Connection> {
        let deadline = Instant::now() + PATIENCE;
        let mut failure = anyhow!("nobody answers");
        while Instant::now() < deadline {
            let feed = self.feed;
            match self.netns.run(move || feed.reach())? {
                Ok(socket) => match timeout_at(deadline, self.greet(Socket::new(socket)?)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => failure = error,
                    Err(_) => failure = anyhow!("no answer came"),
                },
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match self.feed {
                    Feed::Run(_) => failure = anyhow!("it hands out no events"),
                    Feed::Pins(maps) => self.start_helper(maps)?,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => failure = error.into(),
                Err(error) => return Err(error.into()),
            }
            sleep(PAUSE).await;
        }
        Err(failure)
    }

    async fn greet(&self, socket: Socket) -> Result<Connection> {
        socket.send(&[&self.wish.bytes()])?;
        let mut connection = Connection { socket, buffer: Box::new([0; LONGEST]) };
        let Connection { socket, buffer } = &mut connection;
        let len = socket.receive(&mut buffer[..]).await.context("the connection was closed")?;
        match Message::parse(&buffer[..len]) {
            Some(Message::Ready) => Ok(connection),
            _ => bail!("the answer made no sense"),
        }
    }

    /// Starts a process that reads the ring buffer, if nobody else has just done so. It is in a group of
    /// its own: what a terminal sends to the watchers is not for it.
    fn start_helper(&mut self, maps: Maps) -> Result<()> {
        // The one before it has ended. That is all there is to know.
        self.helper.take().map(|mut before| before.wait()).transpose()?;
        // What it could not do is found here, where it can be said.
        maps.open().context("cannot read the pinned maps")?;
        let listener = match self.netns.run(|| Listener::bind(&server_of(maps)))? {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(()),
            listener => listener?,
        };
        let ids = [maps.events, maps.wanted, maps.lost].map(|id| id.to_string());
        let helper = Command::new("/proc/self/exe")
            .arg0("fixer")
            .arg("serve-events")
            .args(ids)
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn();
        self.helper = Some(helper.context("cannot start the process that reads the events")?);
        Ok(())
    }
}

impl Connection {
    /// Waits for something, and hands over what has come by then.
    pub async fn read(&mut self) -> Received {
        let first = self.socket.receive(&mut self.buffer[..]).await;
        let mut received = Received::default();
        if self.take(first, &mut received) {
            self.read_on(&mut received);
        }
        received
    }

    /// Hands over what has come.
    pub fn read_now(&mut self) -> Received {
        let mut received = Received::default();
        self.read_on(&mut received);
        received
    }

    fn read_on(&mut self, received: &mut Received) {
        loop {
            let next = self.socket.receive_now(&mut self.buffer[..]);
            if !self.take(next, received) {
                return;
            }
        }
    }

    /// Takes a message. Says whether one more may be taken with it.
    fn take(&self, outcome: io::Result<usize>, received: &mut Received) -> bool {
        let message = match outcome {
            Ok(len) => Message::parse(&self.buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => None,
        };
        match message {
            Some(Message::Sample(sample)) => received.samples.push(Bytes::copy_from_slice(sample)),
            Some(Message::Lost(lost)) => received.lost = lost,
            Some(Message::Follows(follows)) => received.follows = Some(follows),
            // Whoever makes no sense is not listened to any more.
            Some(Message::Ready) | None => received.is_over = true,
        }
        !received.is_over
            && received.lost == 0
            && received.follows.is_none()
            && received.samples.len() < BATCH
    }
}
