//! Whole frames, compared with those in `snapshots`. Where one is to change, `INSTA_UPDATE=always` writes
//! it anew.

use std::{sync::Arc, time::Duration};

use crossterm::event::KeyCode::{self, Char, Down, End, Enter, Esc, PageDown, Up};
use dhcproto::v4::DhcpOption;
use fixer_common::{
    abi::Hook,
    verdict::{TABLE, Verdict},
};
use insta::assert_snapshot;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use super::{
    fixture::{reading, sample, time},
    heard::{News, Voice, What},
    model::Reading,
    state::{Flow, Looks, State},
    view,
};
use crate::{
    bpf::ring::Maps,
    event::{self, Event, Mac, Origin, Sample},
    exchange::Outcome,
    net::netns::HOST,
    share::Feed,
};

const PLAIN: Looks = Looks { colour: false, unicode: true };

/// A frame as the terminal gets it.
fn drawn(state: &State, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let draw = |frame: &mut ratatui::Frame<'_>| {
        view::draw(state, frame.area(), frame.buffer_mut());
    };
    terminal.draw(draw).unwrap();
    terminal.backend().buffer().clone()
}

fn frame(state: &State, width: u16, height: u16) -> String {
    view::text(&drawn(state, width, height))
}

fn press(state: &mut State, codes: &[KeyCode]) {
    for code in codes {
        assert_eq!(state.key((*code).into()), Flow::Go, "{code}");
    }
}

/// Four minutes of a host with three bridges and a namespace.
fn host(looks: Looks) -> State {
    let mut state = State::new(looks);
    for second in 0..=240 {
        let wave = (0..second).map(|at| if at % 60 < 30 { at % 30 } else { 0 }).sum::<u64>();
        let [busy, mixed] = [
            [(Verdict::Fixed, 40 + wave), (Verdict::Valid, second)],
            [(Verdict::Fixed, second / 4), (Verdict::Corrupt, second / 60)],
        ];
        let mut pod = Reading { mode: "clsact", ..reading(2, "eth0", &mixed) };
        (pod.place.netns, pod.place.hook) = ("blue".into(), Hook::Ingress);
        let held_by = "run 48213".to_owned();
        let run = Reading { held_by, ..reading(7, "br-3f2a9c1d7e44", &[]) };
        let readings = vec![reading(4, "virbr0", &busy), run, pod];
        state.sample(sample(second, readings));
    }
    state
}

/// A hundred bridges, of which each sees another number of packets.
fn many() -> State {
    let mut state = State::new(PLAIN);
    for second in 0..=1 {
        let count = |number: u64| (number * 37) % 101 * second;
        let bridge = |number: u64| {
            let count = [(Verdict::Fixed, count(number))];
            reading(number as u32, &format!("br{number:02}"), &count)
        };
        state.sample(sample(second, (0..100).map(bridge).collect()));
    }
    state
}

#[test]
fn it_fits_terminals_of_every_size() {
    let state = host(PLAIN);
    assert_snapshot!("80x24", frame(&state, 80, 24));
    assert_snapshot!("120x40", frame(&state, 120, 40));
    assert_snapshot!("40x10", frame(&state, 40, 10));
    // Whatever the size, it is drawn.
    for width in (0..=200).step_by(9) {
        for height in [0, 1, 2, 3, 4, 8, 11, 12, 13, 14, 15, 16, 60] {
            assert_eq!(drawn(&state, width, height).area.height, height);
        }
    }
}

#[test]
fn with_nothing_to_show_it_says_why() {
    let mut state = State::new(PLAIN);
    assert!(frame(&state, 80, 24).contains("looking for what is attached"));
    state.sample(sample(0, Vec::new()));
    assert_snapshot!("empty", frame(&state, 80, 24));
    press(&mut state, &[Char('/'), Char('x')]);
    assert!(frame(&state, 80, 24).contains("no attached interface has 'x' in its name"));
}

#[test]
fn without_unicode_it_is_ascii() {
    let frame = frame(&host(Looks { colour: false, unicode: false }), 80, 24);
    assert!(frame.is_ascii(), "{frame}");
    assert_snapshot!("ascii", frame);
}

