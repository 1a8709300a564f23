//! What `fixer run --otlp` pushes, and what a real receiver then knows.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fixer_tests::{
    command::{PATIENCE, Running, fixer, fixer_with_otlp, program},
    http::{self, METRICS},
    prometheus::{Prometheus, number},
    receiver,
};
use fixer_user::{
    lab::{
        link,
        scene::{BRIDGE, Dnsmasq, GUEST},
        strict,
    },
    net::netns::NetNs,
};
use nix::sys::signal::Signal;

use crate::{OTHER, SENT, by, scene, send};

/// The client's hardware address.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x78];

/// What tells the hosts apart, as a receiver that translates names shows it. The third is the host's.
const RESOURCE: [&str; 4] = ["service_name", "service_version", "service_instance_id", "host_name"];

/// `fixer run` that pushes, once it is attached.
fn pushing(netns: &NetNs, arguments: &[&str]) -> Result<Running> {
    described(netns, arguments, "")
}

/// The same, with more that is to be known about it.
fn described(netns: &NetNs, arguments: &[&str], attributes: &str) -> Result<Running> {
    let mut command = fixer_with_otlp(&[&["run"], arguments].concat())?;
    command.env("OTEL_RESOURCE_ATTRIBUTES", attributes);
    let mut running = Running::start(netns, command)?;
    running.stderr.wait("attached to")?;
    Ok(running)
}

/// How many packets [`send`] sends.
fn all() -> usize {
    SENT.iter().flat_map(|(_, counts)| counts).sum()
}

/// Waits until the receiver knows of so many packets.
fn knows(receiver: &Prometheus, count: usize) -> Result<()> {
    // It keeps a series of a fixer that has ended for seconds only, unless it is asked like this.
    let sum = format!("sum(last_over_time(fixer_packets_total[1h])) == {count}");
    receiver.wait(&sum, |found| found.len() == 1)?;
    Ok(())
}

/// A series without a value: its name and its labels.
type Key = (String, BTreeMap<String, String>);

/// Series with their values.
type Values = BTreeMap<Key, f64>;

/// A bound of a histogram is a number, however it is written.
fn plain((name, mut labels): Key) -> Key {
    if let Some(le) = labels.get_mut("le")
        && let Ok(bound) = le.parse::<f64>()
    {
        *le = bound.to_string();
    }
    (name, labels)
}

/// What fixer serves.
fn served(exposition: &str) -> Result<Values> {
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
            let series = series.strip_suffix('}').with_context(|| line.to_owned())?;
            let (name, labels) = series.split_once('{').with_context(|| line.to_owned())?;
            let label = |label: &str| {
                let (name, value) = label.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            };
            let labels = labels.split(',').map(label).collect::<Option<_>>();
            let labels = labels.with_context(|| line.to_owned())?;
            Ok((plain((name.to_owned(), labels)), value.parse()?))
        })
        .collect()
}

/// What the receiver was told, and by whom.
fn told(receiver: &Prometheus) -> Result<(Values, Vec<[String; 4]>)> {
    let (mut series, mut origins) = (BTreeMap::new(), Vec::new());
    for found in receiver.query("{__name__=~'fixer_.*'}")? {
        let mut labels: BTreeMap<String, String> = serde_json::from_value(found["metric"].clone())?;
        let name = labels.remove("__name__").context("a name")?;
        let origin = RESOURCE.map(|label| labels.remove(label).unwrap_or_default());
        if !origins.contains(&origin) {
            origins.push(origin);
        }
        series.insert(plain((name, labels)), number(&found)?);
    }
    Ok((series, origins))
}

/// Whether these are the same series with the same values. Receivers round the last digits of sums.
fn are_alike(one: &Values, other: &Values) -> bool {
    let is_alike = |(one, other): (f64, f64)| (one - other).abs() <= one.abs() * 1e-9;
    one.keys().eq(other.keys()) && one.values().copied().zip(other.values().copied()).all(is_alike)
}

