//! What is at a hook, for those who may see the programs' ids and no more.

use std::io;

use fixer_common::abi::Hook;

use super::raw::bpf;

/// The command of bpf(2) that asks for it.
const PROG_QUERY: libc::c_long = 16;

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of linux/bpf.h.
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;

/// As many as the kernel lets be at one hook.
const MOST: usize = 64;

/// The ids of the programs at a hook, by tcx. It takes CAP_NET_ADMIN: to open a program by its id takes
/// CAP_SYS_ADMIN.
pub(super) fn ids(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attributes {
        ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        _padding: u32,
        unused: [u64; 3],
        revision: u64,
    }
    let mut programs = [0u32; MOST];
    let mut attributes = Attributes {
        ifindex,
        attach_type: match hook {
            Hook::Ingress => INGRESS,
            Hook::Egress => EGRESS,
        },
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        _padding: 0,
        unused: [0; 3],
        revision: 0,
    };
    // SAFETY: the attributes are those of the command, to their end, and name a buffer that is alive and of
    // the length that is given.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    Ok(programs.into_iter().take(attributes.count as usize).collect())
}