#[test]
fn of_many_those_around_the_selected_one_are_shown() {
    let mut state = many();
    let shows = |state: &State, name: &str| frame(state, 80, 24).contains(name);
    assert!(shows(&state, "br00") && !shows(&state, "br50"));
    press(&mut state, &[PageDown; 5]);
    assert_snapshot!("scrolled", frame(&state, 80, 24));
    press(&mut state, &[End]);
    assert!(shows(&state, "br99 egress by verdict") && shows(&state, "(rows 86-100)"));
    press(&mut state, &[Down, Up]);
    assert!(shows(&state, "br98 egress by verdict"));
}

#[test]
fn sorted_the_busiest_are_first() {
    let mut state = many();
    press(&mut state, &[Char('s')]);
    let rates = |state: &State| state.rows().iter().map(|row| row.rate()).collect::<Vec<_>>();
    assert!(rates(&state).is_sorted_by(|one, next| one >= next));
    assert!(frame(&state, 80, 24).contains("sort: rate"));
    press(&mut state, &[Char('s')]);
    let totals: Vec<_> = state.rows().iter().map(|row| row.total()).collect();
    assert!(totals.is_sorted_by(|one, next| one >= next));
    press(&mut state, &[Char('s')]);
    assert!(!rates(&state).is_sorted_by(|one, next| one >= next));
}

/// The selection is an interface, and not a place on the screen.
#[test]
fn the_selection_goes_where_its_interface_goes() {
    let mut state = many();
    press(&mut state, &[Char('j'), Char('j'), Char('k')]);
    for _ in 0..3 {
        assert!(frame(&state, 80, 24).contains("br01 egress by verdict"));
        press(&mut state, &[Char('s')]);
    }
}

#[test]
fn a_filter_leaves_the_interfaces_whose_name_has_it() {
    let mut state = many();
    // While it is typed, letters are letters.
    press(&mut state, &[Char('/'), Char('R'), Char('q'), KeyCode::Backspace, Char('7')]);
    assert_snapshot!("filter", frame(&state, 80, 24));
    press(&mut state, &[Enter]);
    let kept = frame(&state, 80, 24);
    assert!(kept.contains("fixer top: 10 of 100 with 'R7'") && kept.contains("q quit"), "{kept}");
    press(&mut state, &[Esc]);
    assert_eq!(state.rows().len(), 100);
    assert_eq!(state.key(Char('q').into()), Flow::Quit);
}

#[test]
fn held_it_shows_what_was() {
    let mut state = host(PLAIN);
    press(&mut state, &[Char('p')]);
    let held = frame(&state, 80, 24);
    assert_snapshot!("paused", held);
    state.sample(sample(300, vec![reading(9, "new0", &[])]));
    assert_eq!(frame(&state, 80, 24), held);
    press(&mut state, &[Char(' ')]);
    assert!(frame(&state, 80, 24).contains("new0"));
}

/// Colour says nothing that words do not say.
#[test]
fn colour_is_for_those_who_want_it() {
    let coloured = Looks { colour: true, unicode: true };
    let with = drawn(&host(coloured), 80, 24);
    let without = drawn(&host(PLAIN), 80, 24);
    assert_eq!(view::text(&with), view::text(&without));
    let colours = |buffer: &Buffer| {
        let mut seen: Vec<_> = buffer.content.iter().map(|cell| cell.fg).collect();
        seen.sort_by_key(ToString::to_string);
        seen.dedup();
        seen
    };
    assert_eq!(colours(&without), [Color::Reset]);
    assert_eq!(colours(&with), [Color::Green, Color::Red, Color::Reset]);
}

/// A run hands out events of the host's first bridge.
fn hear(state: &mut State, what: What) {
    state.live().hear(News { netns: HOST.into(), feed: Feed::Run(48213), what });
}

/// A message of a client or to it, so many seconds after ten o'clock.
fn said(client: u8, second: f64, message_type: &'static str) -> Event {
    let verdict = if message_type == "offer" { Verdict::Fixed } else { Verdict::Valid };
    let mut event = event::fixture::event(verdict, |_| ());
    event.monotonic = Duration::from_secs_f64(second);
    event.time = time(0) + event.monotonic;
    let dhcp = event.dhcp.as_mut().unwrap();
    dhcp.message_type = message_type;
    dhcp.client_mac = Some(Mac([0x52, 0x54, 0, 0x0a, 3, client]));
    if !["offer", "ack"].contains(&message_type) {
        (dhcp.your_ip, dhcp.server_id) = (None, None);
    }
    event
}

