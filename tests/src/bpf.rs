//! bpf(2) itself, for the little that aya does not do: to load a program of a few instructions that
//! no compiler made, and to read the instructions that the kernel made of one.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

/// Commands (`enum bpf_cmd` in linux/bpf.h).
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const PROG_LOAD: libc::c_long = 5;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `BPF_TCX_EGRESS`.
const TCX_EGRESS: u32 = 47;

/// A place in the chain of programs: `BPF_F_BEFORE` or `BPF_F_AFTER` without another program named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all that are there.
    First = 1 << 3,
    /// Behind all that are there.
    Last = 1 << 4,
}

/// What a license is called that may call every helper.
const LICENSE: &std::ffi::CStr = c"GPL";

/// An instruction as the kernel lays it out (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What it does.
    pub code: u8,
    /// The destination register in the low half, the source register in the high half.
    pub registers: u8,
    /// An offset of a load or a store, or the distance of a jump.
    pub offset: i16,
    /// A constant.
    pub immediate: i32,
}

/// `r0 = number; exit`: the shortest program that there is.
pub const fn returning(number: i32) -> [Instruction; 2] {
    [
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: number },
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ]
}

/// Loads a classifier.
pub fn load_classifier(instructions: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    let attributes = Attributes {
        prog_type: SCHED_CLS,
        insn_cnt: u32::try_from(instructions.len())?,
        insns: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
    };
    // SAFETY: the addresses are those of live instructions, as many as it says, and of a string.
    let fd =
        unsafe { bpf(PROG_LOAD, &attributes) }.context("the kernel refuses a short program")?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a classifier to the egress of an interface of the calling thread's namespace by tcx, until
/// the link that is returned is closed.
pub fn attach_to_egress(program: &OwnedFd, ifindex: u32, place: Place) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
        relative_fd: u32,
        padding: u32,
        expected_revision: u64,
    }
    let attributes = Attributes {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type: TCX_EGRESS,
        flags: place as u32,
        relative_fd: 0,
        padding: 0,
        expected_revision: 0,
    };
    // SAFETY: the attributes hold numbers only.
    let fd =
        unsafe { bpf(LINK_CREATE, &attributes) }.context("the kernel has no tcx (Linux 6.6)")?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a link apart that somebody else holds, as `bpftool link detach` does: it stays, and is nowhere.
pub fn take_apart(link: u32) -> Result<()> {
    // SAFETY: the attributes are a number.
    let fd = unsafe { bpf(LINK_GET_FD_BY_ID, &link) }.context("the link is gone")?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let attributes = fd.as_raw_fd().cast_unsigned();
    // SAFETY: the attributes are a number.
    unsafe { bpf(LINK_DETACH, &attributes) }.context("the link cannot be taken apart")?;
    Ok(())
}

/// The instructions that the verifier left of a program and put in place of others: what is translated
/// to machine code.
pub fn translated(program: impl AsFd) -> Result<Vec<Instruction>> {
    /// The start of `struct bpf_prog_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        tag: [u8; 8],
        jited_prog_len: u32,
        xlated_prog_len: u32,
        jited_prog_insns: u64,
        xlated_prog_insns: u64,
    }
    let mut info = Info::default();
    // SAFETY: it is made of numbers, and with room for nothing else, nothing else is written.
    unsafe { info_of(program.as_fd(), &mut info)? };
    let len = info.xlated_prog_len as usize / size_of::<Instruction>();
    let mut instructions = vec![Instruction::default(); len];
    info = Info {
        xlated_prog_len: info.xlated_prog_len,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
        ..Info::default()
    };
    // SAFETY: as above, and the instructions have the room that is named.
    unsafe { info_of(program.as_fd(), &mut info)? };
    Ok(instructions)
}

/// The only value of a map that is an array of one.
pub fn only_value(map: u32) -> Result<Vec<u8>> {
    /// The start of `struct bpf_map_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
    }
    #[repr(C)]
    struct Lookup {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    // SAFETY: the attributes are a number.
    let fd = unsafe { bpf(MAP_GET_FD_BY_ID, &map) }.context("a program's map is gone")?;
    // SAFETY: the descriptor is new and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = Info::default();
    // SAFETY: it is made of numbers.
    unsafe { info_of(fd.as_fd(), &mut info)? };
    let (key, mut value) = (0u32, vec![0; info.value_size as usize]);
    let lookup = Lookup {
        map_fd: fd.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the key of an array has four bytes, and the value has the room that the map asks for.
    unsafe { bpf(MAP_LOOKUP_ELEM, &lookup) }.context("a program's map cannot be read")?;
    Ok(value)
}

/// Asks what the kernel knows about a program or a map.
///
/// # Safety
///
/// `info` starts like the kernel's structure about the object, and every bit pattern is good for it.
unsafe fn info_of<T>(object: BorrowedFd<'_>, info: &mut T) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    let attributes = Attributes {
        bpf_fd: object.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<T>())?,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the address is that of a live value of the length that is given.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &attributes) }.context("the kernel does not tell")?;
    Ok(())
}

/// bpf(2). What the attributes do not reach to is 0 to the kernel.
///
/// # Safety
///
/// `attributes` are those of the command, without uninitialised bytes; the addresses in them are good
/// for what the command does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are alive and of the size that is given; the rest is the caller's word.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    match i32::try_from(outcome) {
        Ok(outcome @ 0..) => Ok(outcome),
        _ => Err(io::Error::last_os_error()),
    }
}
