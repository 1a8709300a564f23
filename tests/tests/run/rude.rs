//! Clients of the metrics server that are slow, silent, huge, wrong, or too many.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Instant,
};

use anyhow::{Result, bail, ensure};
use fixer_tests::{
    command::{PATIENCE, Running, attached},
    http::{self, METRICS},
};
use fixer_user::lab::scene::{BRIDGE, SERVER, Scene};
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};

use crate::scene;

/// The server's port on an address that others can reach.
const OUTSIDE: (std::net::Ipv4Addr, u16) = (SERVER, METRICS.1);

/// Half a request: nobody knows yet what is asked for.
const HALF: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: fi";

/// A whole one, by a client that means to stay.
const WHOLE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: fixer\r\nConnection: keep-alive\r\n\r\n";

/// A fixer on the bridge that serves metrics.
fn serving(arguments: &[&str]) -> Result<(Scene, Running)> {
    let scene = scene()?;
    let fixer = attached(&scene.host, &[&["-i", BRIDGE, "--events", "none"], arguments].concat())?;
    Ok((scene, fixer))
}

/// A client that says this, and then nothing.
fn says(scene: &Scene, words: &[u8]) -> Result<TcpStream> {
    let mut stream = http::connect(&scene.host, METRICS)?;
    stream.write_all(words)?;
    Ok(stream)
}

/// Somebody who asks as one should is served.
fn is_served(scene: &Scene) -> Result<()> {
    let answer = http::get(&scene.host, METRICS, "/metrics")?;
    ensure!(answer.is(200) && answer.body.ends_with("# EOF\n"), "{answer:?}");
    Ok(())
}

/// Waits until the server has closed a connection, and hands over what it said before.
fn closed(stream: &mut TcpStream) -> Result<String> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        // Closed with something of ours unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => bail!("it stays open: {error}"),
        Ok(_) => {}
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn who_falls_silent_is_hung_up_on_and_others_are_served() -> Result<()> {
    let (scene, fixer) = serving(&[])?;
    let began = Instant::now();
    let mut silent = [says(&scene, b"")?, says(&scene, HALF)?];
    is_served(&scene)?;
    for stream in &mut silent {
        ensure!(closed(stream)?.is_empty());
    }
    ensure!(began.elapsed() < PATIENCE / 2, "it took {:?}", began.elapsed());
    // Who was served has no reason to stay.
    ensure!(closed(&mut says(&scene, WHOLE)?)?.contains("# EOF"));
    is_served(&scene)?;
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn what_is_wrong_is_refused() -> Result<()> {
    let (scene, fixer) = serving(&[])?;
    let long = "x".repeat(100_000);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), "431"),
        (format!("GET /metrics HTTP/1.1\r\nX: {long}\r\n\r\n"), "431"),
        (format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000)), "431"),
        ("\0\x01\x02 what?\r\n\r\n".to_owned(), "400"),
        ("GET /metrics HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_owned(), "400"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(), "405"),
    ] {
        let mut stream = http::connect(&scene.host, METRICS)?;
        // It may hang up before it has heard everything.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let answer = closed(&mut stream)?;
        let start = &request[..request.len().min(60)];
        ensure!(
            answer.is_empty() && long.len() < request.len()
                || answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{start:?}: {answer}"
        );
        is_served(&scene)?;
    }
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn thousands_of_connections_are_kept_to_a_few() -> Result<()> {
    const MANY: usize = 2000;
    const FEW: usize = 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (scene, fixer) = serving(&[])?;
    let mut idle = Vec::new();
    for number in 0..MANY {
        idle.push(says(&scene, [b"".as_slice(), HALF][number % 2])?);
        if number % 500 == 499 {
            is_served(&scene)?;
        }
    }
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", fixer.pid()))?.count();
    ensure!(descriptors < FEW, "{descriptors} descriptors are open");
    for stream in &mut idle {
        closed(stream)?;
    }
    is_served(&scene)?;
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

#[test]
fn only_this_machine_is_served_unless_told_otherwise() -> Result<()> {
    let (scene, fixer) = serving(&[])?;
    ensure!(http::connect(&scene.host, OUTSIDE).is_err(), "it listens outside");
    is_served(&scene)?;
    fixer.stop(Signal::SIGTERM)?.ok()?;

    let (scene, fixer) = serving(&["--metrics", "0.0.0.0:9767"])?;
    ensure!(http::get(&scene.host, OUTSIDE, "/healthz")?.is(200));
    is_served(&scene)?;
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}