/// Exchanges of every kind, the last of which go on.
fn talks() -> Vec<Event> {
    let mut events = Vec::new();
    let mut talk = |client, second: f64, words: &[&'static str]| {
        let words = words.iter().copied().zip(0..);
        let event = |(word, number)| said(client, second + f64::from(number) * 0.002, word);
        events.extend(words.map(event));
    };
    talk(0x11, 100.0, &["discover", "offer", "request", "ack"]);
    talk(0x12, 180.0, &["request", "nak"]);
    talk(0x13, 190.0, &["discover", "discover", "discover"]);
    talk(0x14, 195.0, &["discover", "offer"]);
    talk(0x15, 230.0, &["discover", "offer", "request"]);
    talk(0x16, 239.0, &["discover"]);
    events
}

/// The host, with a run that tells of exchanges.
fn talking(looks: Looks) -> State {
    let mut state = host(looks);
    hear(&mut state, What::Voice(Voice::Whole));
    hear(&mut state, What::Events(talks()));
    let readings = state.rows().iter().map(|row| row.reading.clone()).collect();
    state.sample(sample(241, readings));
    state
}

#[test]
fn exchanges_and_events_are_shown() {
    let state = talking(PLAIN);
    assert_snapshot!("exchanges-80x24", frame(&state, 80, 24));
    assert_snapshot!("exchanges-120x40", frame(&state, 120, 40));
    let ascii = frame(&talking(Looks { colour: false, unicode: false }), 80, 24);
    assert!(ascii.is_ascii() && ascii.contains("-- last exchanges --"), "{ascii}");
    let coloured = drawn(&talking(Looks { colour: true, unicode: true }), 80, 24);
    assert_eq!(view::text(&coloured), frame(&state, 80, 24));
}

#[test]
fn the_filter_is_for_exchanges_and_events_too() {
    let mut state = talking(PLAIN);
    press(&mut state, &[Char('/'), Char('V'), Char('i'), Enter]);
    let kept = frame(&state, 80, 24);
    assert!(kept.contains("no_offer") && kept.contains(": fixed, DHCP offer"), "{kept}");
    press(&mut state, &[Char('/'), Char('x'), Enter]);
    let none = frame(&state, 80, 24);
    assert!(!none.contains("no_offer") && !none.contains("DHCP offer"), "{none}");
}

#[test]
fn exchanges_are_held_with_the_picture() {
    let mut state = talking(PLAIN);
    press(&mut state, &[Char('p')]);
    let held = frame(&state, 80, 24);
    hear(&mut state, What::Events(vec![said(0x17, 241.0, "discover")]));
    hear(&mut state, What::Lost(3, Duration::ZERO));
    assert_eq!(frame(&state, 80, 24), held);
    press(&mut state, &[Char('p')]);
    let shown = frame(&state, 80, 24);
    assert!(shown.contains("52:54:00:0a:03:17") && shown.contains("3 events were lost"), "{shown}");
}

#[test]
fn why_there_is_no_exchange_is_said_in_a_line() {
    let mut state = host(PLAIN);
    let says = |state: &State, words: &str| {
        let frame = frame(state, 80, 24);
        let mut lines = frame.lines().skip_while(|line| !line.contains("last exchanges"));
        assert_eq!(lines.nth(1), Some(words), "{frame}");
    };
    assert!(!frame(&state, 80, 24).contains("last exchanges"));
    let half = "sees one side; `fixer run --all --hook both` sees both";
    let maps = Maps { events: 1, wanted: 2, lost: 3 };
    let what = What::Voice(Voice::Half);
    state.live().hear(News { netns: HOST.into(), feed: Feed::Pins(maps), what });
    says(&state, &format!("none: `fixer attach` {half}"));
    hear(&mut state, What::Voice(Voice::Half));
    says(&state, &format!("none: this `fixer run` {half}"));
    // Of half a conversation nothing is told.
    hear(&mut state, What::Events(talks()));
    says(&state, &format!("none: this `fixer run` {half}"));
    hear(&mut state, What::Voice(Voice::None("cannot hear `fixer run` 48213: why".to_owned())));
    says(&state, "cannot hear `fixer run` 48213: why");
    hear(&mut state, What::Voice(Voice::Whole));
    says(&state, "none yet");
    hear(&mut state, What::Gone);
    says(&state, &format!("none: `fixer attach` {half}"));
}

