//! Walks through a loaded program as a packet does, and counts its steps.
//!
//! What is walked through is what the kernel translates to machine code: what the verifier found to be
//! unreachable under this configuration is gone, and the fields of `__sk_buff` have become those of
//! the kernel's own structure. So a count is exact, repeats on any machine, and grows with the first
//! instruction that somebody adds to the way of every packet.
//!
//! The walk ends with the program or at its first call. It knows the few instructions that compilers
//! make for reading and comparing; at any other it stops with an error, and so it cannot be wrong
//! silently.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use crate::bpf::{Instruction, load_classifier, only_value, translated};

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The program ended after so many instructions, with this result.
    Ended(usize, i32),
    /// It called a function after so many instructions: it takes a closer look.
    Called(usize),
}

/// Where a program finds things. These are addresses that no two things share.
const CONTEXT: u64 = 1 << 32;
const PACKET: u64 = 2 << 32;
const MAPS: u64 = 3 << 32;

/// Where `__sk_buff` holds the addresses of a packet's start and end (linux/bpf.h).
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// The parts of an instruction's code (linux/bpf_common.h, linux/bpf.h).
mod code {
    pub const CLASS: u8 = 0x07;
    pub const ALU: u8 = 0x04;
    pub const ALU64: u8 = 0x07;
    pub const JMP: u8 = 0x05;
    pub const JMP32: u8 = 0x06;
    pub const LDX: u8 = 0x01;
    pub const REGISTER: u8 = 0x08;
    pub const OPERATION: u8 = 0xf0;
    pub const SIZE: u8 = 0x18;
    pub const MODE: u8 = 0xe0;
    pub const MEM: u8 = 0x60;
    pub const LOAD_NUMBER: u8 = 0x18;
    pub const CALL: u8 = 0x85;
    pub const EXIT: u8 = 0x95;
}

/// What a program reads, and where.
pub struct Memory<'a> {
    packet: &'a [u8],
    /// Where the kernel's structure holds the packet's start and end, in the running kernel.
    fields: [(i16, u64); 2],
    maps: HashMap<u32, Vec<u8>>,
}

impl<'a> Memory<'a> {
    /// What `program` finds when it is called for this packet.
    pub fn new(program: &[Instruction], packet: &'a [u8]) -> Result<Self> {
        let fields = [(kernels(DATA)?, PACKET), (kernels(DATA_END)?, PACKET + packet.len() as u64)];
        let named =
            program.iter().filter(|at| at.code == code::LOAD_NUMBER && at.source() == MAP_VALUE);
        let ids = named.map(|at| at.immediate.cast_unsigned());
        let maps = ids.map(|id| Ok((id, only_value(id)?))).collect::<Result<_>>()?;
        Ok(Self { packet, fields, maps })
    }

    fn load(&self, address: u64, len: usize) -> Result<u64> {
        if let Some(offset) = address.checked_sub(MAPS) {
            let value =
                self.maps.get(&((offset >> 32) as u32)).context("a map that is not there")?;
            return number(value, offset & u64::from(u32::MAX), len);
        }
        if let Some(offset) = address.checked_sub(PACKET) {
            return number(self.packet, offset, len);
        }
        let field =
            self.fields.iter().find(|(at, _)| address == CONTEXT.wrapping_add_signed((*at).into()));
        field
            .map(|(_, value)| *value)
            .context("a field of the packet that is none of the two known")
    }
}

/// `BPF_PSEUDO_MAP_VALUE`: the constant is an address in a map.
const MAP_VALUE: usize = 2;

/// Where the kernel's own structure holds a field of `__sk_buff`: asked of a program that reads it.
fn kernels(field: i16) -> Result<i16> {
    let read = Instruction { code: 0x61, registers: 0x10, offset: field, immediate: 0 };
    let end = Instruction { code: code::EXIT, registers: 0, offset: 0, immediate: 0 };
    let program = translated(load_classifier(&[read, end])?)?;
    program.first().map(|read| read.offset).context("the kernel made nothing of a short program")
}

/// The number of so many bytes at this place, as the machine reads it.
fn number(bytes: &[u8], offset: u64, len: usize) -> Result<u64> {
    let start = usize::try_from(offset)?;
    let bytes = bytes.get(start..start + len).context("a load beyond the end")?;
    let mut whole = [0; 8];
    whole[..len].copy_from_slice(bytes);
    Ok(u64::from_le_bytes(whole))
}

impl Instruction {
    const fn destination(&self) -> usize {
        (self.registers & 0xf) as usize
    }

    const fn source(&self) -> usize {
        (self.registers >> 4) as usize
    }
}

