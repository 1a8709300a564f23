//! What fixer tells, figure by figure, beside what tcpdump tells of the same traffic: a real dnsmasq, real
//! clients, everything that fixer can write at once, and a second opinion on all of it.
//!
//! A [`setting::Setting`] is played, and what came of it is compared from the packet to the counter:
//!
//! 1. [`capture`]: a capture file of fixer, read by tcpdump and tshark, tells which packets were seen and
//!    where, and what is wrong with them.
//! 2. The packets are those that tcpdump has heard at the same place, byte for byte.
//! 3. Each line of text and each object of JSON says of its packet what tcpdump and tshark say.
//! 4. [`conversation`]: the exchanges are those that a reader of tcpdump's lines would tell of.
//! 5. [`metrics`], the status, the frame of `top` and the last lines count what there is in all that, and
//!    nothing else.

mod capture;
mod compare;
mod conversation;
mod metrics;
mod setting;
mod stage;
mod tcpdump;

use anyhow::{Result, ensure};

use setting::{Seen, Setting};

/// How each exchange may end, and how many at least have to.
const AT_LEAST: [(&str, usize); 8] = [
    ("lease", 8),
    ("nak", 4),
    ("no_offer", 1),
    ("unanswered_offer", 1),
    ("no_ack", 1),
    ("informed", 1),
    ("declined", 1),
    ("released", 1),
];

fn play(setting: Setting) -> Result<Seen> {
    let seen = Seen::play(setting)?;
    for (outcome, least) in AT_LEAST {
        let count = seen.exchanges.iter().filter(|exchange| exchange.outcome == outcome).count();
        ensure!(count >= least, "only {count} {outcome}: {:#?}", seen.exchanges);
    }
    println!("{}", compare::everything(&seen)?);
    Ok(seen)
}

/// tcpdump hears the bridge send what the ports mend.
#[test]
fn at_the_ports_every_figure_is_tcpdumps() -> Result<()> {
    let seen =
        play(Setting { at_ports: true, mode: "tcx", mended: "fixed", shows: ["text", "json"] })?;
    compare::mended_on_the_way(&seen)
}

#[test]
fn at_the_bridge_every_figure_is_tcpdumps() -> Result<()> {
    let seen =
        play(Setting { at_ports: false, mode: "tcx", mended: "fixed", shows: ["json", "text"] })?;
    compare::right_at_the_guests(&seen)
}

/// What is only observed leaves as it came, so tcpdump hears at the hook itself what fixer has seen.
#[test]
fn where_it_only_looks_every_figure_is_tcpdumps() -> Result<()> {
    let seen = play(Setting {
        at_ports: false,
        mode: "clsact",
        mended: "partial",
        shows: ["json", "text"],
    })?;
    compare::wrong_at_the_guests(&seen)
}