#[test]
fn a_receiver_knows_exactly_what_fixer_serves() -> Result<()> {
    let scene = scene()?;
    let _dnsmasq = Dnsmasq::start(&scene)?;
    let receiver = receiver::start(&scene.host)?;
    let url = receiver::url("127.0.0.1");
    let run = ["-i", BRIDGE, "-i", OTHER, "--all", "--hook", "both", "--events", "none"];
    let fixer =
        pushing(&scene.host, &[&run[..], &["--otlp", &url, "--otlp-interval", "1"]].concat())?;
    send(&scene)?;
    let asked = strict::ask(&scene.guest, GUEST, MAC, Duration::from_secs(5))?;
    ensure!(asked.lease.is_some(), "{asked:?}");

    let deadline = Instant::now() + PATIENCE;
    let (told, origins) = loop {
        let served = served(&http::get(&scene.host, METRICS, "/metrics")?.body)?;
        let (told, origins) = told(&receiver)?;
        if are_alike(&served, &told) {
            break (told, origins);
        }
        ensure!(Instant::now() < deadline, "{served:#?} is served, and told is {told:#?}");
    };
    // One of each sort that there is.
    for (metric, label, of, count) in [
        ("fixer_packets_total", "verdict", "corrupt", 2.0),
        ("fixer_dhcp_messages_total", "message_type", "discover", 1.0),
        ("fixer_exchanges_total", "outcome", "lease", 1.0),
        ("fixer_exchange_seconds_count", "interface", BRIDGE, 1.0),
        ("fixer_exchange_seconds_bucket", "le", "inf", 1.0),
        ("fixer_interface_attached", "interface", OTHER, 1.0),
    ] {
        let is_it = |((name, labels), value): (&Key, &f64)| {
            name == metric && labels.get(label).is_some_and(|it| it == of) && *value == count
        };
        ensure!(told.iter().any(is_it), "no {metric} of {of} is {count}: {told:#?}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    let origin = ["fixer", env!("CARGO_PKG_VERSION"), &host, &host].map(str::to_owned);
    ensure!(origins == [origin], "{origins:?}");
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(!ended.stderr.iter().any(|line| line.contains("push")), "{ended:?}");
    Ok(())
}

#[test]
fn a_receiver_that_comes_back_knows_all() -> Result<()> {
    let scene = scene()?;
    let url = receiver::url("127.0.0.1");
    let receiver = receiver::start(&scene.host)?;
    let run = ["-i", BRIDGE, "-i", OTHER, "--metrics", "off", "--events", "none"];
    let mut fixer =
        pushing(&scene.host, &[&run[..], &["--otlp", &url, "--otlp-interval", "1"]].concat())?;
    send(&scene)?;
    knows(&receiver, all())?;
    drop(receiver);
    let refused = format!("cannot push metrics to {url}: Connection refused");
    fixer.stderr.wait(&refused)?;
    send(&scene)?;

    // All that it knew is gone.
    let receiver = receiver::start(&scene.host)?;
    knows(&receiver, all() * 2)?;
    let verdicts = receiver.query("sum by (verdict)(fixer_packets_total)")?;
    let sum = |kind: usize| SENT.iter().map(|(_, counts)| counts[kind] * 2).sum();
    let expected = ["fixed", "valid", "corrupt"].map(str::to_owned).into_iter();
    ensure!(
        by("verdict", &verdicts)? == expected.zip([0, 1, 2].map(sum)).collect(),
        "{verdicts:?}"
    );
    let again = format!("metrics are pushed to {url} again");
    fixer.stderr.wait(&again)?;
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    let about: Vec<_> = ended.stderr.iter().filter(|line| line.contains("push")).collect();
    ensure!(about.len() == 2, "{ended:?}");
    Ok(())
}

#[test]
fn the_last_numbers_are_pushed_at_the_end() -> Result<()> {
    let scene = scene()?;
    let receiver = receiver::start(&scene.host)?;
    let url = receiver::url("127.0.0.1");
    let run = ["-i", BRIDGE, "-i", OTHER, "--metrics", "off", "--events", "none"];
    let fixer =
        pushing(&scene.host, &[&run[..], &["--otlp", &url, "--otlp-interval", "3600"]].concat())?;
    receiver.wait("fixer_build_info", |found| found.len() == 1)?;
    send(&scene)?;
    fixer.stop(Signal::SIGTERM)?.ok()?;
    knows(&receiver, all())
}

#[test]
fn it_is_pushed_from_where_fixer_was_started_by_whoever_it_became() -> Result<()> {
    let scene = scene()?;
    let elsewhere = NetNs::scratch("elsewhere")?;
    link::up(&elsewhere, "lo")?;
    let receiver = receiver::start(&elsewhere)?;
    let sleeper = Running::start(&scene.host, program("sleep", &["1000"]))?;
    let netns = format!("pid:{}", sleeper.pid());
    // A name, which has to be looked up.
    let url = receiver::url("localhost");
    let run = ["-i", BRIDGE, "-i", OTHER, "--netns", &netns, "--user", "nobody"];
    let push = ["--otlp", &url, "--otlp-interval", "1"];
    let attributes = "service.instance.id=second,deployment.environment=lab";
    let fixer = described(&elsewhere, &[&run[..], &push].concat(), attributes)?;
    send(&scene)?;
    knows(&receiver, all())?;
    let mine = "{service_name='fixer',service_instance_id='second',deployment_environment='lab'}";
    receiver.wait(&format!("fixer_build_info{mine}"), |found| found.len() == 1)?;
    let status = fs::read_to_string(format!("/proc/{}/status", fixer.pid()))?;
    ensure!(!status.contains("Uid:\t0") && status.contains("NoNewPrivs:\t1"), "{status}");
    let places = by("netns", &receiver.query("sum by (netns)(fixer_packets_total)")?)?;
    ensure!(places == [(netns, all())].into(), "{places:?}");
    fixer.stop(Signal::SIGTERM)?.ok()?;
    Ok(())
}

/// A receiver that takes what is pushed and answers each time like this; `None`, never. It tells when
/// it was asked.
fn answering(netns: &NetNs, answer: Option<&'static str>) -> Result<(String, mpsc::Receiver<()>)> {
    let listener = netns.run(|| TcpListener::bind("[::]:0"))??;
    let url = format!("http://[::1]:{}", listener.local_addr()?.port());
    let (tell, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            // Fixer may have hung up, and the test may be over.
            let (Ok(mut stream), Ok(())) = (stream, tell.send(())) else { return };
            if let Some(answer) = answer {
                let _ = respond(&mut stream, answer);
            } else {
                open.push(stream);
            }
        }
    });
    Ok((url, asked))
}

