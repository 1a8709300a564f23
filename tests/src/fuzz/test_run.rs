//! `BPF_PROG_TEST_RUN` with its flags, which aya keeps to itself (linux/bpf.h, net/bpf/test_run.c).

use std::{io, os::fd::AsRawFd as _, os::fd::BorrowedFd};

use super::trial::Kind;

/// What the kernel is asked, and where it writes the answer: `union bpf_attr`, as far as this command
/// uses it.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// The number of the command.
const BPF_PROG_TEST_RUN: libc::c_int = 10;

/// Gives the packet a sum of all its bytes, and looks whether it is still right behind the program.
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;

/// Where `struct __sk_buff` holds `gso_size`, and how long it is up to there.
const GSO_SIZE: usize = 176;
const CONTEXT: usize = 184;

/// The packet as it came out, and what the program returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// From its destination address on.
    pub frame: Vec<u8>,
    /// What the program returned.
    pub returned: u32,
}

/// How much longer than it came a frame may come out, in bytes.
const ROOM: usize = 256;

/// Runs a classifier once. A refusal of the kernel is an error; `EBADMSG` says that the sum of the
/// whole packet is not right any more.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8], kind: Kind) -> io::Result<Ran> {
    let mut out = vec![0u8; frame.len() + ROOM];
    let mut context = [0u8; CONTEXT];
    if kind == Kind::Gso {
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&500_u32.to_ne_bytes());
    }
    let mut attributes = Attributes {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ctx_size_in: CONTEXT as u32,
        ctx_in: context.as_ptr() as u64,
        flags: if kind == Kind::Summed { BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 },
        ..Attributes::default()
    };
    // SAFETY: the attributes live through the call, and so do the buffers that they point to, each
    // as long as it is said to be; `out` is writable.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<Attributes>() as libc::c_uint,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(attributes.data_size_out as usize);
    Ok(Ran { frame: out, returned: attributes.retval })
}
