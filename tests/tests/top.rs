//! `fixer top` on a real terminal, above real programs that count real packets.

use std::process::Command;

use anyhow::{Result, ensure};
use fixer_tests::{
    command::{Ended, Running, attached, fixer},
    mounts::mount_at_bpffs,
    terminal::Terminal,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        reply::{self, PARTIAL},
        scene::BRIDGE,
    },
    net::netns::NetNs,
};
use nix::{mount::MsFlags, sys::signal::Signal};

/// A namespace with a bridge, to which `fixer attach` has attached.
fn ground() -> Result<NetNs> {
    mount_at_bpffs(c"bpf", MsFlags::empty())?;
    let netns = NetNs::scratch("ground")?;
    link::bridge(&netns, BRIDGE)?;
    let attach = fixer(&["attach", "-i", BRIDGE, "--skip-selftest"])?;
    Running::start(&netns, attach)?.end()?.ok()?;
    Ok(netns)
}

fn top(arguments: &[&str]) -> Result<Command> {
    let mut command = fixer(&[&["top"], arguments].concat())?;
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
    Ok(command)
}

/// `fixer top` on a terminal, once it shows what is attached.
fn shown(netns: &NetNs) -> Result<(Terminal, Running)> {
    let mut terminal = Terminal::open(80, 24)?;
    let top = Running::start_on(netns, top(&[])?, terminal.side()?)?;
    terminal.shows("br0")?;
    terminal.wait("a picture", |screen| screen.alternate_screen() && screen.hide_cursor())?;
    Ok((terminal, top))
}

fn send_partial(netns: &NetNs, interface: &str, replies: usize) -> Result<()> {
    let socket = PacketSocket::open(netns, interface)?;
    let mut frame = reply::frame(&[7; 300]);
    reply::make_partial(&mut frame);
    (0..replies).try_for_each(|_| Ok(socket.send(&frame, Some(PARTIAL))?))
}

fn refused(ended: &Ended, words: &str) -> Result<()> {
    let [error] = &ended.stderr[..] else { anyhow::bail!("not one error: {ended:?}") };
    ensure!(ended.status.code() == Some(1) && ended.stdout.is_empty(), "{ended:?}");
    ensure!(error.contains(words) && error.contains("fixer status"), "{error}");
    Ok(())
}

/// What is counted shows, what is attached later appears, and what is detached goes.
#[test]
fn it_shows_what_happens() -> Result<()> {
    let netns = ground()?;
    let (mut terminal, top) = shown(&netns)?;
    terminal.shows("no packet matched yet")?;
    send_partial(&netns, BRIDGE, 40)?;
    terminal.shows("br0 egress: 40 fixed")?;
    let is_row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.starts_with(&["br0", "egress", "tcx", "attach", "40"]) && line.contains(" fixed")
    };
    terminal.wait("the total and the rate", |screen| screen.contents().lines().any(is_row))?;

    link::bridge(&netns, "br1")?;
    let run = attached(&netns, &["-i", "br1", "--metrics", "off", "--attach-mode", "clsact"])?;
    let held_by = format!("run {}", run.pid());
    terminal.shows(&held_by)?;
    send_partial(&netns, "br1", 3)?;
    terminal.shows("br1 egress: 3 fixed")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    terminal.wait("br1 is gone", |screen| !screen.contents().contains(&held_by))?;

    terminal.press("q")?;
    top.end()?.ok()?;
    terminal.is_restored()
}

#[test]
fn keys_and_sizes_change_the_picture() -> Result<()> {
    let netns = ground()?;
    let (mut terminal, top) = shown(&netns)?;
    terminal.press("/zz")?;
    terminal.shows("no attached interface has 'zz' in its name")?;
    terminal.press("\x1b")?;
    terminal.shows("br0 egress by verdict")?;
    terminal.press("s")?;
    terminal.shows("sort: rate")?;
    terminal.press("p")?;
    terminal.shows("paused")?;
    terminal.resize(40, 10)?;
    terminal.wait("a small picture", |screen| {
        let contents = screen.contents();
        contents.contains("br0") && !contents.contains("by verdict")
    })?;
    terminal.resize(120, 40)?;
    terminal.wait("a large picture", |screen| {
        screen.contents().lines().count() == 40 && screen.contents().contains("by verdict")
    })?;
    // Ctrl-C is a key here.
    terminal.press("\x03")?;
    top.end()?.ok()?;
    terminal.is_restored()
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() -> Result<()> {
    let netns = ground()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (mut terminal, top) = shown(&netns)?;
        top.stop(signal)?.ok()?;
        terminal.is_restored()?;
    }
    Ok(())
}

#[test]
fn without_colour_nothing_is_coloured() -> Result<()> {
    let netns = ground()?;
    send_partial(&netns, BRIDGE, 5)?;
    for (no_color, wanted) in [("", true), ("1", false)] {
        let mut terminal = Terminal::open(80, 24)?;
        let mut command = top(&[])?;
        command.env("NO_COLOR", no_color);
        let top = Running::start_on(&netns, command, terminal.side()?)?;
        terminal.shows("br0 egress by verdict")?;
        terminal.wait("colours as wished", |screen| {
            let (lines, columns) = screen.size();
            let mut cells = (0..lines.get())
                .flat_map(|line| (0..columns.get()).map(move |column| (line, column)));
            let is_plain = |(line, column)| {
                screen.cell(line, column).is_none_or(|cell| cell.fgcolor() == vt100::Color::Default)
            };
            wanted != cells.all(is_plain)
        })?;
        terminal.press("q")?;
        top.end()?.ok()?;
    }
    Ok(())
}

/// For scripts and documents there is one frame as text, and no keys in it.
#[test]
fn one_frame_is_text() -> Result<()> {
    let netns = ground()?;
    send_partial(&netns, BRIDGE, 5)?;
    let ended = Running::start(&netns, top(&["--once"])?)?.end()?.ok()?;
    let frame = ended.stdout.join("\n");
    ensure!(frame.starts_with("fixer top: 1 attached, 0/s"), "{frame}");
    ensure!(frame.contains("br0        egress  tcx   attach       5  0"), "{frame}");
    ensure!(!frame.contains('\x1b') && !frame.contains("quit"), "{frame}");
    let elsewhere = Running::start(&netns, top(&["--once", "-i", "zz*"])?)?.end()?.ok()?;
    ensure!(elsewhere.stdout.join("\n").contains("nothing is attached"), "{elsewhere:?}");
    Ok(())
}

#[test]
fn what_can_show_no_picture_is_told_so() -> Result<()> {
    let netns = ground()?;
    let ended = Running::start(&netns, top(&[])?)?.end()?;
    refused(&ended, "standard output is no terminal")?;
    for term in ["dumb", ""] {
        let mut terminal = Terminal::open(80, 24)?;
        let mut command = top(&[])?;
        command.env("TERM", term);
        let ended = Running::start_on(&netns, command, terminal.side()?)?.end()?;
        refused(&ended, &format!("(TERM={term})"))?;
        terminal.is_restored()?;
    }
    Ok(())
}