/// What goes on with a run that ends is not told as what nobody answered.
#[test]
fn with_the_run_its_open_exchanges_go() {
    let mut state = talking(PLAIN);
    assert!(frame(&state, 80, 24).contains("waiting"));
    hear(&mut state, What::Gone);
    let readings = state.rows().iter().map(|row| row.reading.clone()).collect();
    state.sample(sample(400, readings));
    let outcomes: Vec<_> = state.talks().iter().map(|it| it.ending.exchange.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::UnansweredOffer, Outcome::NoOffer, Outcome::Nak, Outcome::Lease]
    );
}

/// Nor is what was not heard to its end: where events were lost, or while `top` itself was stopped.
#[test]
fn what_was_not_heard_is_no_silence() {
    let later = |state: &mut State, seconds: std::ops::Range<u64>| {
        let readings: Vec<_> = state.rows().iter().map(|row| row.reading.clone()).collect();
        for second in seconds {
            state.sample(sample(second, readings.clone()));
        }
        let talks = state.talks();
        talks
            .iter()
            .filter(|talk| talk.goes_on || talk.ending.exchange.client_mac == MAC_16)
            .count()
    };
    const MAC_16: Option<Mac> = Some(Mac([0x52, 0x54, 0, 0x0a, 3, 0x16]));
    assert_eq!(later(&mut talking(PLAIN), 242..300), 1, "it is told");
    let mut lost = talking(PLAIN);
    hear(&mut lost, What::Lost(3, Duration::from_secs(242)));
    assert_eq!(later(&mut lost, 242..300), 0);
    assert_eq!(later(&mut talking(PLAIN), 299..300), 0);
}

#[test]
fn of_interfaces_that_are_not_shown_nothing_is_heard() {
    let mut state = host(PLAIN);
    hear(&mut state, What::Voice(Voice::Whole));
    let mut event = said(0x11, 100.0, "discover");
    event.interface = "br7".into();
    hear(&mut state, What::Events(vec![event]));
    assert!(state.talks().is_empty() && state.lines().0 == "last counted");
}

/// Whatever strangers put into packets and names, cells hold what a terminal prints.
#[test]
fn nothing_in_a_packet_reaches_the_terminal() {
    let evil: String = (0..0xa0).filter_map(char::from_u32).filter(|it| it.is_control()).collect();
    let payload = event::fixture::offer_with(|message| {
        message.set_fname(evil.as_bytes()).set_sname(b"\x1b]0;title\x07");
        message.opts_mut().insert(DhcpOption::ClassIdentifier(evil.clone().into_bytes()));
    });
    let frame = event::fixture::frame(&payload);
    let bytes = event::fixture::sample(event::fixture::header(Verdict::Fixed, &frame), &frame);
    let origin = Origin::new(HOST, &evil);
    let offer = Event::new(Sample::parse(bytes).unwrap(), &origin, &event::fixture::clock());
    let mut discover = said(0x11, 5.0, "discover");
    discover.interface = Arc::clone(&offer.interface);
    let mut state = State::new(PLAIN);
    state.sample(sample(0, vec![reading(4, &offer.interface, &[])]));
    hear(&mut state, What::Voice(Voice::Whole));
    hear(&mut state, What::Events(vec![discover, offer]));
    let buffer = drawn(&state, 200, 40);
    let text = view::text(&buffer);
    assert!(text.contains("waiting") && text.contains(": fixed, DHCP offer"), "{text}");
    assert!(buffer.content.iter().all(|cell| !cell.symbol().contains(char::is_control)));
}

#[test]
fn every_verdict_has_its_line() {
    let every: Vec<_> = TABLE.iter().map(|row| (row.verdict, 1_000_000_000)).collect();
    let mut state = State::new(PLAIN);
    state.sample(sample(0, vec![reading(1, "br0", &every)]));
    let frame = frame(&state, 120, 40);
    for row in &TABLE {
        assert!(frame.contains(row.help), "{} is missing: {frame}", row.name);
    }
}
