//! The object with a fault in it: one call of a kernel helper that is refused.
//!
//! A healthy kernel hardly ever refuses half-way through a fix, so the refusal is put into the
//! program: the instruction that calls the helper becomes one that loads what a refusal returns.
//! Everything around it is the object as it is.

use std::{
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
};

use anyhow::{Context as _, Result, ensure};
use fixer_user::bpf::OBJECT;
use object::{Object as _, ObjectSection as _};
use tempfile::TempPath;

use crate::command::built;

/// A call of a helper in the object.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The helper's name.
    pub helper: &'static str,
    /// Where the instruction lies in the file.
    at: usize,
}

/// The helpers that change a packet, with their numbers (linux/bpf.h).
const HELPERS: [(u32, &str); 6] = [
    (9, "bpf_skb_store_bytes"),
    (18, "bpf_skb_vlan_push"),
    (19, "bpf_skb_vlan_pop"),
    (38, "bpf_skb_change_tail"),
    (39, "bpf_skb_pull_data"),
    (50, "bpf_skb_adjust_room"),
];

/// Length of an instruction in bytes.
const INSTRUCTION: usize = 8;
/// Opcode of a call; of a helper, if its registers are 0.
const CALL: u8 = 0x85;
/// Opcode of a load of a constant into a register.
const LOAD: u8 = 0xb7;

/// Every call of a helper that changes a packet, in the order of the file.
pub fn calls() -> Result<Vec<Call>> {
    let file = object::File::parse(OBJECT).context("the object is no ELF file")?;
    let mut calls = Vec::new();
    for section in [".text", "classifier"] {
        let section = file.section_by_name(section).context("the object has no such section")?;
        let (start, _) = section.file_range().context("the section is empty")?;
        for (number, instruction) in section.data()?.chunks_exact(INSTRUCTION).enumerate() {
            let (head, number_of_helper) = instruction.split_at(4);
            let helper = u32::from_le_bytes(number_of_helper.try_into()?);
            let known = HELPERS.iter().find(|(number, _)| *number == helper);
            if let (true, Some((_, helper))) = (head == [CALL, 0, 0, 0], known) {
                calls.push(Call { helper, at: start as usize + number * INSTRUCTION });
            }
        }
    }
    ensure!(!calls.is_empty(), "the object calls none of the helpers");
    Ok(calls)
}

/// The object in which this call returns `-ENOMEM` and does nothing.
#[must_use]
pub fn refusing(call: Call) -> Vec<u8> {
    refusing_all(&[call])
}

/// The object in which all of these do so.
#[must_use]
pub fn refusing_all(calls: &[Call]) -> Vec<u8> {
    let mut object = OBJECT.to_vec();
    let [a, b, c, d] = (-libc::ENOMEM).to_le_bytes();
    for call in calls {
        object[call.at..call.at + INSTRUCTION].copy_from_slice(&[LOAD, 0, 0, 0, a, b, c, d]);
    }
    object
}

/// `fixer` as it was built, with such an object in place of its own: on no kernel at hand the fix does not
/// hold.
pub fn fixer_with(object: &[u8]) -> Result<TempPath> {
    let mut whole = fs::read(built()?)?;
    let place = whole.windows(OBJECT.len()).position(|bytes| bytes == OBJECT);
    let place = place.context("fixer does not embed the object that the suites know")?;
    whole[place..place + OBJECT.len()].copy_from_slice(object);
    let mut file =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempfile()?;
    file.write_all(&whole)?;
    // Nobody may write to a program that is started.
    Ok(file.into_temp_path())
}
