//! What is done to a packet: its checksum filled in one way or another, its lengths made to lie, its
//! bytes damaged.

use fastrand::Rng;

use super::{
    build::{noise, pick},
    reference::{Datagram, find},
};

/// Fills in the checksum, if there is one: mostly as a partial one or a right one.
pub fn fill_checksum(rng: &mut Rng, frame: &mut [u8]) {
    let Some(datagram) = find(frame) else { return };
    let datagram = match rng.u8(..16) {
        0 => aim(frame, datagram, 0xffff),
        1 => aim(frame, datagram, datagram.pseudo_header),
        _ => datagram,
    };
    let Datagram { pseudo_header, right, .. } = datagram;
    let value = match rng.u8(..32) {
        0..14 => pseudo_header,
        14..23 => right,
        23..26 => 0,
        26 => 0xffff,
        27 => !pseudo_header,
        28 => pseudo_header.wrapping_add(rng.u16(..3)).wrapping_sub(1),
        29 => right.wrapping_add(rng.u16(..3)).wrapping_sub(1),
        30 => !right,
        _ => rng.u16(..),
    };
    frame[datagram.checksum_at..datagram.checksum_at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Changes a word of the payload so that the right checksum becomes `wanted`.
fn aim(frame: &mut [u8], datagram: Datagram, wanted: u16) -> Datagram {
    // The last whole word of the payload, where there is one.
    let header_len = datagram.checksum_at + 4 - datagram.at;
    let at = datagram.at + (datagram.len & !1) - 2;
    if datagram.len < header_len + 2 {
        return datagram;
    }
    frame[at..at + 2].fill(0);
    // In ones' complement: with nothing there the sum is !right; the word makes up the rest.
    let there = find(frame).map_or(0, |datagram| u32::from(!datagram.right));
    let rest = (u32::from(!wanted) + 0xffff - there) % 0xffff;
    frame[at..at + 2].copy_from_slice(&(rest as u16).to_be_bytes());
    find(frame).unwrap_or(datagram)
}

/// Makes a length lie, or the end of the frame.
pub fn lie(rng: &mut Rng, frame: &mut Vec<u8>) {
    let Some(datagram) = find(frame) else { return };
    let by = *pick(rng, &[-8, -2, -1, -1, 1, 1, 2, 8]);
    // The three length fields, and TCP's data offset: two bytes each, near enough.
    let ip = if frame[12] == 0x86 { 18 } else { 16 };
    let at = match rng.u8(..4) {
        0 => datagram.at + 4,
        1 => datagram.at + 12,
        _ => ip,
    };
    match rng.u8(..5) {
        0 => frame.truncate(frame.len().saturating_add_signed(-rng.isize(1..20))),
        1 => put(frame, at, |_| rng.u16(..)),
        2 => {
            // Both lengths lie alike: the datagram is another one.
            put(frame, datagram.at + 4, |len| len.wrapping_add_signed(by));
            put(frame, ip, |len| len.wrapping_add_signed(by));
        }
        _ => put(frame, at, |len| len.wrapping_add_signed(by)),
    }
}

fn put(frame: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(field) = frame.get_mut(at..at + 2) {
        let value = change(u16::from_be_bytes([field[0], field[1]]));
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Bytes that mean something somewhere in a header.
const TELLING: [u8; 20] =
    [0, 1, 4, 6, 8, 17, 20, 43, 44, 50, 51, 58, 60, 0x45, 0x46, 0x4f, 0x60, 0x81, 0xdd, 0xff];

/// Damages a frame. `other` is one to take bytes from.
pub fn damage(rng: &mut Rng, frame: &mut Vec<u8>, other: &[u8]) {
    let len = frame.len();
    if len == 0 {
        return;
    }
    // Headers matter more than payload.
    let at = if rng.u8(..4) == 0 { rng.usize(..len) } else { rng.usize(..len.min(80)) };
    let range = at..(at + rng.usize(..24)).min(len);
    match rng.u8(..12) {
        0..3 => frame[at] ^= 1 << rng.u8(..8),
        3 => frame[at] = rng.u8(..),
        4..6 => frame[at] = *pick(rng, &TELLING),
        6 => put(frame, at & !1, |word| word.wrapping_add(rng.u16(..3)).wrapping_sub(1)),
        7 => frame.truncate(at),
        8 => {
            let more = rng.usize(1..64);
            frame.extend(noise(rng, more));
        }
        9 => drop(frame.drain(range)),
        10 => {
            let copy = frame[range].to_vec();
            frame.splice(at..at, copy);
        }
        _ => {
            let from = rng.usize(..=other.len());
            let taken = &other[from..(from + range.len()).min(other.len())];
            frame.splice(at..(at + taken.len()).min(len), taken.iter().copied());
        }
    }
}
