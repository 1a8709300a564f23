//! Whole frames, compared with those in `snapshots`. Where one is to change, `INSTA_UPDATE=always` writes
//! it anew.

use crossterm::event::KeyCode::{self, Char, Down, End, Enter, Esc, PageDown, Up};
use fixer_common::{
    abi::Hook,
    verdict::{TABLE, Verdict},
};
use insta::assert_snapshot;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, style::Color};

use super::{
    fixture::{reading, sample},
    model::Reading,
    state::{Flow, Looks, State},
    view,
};
use crate::event;

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

#[test]
fn events_are_shown_when_there_are_some() {
    let mut state = host(PLAIN);
    state.live().event(&event::fixture::event(Verdict::Fixed, |_| ()));
    let frame = frame(&state, 120, 24);
    assert!(frame.contains("last events") && !frame.contains("last counted"), "{frame}");
    assert!(frame.contains("bad udp cksum 0x1bc7 -> 0x072b! fixed, DHCP offer"), "{frame}");
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