/// Reads a request, and answers it: an answer that has no end goes on as long as somebody reads.
fn respond(stream: &mut TcpStream, answer: &str) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = given.trim().parse().map_err(io::Error::other)?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    stream.write_all(answer.as_bytes())?;
    while answer.ends_with("\r\n\r\n") && !answer.contains("content-length") {
        stream.write_all(&[b'x'; 4096])?;
    }
    Ok(())
}

/// What goes wrong is said once, whatever it is; the fixing goes on, and the end does not wait long.
#[test]
fn what_a_receiver_does_is_said_once_and_changes_nothing() -> Result<()> {
    // Field 1, a message of 15 bytes: field 1, the number 7; field 2, the text.
    const REFUSAL: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n\x0a\x0f\x08\x07\x12\x0btoo\x1b[m many";
    let cases = [
        (
            Some("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"),
            "it answers 503 Service Unavailable",
        ),
        (Some(REFUSAL), "it refuses 7 values: too\u{fffd}[m many"),
        (Some("HTTP/1.1 200 OK\r\n\r\n"), "length limit exceeded"),
        (Some("SSH-2.0-OpenSSH_9.2\r\n"), "invalid HTTP version parsed"),
        (Some(""), "connection closed before message completed"),
        (None, "no answer within 5 s (does a firewall"),
    ];
    thread::scope(|scope| {
        let started = cases.map(|(answer, words)| scope.spawn(move || said_once(answer, words)));
        started.map(|case| case.join().expect("it does not panic")).into_iter().collect()
    })
}

fn said_once(answer: Option<&'static str>, words: &str) -> Result<()> {
    let scene = scene()?;
    let (url, asked) = answering(&scene.host, answer)?;
    let run = ["-i", BRIDGE, "-i", OTHER, "--metrics", "off", "--otlp-interval", "1"];
    let mut fixer = pushing(&scene.host, &[&run[..], &["--otlp", &url]].concat())?;
    fixer.stderr.wait(&format!("cannot push metrics to {url}/v1/metrics: {words}"))?;
    send(&scene)?;
    for _ in 0..if answer.is_some() { 3 } else { 2 } {
        asked.recv_timeout(PATIENCE).with_context(|| words.to_owned())?;
    }
    let begun = Instant::now();
    let ended = fixer.stop(Signal::SIGTERM)?.ok()?;
    ensure!(begun.elapsed() < PATIENCE / 2, "{words}: {:?}", begun.elapsed());
    let about: Vec<_> = ended.stderr.iter().filter(|line| line.contains("push")).collect();
    ensure!(about.len() == 1, "{words}: {ended:?}");
    for (interface, counts) in
        [(BRIDGE, "5 fixed, 3 valid, 2 corrupt"), (OTHER, "4 fixed, 1 valid")]
    {
        let line = format!("{interface} egress: {counts}");
        ensure!(ended.stdout.contains(&line), "{words}: {ended:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_pushed_to_is_refused() -> Result<()> {
    let scene = scene()?;
    let refused = |command| -> Result<String> {
        let ended = Running::start(&scene.host, command)?.end()?;
        ensure!(ended.status.code() == Some(2), "{ended:?}");
        Ok(ended.stderr.join(" "))
    };
    let run = |url| ["run", "-i", BRIDGE, "--otlp", url];
    for (url, words) in [
        ("localhost:4318", "write it like http://127.0.0.1:4318"),
        ("https://collector", "for TLS or credentials push to a collector on this host"),
        ("http://me:secret@collector", "for TLS or credentials"),
        ("http://:4318", "write it like http://127.0.0.1:4318"),
        ("http://a b", "write it like"),
    ] {
        let text = refused(fixer_with_otlp(&run(url))?)?;
        ensure!(text.contains(words), "{url}: {text}");
    }
    // As it is usually built, it cannot, and says what to do.
    let text = refused(fixer(&run("http://127.0.0.1:4318"))?)?;
    ensure!(text.contains("built without the feature otlp; build it with `cargo build"), "{text}");
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("fixer.toml");
    fs::write(&path, "auto = true\notlp = 'http://127.0.0.1:4318'\n")?;
    let text = refused(fixer(&["run", "--config", path.to_str().context("a path in UTF-8")?])?)?;
    ensure!(text.contains("fixer.toml line 2: ") && text.contains("the feature otlp"), "{text}");
    Ok(())
}