/// Walks until the program ends or calls.
pub fn walk(program: &[Instruction], memory: &Memory<'_>) -> Result<Walk> {
    let mut registers = [0u64; 11];
    registers[1] = CONTEXT;
    let (mut at, mut steps) = (0, 0);
    loop {
        let instruction = program.get(at).context("the walk leaves the program")?;
        let wide = program.get(at + 1);
        steps += 1;
        at += 1;
        let here = || format!("at {} of {}: {instruction:?}", at - 1, program.len());
        let (to, from) = (instruction.destination(), instruction.source());
        let operand = if instruction.code & code::REGISTER == 0 {
            i64::from(instruction.immediate).cast_unsigned()
        } else {
            registers[from]
        };
        match (instruction.code & code::CLASS, instruction.code) {
            (_, code::CALL) => return Ok(Walk::Called(steps)),
            (_, code::EXIT) => return Ok(Walk::Ended(steps, registers[0] as i32)),
            (_, code::LOAD_NUMBER) => {
                let high = wide.with_context(here)?.immediate.cast_unsigned();
                let low = instruction.immediate.cast_unsigned();
                registers[to] = match from {
                    MAP_VALUE => MAPS + (u64::from(low) << 32) + u64::from(high),
                    0 => u64::from(high) << 32 | u64::from(low),
                    _ => bail!("a constant of another kind {}", here()),
                };
                at += 1;
            }
            (code::LDX, bits) if bits & code::MODE == code::MEM => {
                let len = match bits & code::SIZE {
                    0x00 => 4,
                    0x08 => 2,
                    0x10 => 1,
                    _ => 8,
                };
                let address = registers[from].wrapping_add_signed(instruction.offset.into());
                registers[to] = memory.load(address, len).with_context(here)?;
            }
            (code::ALU64, bits) => {
                registers[to] = compute(bits, registers[to], operand, 64).with_context(here)?;
            }
            (code::ALU, bits) => {
                let (value, operand) = (registers[to] & LOW, operand & LOW);
                registers[to] = if bits & code::OPERATION == 0xd0 {
                    in_order(registers[to], bits, instruction.immediate).with_context(here)?
                } else {
                    compute(bits, value, operand, 32).with_context(here)? & LOW
                };
            }
            (code::JMP, bits) => {
                if compare(bits, registers[to], operand).with_context(here)? {
                    at = at.checked_add_signed(instruction.offset.into()).with_context(here)?;
                }
            }
            (code::JMP32, bits) => {
                let sign = |value: u64| i64::from(value as i32).cast_unsigned();
                let (value, operand) = match bits & code::OPERATION {
                    0x60 | 0x70 | 0xc0 | 0xd0 => (sign(registers[to]), sign(operand)),
                    _ => (registers[to] & LOW, operand & LOW),
                };
                if compare(bits, value, operand).with_context(here)? {
                    at = at.checked_add_signed(instruction.offset.into()).with_context(here)?;
                }
            }
            _ => bail!("an instruction that is not known {}", here()),
        }
    }
}

/// The half that instructions on 32 bits work on.
const LOW: u64 = u32::MAX as u64;

fn compute(bits: u8, value: u64, operand: u64, width: u32) -> Option<u64> {
    let shift = operand as u32 % width;
    Some(match bits & code::OPERATION {
        0x00 => value.wrapping_add(operand),
        0x10 => value.wrapping_sub(operand),
        0x20 => value.wrapping_mul(operand),
        0x40 => value | operand,
        0x50 => value & operand,
        0x60 => value << shift,
        0x70 => value >> shift,
        0xa0 => value ^ operand,
        0xb0 => operand,
        _ => return None,
    })
}

/// A number of so many bits turned from or to the order of the network.
fn in_order(value: u64, bits: u8, width: i32) -> Option<u64> {
    let turned = bits & code::REGISTER != 0;
    Some(match (width, turned) {
        (16, true) => u64::from((value as u16).swap_bytes()),
        (32, true) => u64::from((value as u32).swap_bytes()),
        (64, true) => value.swap_bytes(),
        _ => return None,
    })
}

fn compare(bits: u8, value: u64, operand: u64) -> Option<bool> {
    let (signed, other) = (value.cast_signed(), operand.cast_signed());
    Some(match bits & code::OPERATION {
        0x00 => true,
        0x10 => value == operand,
        0x20 => value > operand,
        0x30 => value >= operand,
        0x40 => value & operand != 0,
        0x50 => value != operand,
        0x60 => signed > other,
        0x70 => signed >= other,
        0xa0 => value < operand,
        0xb0 => value <= operand,
        0xc0 => signed < other,
        0xd0 => signed <= other,
        _ => return None,
    })
}
