//! What is done with an input of libFuzzer: raw bytes, of which each target makes what it needs. An
//! input is a crash if this panics.
//!
//! The inputs that once crashed are in `tests/fixtures/fuzz/inputs.txt`, a target and a line of hex
//! each, and an ordinary test tries them again.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use fixer_common::abi::{
    Hook,
    event::{Header, LONG_SAMPLE, room},
};
use fixer_common::verdict::{TABLE, Verdict};
use fixer_user::{
    event::{Clock, Dhcp, Event, Origin, Sample},
    sink::{Json, Pcapng, Sink, Text},
};
use pcap_file::pcapng::PcapNgReader;
use zerocopy::IntoBytes as _;

use super::{
    setting::SETTINGS,
    slices,
    trial::{Kind, Trial, lines},
};
use crate::cases::cases;

/// What a target makes of an input.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 2] = [("parse", parse), ("events", events)];

/// Inputs that once were a crash.
pub const FIXTURES: &str = include_str!("../../fixtures/fuzz/inputs.txt");

/// Tries the fixtures, and panics at the first that is a crash.
pub fn replay() -> Result<()> {
    for line in lines(FIXTURES) {
        let (name, input) = line.split_once(' ').with_context(|| format!("no input: {line}"))?;
        let (_, target) = TARGETS
            .iter()
            .find(|(known, _)| *known == name)
            .with_context(|| format!("no target {name}"))?;
        target(&hex::decode(input.trim()).with_context(|| format!("no hex: {line}"))?);
    }
    Ok(())
}

/// The packet logic must agree with the reference: the first byte chooses the setting and the kind of
/// packet, the rest is the frame.
pub fn parse(input: &[u8]) {
    let Some((&choice, frame)) = input.split_first() else { return };
    let choice = usize::from(choice);
    let setting = &SETTINGS[choice % SETTINGS.len()];
    let kind = if choice / SETTINGS.len() % 8 == 7 { Kind::Gso } else { Kind::Plain };
    let trial = Trial { setting, hook: Hook::Egress, kind, frame: frame.to_vec() };
    if let Some(difference) = slices::difference(&trial) {
        panic!("the packet logic and the reference disagree about\n{trial}\n{difference}");
    }
}

/// A sample must be shown or refused: the input as it is, as the frame of a sample, and as a message
/// between the ports of DHCP.
pub fn events(input: &[u8]) {
    show(input.to_vec());
    let verdict = TABLE[input.len() % TABLE.len()].verdict;
    show(sample(verdict, input));
    for ports in [[67, 68], [68, 67], [547, 546], [546, 547]] {
        // That it comes to an end is all that is asked.
        let _ = Dhcp::decode(ports, input);
    }
}

/// The sample of a frame.
fn sample(verdict: Verdict, frame: &[u8]) -> Vec<u8> {
    let captured = frame.len().min(room(LONG_SAMPLE));
    let header = Header {
        time: 5_015_772_001,
        ifindex: 4,
        frame_len: frame.len() as u32,
        captured: captured as u32,
        checksum_at: frame.len() as u32 / 2,
        stored: 0x1bc7,
        expected: 0x072b,
        vlan_tci: 0x6005,
        vlan_protocol: if frame.len().is_multiple_of(3) { 0x88a8 } else { 0 },
        verdict: verdict as u8,
        hook: Hook::Egress as u8,
        padding: [0; 6],
    };
    [header.as_bytes(), &frame[..captured]].concat()
}

/// Shows a sample in every way there is, and looks whether it is a single line that can be read.
fn show(bytes: Vec<u8>) {
    let Ok(sample) = Sample::parse(bytes.into()) else { return };
    let clock = Clock::new(5_000_000_000, "2026-11-21T10:15:53Z".parse().expect("a moment"));
    let event = Event::new(sample, &Origin::new("host", "virbr0"), &clock);
    let text = written(|bytes| Text::new(bytes, false).event(&event));
    let line = text.strip_suffix('\n').expect("a whole line");
    assert!(!line.contains(char::is_control), "a control character is shown: {line:?}");
    written(|bytes| Text::new(bytes, true).event(&event));
    let json = written(|bytes| Json::new(bytes).event(&event));
    let line = json.strip_suffix('\n').expect("a whole line");
    assert!(!line.contains('\n'), "more than one line: {line:?}");
    let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert!(value.is_object(), "not an object: {line}");
    let mut file = Vec::new();
    Pcapng::new(&mut file).expect("a file").event(&event).expect("the event in the file");
    let mut reader = PcapNgReader::with_capacity(&file[..], 2 * LONG_SAMPLE).expect("a file");
    while let Some(block) = reader.next_block() {
        block.expect("a block");
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), fixer_user::sink::SinkError>) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes).expect("a vector takes every byte");
    String::from_utf8(bytes).expect("text")
}

/// Writes inputs to start from into a directory: the frames of the table of cases.
pub fn seed(target: &str, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for (number, case) in cases().into_iter().enumerate() {
        let input = match target {
            "parse" => [&[number as u8], &case.frame[..]].concat(),
            _ if number % 2 == 0 => case.frame,
            _ => sample(case.verdict.unwrap_or(Verdict::Valid), &case.frame),
        };
        let file = directory.join(format!("case-{number}"));
        fs::write(&file, input).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
