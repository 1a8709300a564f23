//! Packets of every kind that fixer looks at, whole ones, before anything is done to them.

use fastrand::Rng;

use super::{
    reference::{TCP, UDP, Wanted},
    setting::{SETTINGS, Setting},
};

/// A packet that a rule of the setting asks for, or one that comes close. Its checksum is not filled
/// in.
pub fn packet(rng: &mut Rng, setting: &Setting) -> Vec<u8> {
    let wanted = wanted(rng, setting);
    let protocol = match rng.u8(..16) {
        0 => *pick(rng, &[UDP, TCP, 1, 58, 132, 136]),
        _ => wanted.protocol,
    };
    let ipv6 =
        if rng.u8(..16) == 0 { rng.bool() } else { wanted.ipv6 && (!wanted.ipv4 || rng.bool()) };
    let ports = ports(rng, wanted);
    let segment = segment(rng, protocol, ports);
    let packet = if ipv6 {
        ipv6_packet(rng, protocol, segment)
    } else {
        ipv4_packet(rng, protocol, segment)
    };
    ethernet(rng, if ipv6 { 0x86dd } else { 0x0800 }, packet)
}

/// One of the choices.
pub fn pick<'a, T>(rng: &mut Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.usize(..choices.len())]
}

/// Random bytes.
pub fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    match rng.u8(..4) {
        0 => bytes.fill(*pick(rng, &[0, 0xff, 0x55])),
        _ => rng.fill(&mut bytes),
    }
    bytes
}

/// A rule of the setting, at times of another one.
fn wanted(rng: &mut Rng, setting: &Setting) -> Wanted {
    let rules = if setting.rules.is_empty() || rng.u8(..16) == 0 {
        pick(rng, &SETTINGS[..8]).rules
    } else {
        setting.rules
    };
    *pick(rng, rules)
}

/// The ports of the rule, at times with something wrong about them.
fn ports(rng: &mut Rng, wanted: Wanted) -> (u16, u16) {
    const KNOWN: [u16; 13] = [67, 68, 546, 547, 4011, 53, 69, 80, 8080, 443, 0, 0xffff, 0x4300];
    let any = |rng: &mut Rng| if rng.bool() { *pick(rng, &KNOWN) } else { rng.u16(..) };
    let source = wanted.source.unwrap_or_else(|| any(rng));
    let destination = wanted.destination.unwrap_or_else(|| any(rng));
    match rng.u8(..48) {
        0 => (destination, source),
        1 => (source.wrapping_add(1), destination),
        2 => (source, destination.wrapping_sub(1)),
        3 => (any(rng), destination),
        4 => (source, any(rng)),
        5 => (source.swap_bytes(), destination.swap_bytes()),
        _ => (source, destination),
    }
}

/// A length that is worth trying: short ones mostly, and those around a power of two, where the
/// program takes another piece.
fn length(rng: &mut Rng) -> usize {
    match rng.u8(..16) {
        0..4 => rng.usize(..24),
        4..8 => rng.usize(..160),
        8..11 => (1usize << rng.u8(2..12)).saturating_add_signed(rng.isize(-9..3)),
        11..14 => rng.usize(236..600),
        14 => rng.usize(..1500),
        _ => match rng.u8(..4) {
            0 => rng.usize(9100..9300),
            _ => rng.usize(..3600),
        },
    }
}

/// Transport header and payload.
fn segment(rng: &mut Rng, protocol: u8, (source, destination): (u16, u16)) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let len = length(rng);
    if protocol == TCP {
        let options = 4 * rng.usize(..11);
        let flags = rng.u8(..);
        segment.extend(noise(rng, 8));
        segment.extend([((20 + options) * 4) as u8, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(noise(rng, options));
    } else {
        segment.extend(((8 + len) as u16).to_be_bytes());
        segment.extend([0, 0]);
    }
    segment.extend(noise(rng, len));
    segment
}

fn ipv4_packet(rng: &mut Rng, protocol: u8, segment: Vec<u8>) -> Vec<u8> {
    let options = if rng.u8(..3) == 0 { 4 * rng.usize(..11) } else { 0 };
    let header_len = 20 + options;
    let fragment: u16 = match rng.u8(..24) {
        0 => 0x2000,
        1 => rng.u16(..),
        2 => rng.u16(1..0x2000),
        3..8 => 0x4000,
        _ => 0,
    };
    let mut packet = vec![0x40 | (header_len / 4) as u8, rng.u8(..)];
    packet.extend(((header_len + segment.len()) as u16).to_be_bytes());
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol]);
    // The program leaves the header's own checksum alone.
    packet.extend(rng.u16(..).to_be_bytes());
    packet.extend(noise(rng, 8 + options));
    packet.extend(segment);
    packet
}

fn ipv6_packet(rng: &mut Rng, protocol: u8, segment: Vec<u8>) -> Vec<u8> {
    let count = match rng.u8(..8) {
        0..4 => 0,
        4..6 => 1,
        6 => rng.usize(..4),
        _ => rng.usize(..9),
    };
    let mut next = protocol;
    let mut payload = segment;
    for _ in 0..count {
        let (kind, mut header) = extension(rng);
        header[0] = next;
        next = kind;
        payload.splice(..0, header);
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(noise(rng, 32));
    packet.extend(payload);
    packet
}

/// An extension header and its kind. Its first byte is for the kind of the next.
fn extension(rng: &mut Rng) -> (u8, Vec<u8>) {
    let units = match rng.u8(..24) {
        0 => rng.usize(1..=256),
        1..4 => rng.usize(1..=16),
        _ => rng.usize(1..=3),
    };
    match rng.u8(..16) {
        0..5 => (60, sized(rng, 8 * units, (units - 1) as u8)),
        5..8 => (0, sized(rng, 8 * units, (units - 1) as u8)),
        8..11 => {
            let mut routing = sized(rng, 8 * units, (units - 1) as u8);
            routing[3] = if rng.u8(..6) == 0 { rng.u8(..) } else { 0 };
            (43, routing)
        }
        11..14 => {
            let offset_and_more: u16 = match rng.u8(..12) {
                0 => 1,
                1 => rng.u16(..),
                // Two bits that mean nothing.
                2 => 6,
                _ => 0,
            };
            let mut fragment = noise(rng, 8);
            fragment[2..4].copy_from_slice(&offset_and_more.to_be_bytes());
            (44, fragment)
        }
        14 => (51, sized(rng, 4 * (units + 1), (units - 1) as u8)),
        _ => (*pick(rng, &[50, 59, 135, 139]), sized(rng, 8 * units, (units - 1) as u8)),
    }
}

fn sized(rng: &mut Rng, len: usize, length: u8) -> Vec<u8> {
    let mut header = noise(rng, len);
    header[1] = length;
    header
}

/// Addresses, tags, the packet, and padding behind it.
fn ethernet(rng: &mut Rng, ether_type: u16, packet: Vec<u8>) -> Vec<u8> {
    let tags = match rng.u8(..16) {
        0..10 => 0,
        10..13 => 1,
        13..15 => 2,
        _ => rng.usize(..5),
    };
    let mut frame = noise(rng, 12);
    for _ in 0..tags {
        frame.extend(*pick(rng, &[[0x81, 0x00], [0x88, 0xa8]]));
        frame.extend(rng.u16(..).to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    match rng.u8(..6) {
        0 => frame.resize(frame.len().max(60), rng.u8(..)),
        1 => {
            let len = rng.usize(..40);
            frame.extend(noise(rng, len));
        }
        _ => {}
    }
    frame
}
