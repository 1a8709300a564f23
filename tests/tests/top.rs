//! `fixer top` on a real terminal, above real programs that count real packets.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{Ended, PATIENCE, Running, attached, fixer, on_bridge},
    mounts::mount_at_bpffs,
    terminal::Terminal,
};
use fixer_user::{
    lab::{
        link,
        packet::PacketSocket,
        reply::{self, PARTIAL},
        scene::{BRIDGE, Dnsmasq, GUEST, Scene},
        strict,
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
    terminal.shows("none: `fixer attach`")?;
    send_partial(&netns, BRIDGE, 40)?;
    terminal.shows("br0 egress: fixed, 10.0.3.1.67 > ")?;
    let is_row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.starts_with(&["br0", "egress", "tcx", "attach", "40"]) && line.contains(" fixed")
    };
    terminal.wait("the total and the rate", |screen| screen.contents().lines().any(is_row))?;

    link::bridge(&netns, "br1")?;
    let run = attached(&netns, &["-i", "br1", "--metrics", "off", "--attach-mode", "clsact"])?;
    let held_by = format!("run {}", run.pid());
    terminal.shows(&held_by)?;
    terminal.shows("none: this `fixer run`")?;
    send_partial(&netns, "br1", 3)?;
    terminal.shows("br1 egress: fixed, ")?;
    run.stop(Signal::SIGTERM)?.ok()?;
    terminal.wait("br1 is gone", |screen| !screen.contents().contains(&held_by))?;

    terminal.press("q")?;
    top.end()?.ok()?;
    terminal.is_restored()
}

/// `fixer run` on the scene's bridge, which sees both sides of every exchange.
fn following(scene: &Scene) -> Result<Running> {
    on_bridge(&scene.host, &["--all", "--hook", "both", "--events", "json"])
}

/// Waits for an exchange: a line with these words in this order, and others between them.
fn tells(terminal: &mut Terminal, words: &[&str]) -> Result<()> {
    terminal.wait(&words.join(" "), |screen| {
        let is_it = |line: &str| {
            let mut there = line.split_whitespace();
            words.iter().all(|word| there.any(|other| other == *word))
        };
        screen.contents().lines().any(is_it)
    })
}

fn asks(scene: &Scene, client: u8) -> Result<(String, strict::Outcome)> {
    let asked = strict::ask(&scene.guest, GUEST, [2, 0, 0, 0, 0, client], Duration::from_secs(3))?;
    Ok((format!("02:00:00:00:00:{client:02x}"), asked))
}

/// Fails unless nobody hands out events any more.
fn is_silent(netns: &NetNs) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/unix"))??;
        let left: Vec<_> = table.lines().filter(|line| line.contains("fixer-events")).collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left:#?}");
        thread::yield_now();
    }
}

/// Beside a run, a real client's exchange with a real server appears, and so does one that no server
/// answers. What the run itself shows stays the same.
#[test]
fn exchanges_appear_as_they_happen() -> Result<()> {
    let scene = Scene::new()?;
    let dnsmasq = Dnsmasq::start(&scene)?;
    let mut run = following(&scene)?;
    let (mut terminal, top) = shown(&scene.host)?;
    terminal.shows("none yet")?;
    let (client, asked) = asks(&scene, 0x77)?;
    let lease =
        asked.lease.with_context(|| format!("no lease, but {asked:?}"))?.address.to_string();
    tells(&mut terminal, &[&client, "DORA", "lease", &lease, "10.0.3.1", "ms"])?;
    terminal.shows("br0 egress: fixed, DHCP offer")?;
    run.stdout.wait("\"outcome\":\"lease\"")?;

    drop(dnsmasq);
    let (client, asked) = asks(&scene, 0x78)?;
    ensure!(asked.lease.is_none(), "{asked:?}");
    tells(&mut terminal, &[&client, "waiting", "-", "-", "s"])?;
    terminal.press("/zz")?;
    terminal.wait("no exchange", |screen| !screen.contents().contains(&client))?;
    terminal.press("\x1b")?;
    tells(&mut terminal, &[&client, "waiting"])?;

    // Nobody knows how it goes on without the run, and what is over is still there.
    run.stop(Signal::SIGTERM)?.ok()?;
    terminal.wait("the exchange that was open is gone", |screen| {
        !screen.contents().contains(&client) && screen.contents().contains(&lease)
    })?;
    let again = following(&scene)?;
    terminal.shows(&format!("run {}", again.pid()))?;
    let (client, _) = asks(&scene, 0x79)?;
    tells(&mut terminal, &[&client, "waiting"])?;
    again.stop(Signal::SIGTERM)?.ok()?;
    terminal.press("q")?;
    top.end()?.ok()?;
    is_silent(&scene.host)
}

/// Half a conversation is told by nobody: a line says why, until a reload makes it whole.
#[test]
fn a_run_that_sees_replies_alone_tells_no_exchanges() -> Result<()> {
    let scene = Scene::new()?;
    let _dnsmasq = Dnsmasq::start(&scene)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("fixer.toml");
    let half = format!("interface = [\"{BRIDGE}\"]\nhook = \"both\"\n");
    fs::write(&file, &half)?;
    let config = file.to_string_lossy().into_owned();
    let mut run = attached(&scene.host, &["--config", &config, "--metrics", "off"])?;
    let (mut terminal, top) = shown(&scene.host)?;
    terminal
        .shows("none: this `fixer run` sees one side; `fixer run --all --hook both` sees both")?;
    ensure!(asks(&scene, 0x77)?.1.lease.is_some());
    terminal.shows("br0 egress: fixed, DHCP ack 02:00:00:00:00:77")?;
    terminal.shows("none: this `fixer run`")?;

    fs::write(&file, half + "all = true\n")?;
    run.signal(Signal::SIGHUP)?;
    run.stderr.wait("was read again")?;
    terminal.shows("none yet")?;
    ensure!(asks(&scene, 0x78)?.1.lease.is_some());
    tells(&mut terminal, &["02:00:00:00:00:78", "DORA", "lease"])?;
    terminal.press("q")?;
    top.end()?.ok()?;
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn exchanges_of_another_namespace_are_shown() -> Result<()> {
    let scene = Scene::new()?;
    let _dnsmasq = Dnsmasq::start(&scene)?;
    let run = following(&scene)?;
    let mut terminal = Terminal::open(120, 30)?;
    let top = top(&["--netns", &format!("pid:{}", run.pid())])?;
    let top = Running::start_on(&scene.guest, top, terminal.side()?)?;
    terminal.shows("none yet")?;
    let (client, asked) = asks(&scene, 0x77)?;
    ensure!(asked.lease.is_some(), "{asked:?}");
    let place = format!("pid:{}/{BRIDGE}", run.pid());
    tells(&mut terminal, &[&place, &client, "DORA", "lease"])?;
    terminal.press("q")?;
    top.end()?.ok()?;
    run.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

/// What is pinned is read as `fixer watch` reads it, and by nobody when the picture has gone.
#[test]
fn of_what_attach_left_events_are_shown() -> Result<()> {
    let netns = ground()?;
    let (mut terminal, top) = shown(&netns)?;
    terminal
        .shows("none: `fixer attach` sees one side; `fixer run --all --hook both` sees both")?;
    send_partial(&netns, BRIDGE, 1)?;
    terminal.shows("br0 egress: fixed, 10.0.3.1.67 > ")?;
    terminal.press("q")?;
    top.end()?.ok()?;
    is_silent(&netns)
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
