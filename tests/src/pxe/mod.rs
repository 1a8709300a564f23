//! Does a real guest that verifies every checksum boot over the network, with fixer and without?
//!
//! iPXE asks a real dnsmasq for an address and a boot file, over a bridge. Behind a tap without
//! checksum offload that always worked, for the kernel finishes what is partial. A fixer that stored
//! the sum and left the mark would break it there: the kernel would finish the sum once more. Behind
//! a raw socket nobody finishes anything. Without fixer this guest gets no address, which also shows
//! that it verifies; with the default rule it gets one, and no boot file, because TFTP's sums are
//! partial as well; with `--match udp` it boots.

pub mod card;
pub mod guest;
pub mod server;
pub mod tally;

use std::thread;

use anyhow::{Result, anyhow, ensure};
use fixer_common::verdict::Verdict;
use fixer_user::lab::scene::{BRIDGE, PORT};

use crate::kernel::require_root;
use card::Card;
use guest::{Boot, Got};
use server::Server;
use tally::{Fixer, Tally};

/// The length of a boot file that takes some two hundred packets.
const LARGE: usize = 300_000;

/// The longest payload in a TFTP packet that iPXE asks for.
const BLOCK: usize = 1432;

/// A guest, and what must become of it.
#[derive(Debug)]
pub struct Trial {
    /// How the guest hangs on the bridge.
    pub card: Card,
    /// What `fixer run` is given, if there is a fixer.
    pub fixer: Option<&'static [&'static str]>,
    /// The least length of the boot file, in bytes.
    pub len: usize,
    /// What the guest gets.
    gets: Got,
    /// What fixer mends on the way.
    mends: Mended,
}

/// Packets of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    Nothing,
    /// Every DHCP reply, once, and no other packet is so much as looked at.
    Replies,
    /// Every DHCP reply, and every packet of the boot file.
    Everything,
}

/// Every guest that is tried.
pub const TRIALS: &[Trial] = &[
    Trial { card: Card::Tap, fixer: None, len: 0, gets: Got::BootFile, mends: Mended::Nothing },
    Trial {
        card: Card::Tap,
        fixer: Some(&["-i", BRIDGE]),
        len: LARGE,
        gets: Got::BootFile,
        mends: Mended::Replies,
    },
    Trial {
        card: Card::Tap,
        fixer: Some(&["-i", PORT, "--hook", "both"]),
        len: 0,
        gets: Got::BootFile,
        mends: Mended::Replies,
    },
    Trial {
        card: Card::Tap,
        fixer: Some(&["-i", BRIDGE, "-i", PORT]),
        len: 0,
        gets: Got::BootFile,
        mends: Mended::Replies,
    },
    Trial {
        card: Card::Tap,
        fixer: Some(&["-i", BRIDGE, "--match", "udp"]),
        len: LARGE,
        gets: Got::BootFile,
        mends: Mended::Everything,
    },
    Trial {
        card: Card::RawSocket,
        fixer: None,
        len: 0,
        gets: Got::Nothing,
        mends: Mended::Nothing,
    },
    Trial {
        card: Card::RawSocket,
        fixer: Some(&["-i", BRIDGE]),
        len: 0,
        gets: Got::Address,
        mends: Mended::Replies,
    },
    Trial {
        card: Card::RawSocket,
        fixer: Some(&["-i", BRIDGE, "--match", "udp"]),
        len: LARGE,
        gets: Got::BootFile,
        mends: Mended::Everything,
    },
];

/// How a trial went.
#[derive(Debug)]
pub struct Outcome {
    /// What came of booting.
    pub boot: Boot,
    /// What fixer saw.
    pub tally: Tally,
    /// What the server said.
    pub told: Vec<String>,
    /// What is not as it must be.
    pub fault: Option<String>,
}

/// Makes every trial at once, each in a network of its own; `hear` gets them in their order.
pub fn run(mut hear: impl FnMut(&'static Trial, Result<Outcome>)) -> Result<()> {
    require_root()?;
    thread::scope(|scope| {
        let running: Vec<_> =
            TRIALS.iter().map(|trial| (trial, scope.spawn(|| trial.run()))).collect();
        for (trial, thread) in running {
            let outcome = thread.join().unwrap_or_else(|_| Err(anyhow!("the trial panicked")));
            hear(trial, outcome);
        }
    });
    Ok(())
}

impl Trial {
    fn run(&self) -> Result<Outcome> {
        let server = Server::start(self.len)?;
        let guest = self.card.plug_in(&server.host, BRIDGE, PORT)?;
        let fixer = self.fixer.map(|arguments| Fixer::start(&server.host, arguments));
        let fixer = fixer.transpose()?;
        let boot = guest::boot(&server.host, guest)?;
        let tally = fixer.map_or_else(|| Ok(Tally::default()), Fixer::stop)?;
        let told = server.told();
        let fault = self.judge(&boot, &tally, &told).err().map(|fault| fault.to_string());
        Ok(Outcome { boot, tally, told, fault })
    }

    /// What is not as it must be, as an error.
    fn judge(&self, boot: &Boot, tally: &Tally, told: &[String]) -> Result<()> {
        let replies = told.iter().filter(|line| is_reply(line)).count();
        ensure!(replies > 0, "the server sent no reply, so nothing is shown");
        ensure!(
            boot.got == self.gets,
            "it got {} and not {}, after {replies} DHCP replies",
            boot.got.name(),
            self.gets.name()
        );
        ensure!(boot.ended, "it neither booted nor gave up");
        let (dhcp, other) = (tally.dhcp(Verdict::Fixed), tally.other(Verdict::Fixed));
        let (blocks, seen) = (self.len.div_ceil(BLOCK), tally.other_packets());
        let as_expected = match self.mends {
            Mended::Nothing => dhcp + other == 0,
            Mended::Replies => dhcp == replies && seen == 0,
            Mended::Everything => dhcp == replies && other >= blocks,
        };
        ensure!(as_expected, "of {replies} DHCP replies and {blocks} blocks fixer saw: {tally}");
        Ok(())
    }
}

fn is_reply(line: &str) -> bool {
    line.starts_with("DHCPOFFER") || line.starts_with("DHCPACK")
}
