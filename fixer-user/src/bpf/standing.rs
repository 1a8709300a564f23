//! Whether what was attached is still there. Others may take it off: a network service that sets the qdiscs
//! of an interface anew, an administrator, a tool that takes links apart.

use std::{io, mem::size_of};

use fixer_common::abi::Hook;

use super::{
    attach::{Attachment, Held},
    load::Object,
};
use crate::net::filter;

impl Object {
    /// Whether the kernel still has it at that interface of the calling thread's namespace.
    pub fn stands(&mut self, ifindex: u32, attachment: &Attachment) -> io::Result<bool> {
        let Attachment { hook, held, .. } = attachment;
        let program = self.classifier(*hook).map_err(io::Error::other)?.info();
        let program = program.map_err(io::Error::other)?.id();
        Ok(match held {
            Held::Link(_) => programs(ifindex, *hook)?.contains(&program),
            Held::Filter(ifindex, ours) => {
                let mut there = filter::filters(*ifindex, *hook)?.into_iter();
                there.any(|it| (it.handle, it.program) == (ours.handle, program))
            }
        })
    }

    /// Lets go of what somebody took off: the kernel is not asked to take it off once more, for what is
    /// in its place now may be another's.
    pub fn forget(&mut self, attachment: Attachment) {
        if let (Held::Link(link), Ok(classifier)) =
            (attachment.held, self.classifier(attachment.hook))
        {
            // A link that is nowhere any more is only closed.
            let _ = classifier.detach(link);
        }
    }
}

/// The most programs that the kernel lets a hook have (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// `BPF_PROG_QUERY` of the kernel's `enum bpf_cmd`.
const PROG_QUERY: libc::c_long = 16;

/// What the kernel's `union bpf_attr` holds for that: all of it, for the kernel writes to its end.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<Query>() == 64);

/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` of the kernel's `enum bpf_attach_type`.
const fn tcx(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => 46,
        Hook::Egress => 47,
    }
}

/// The ids of the programs at a hook, by tcx, of an interface of the calling thread's namespace. Unlike all
/// that tells more about them, asking for the ids takes no more than CAP_NET_ADMIN.
fn programs(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        ifindex,
        attach_type: tcx(hook),
        programs: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: `query` is as long as it is said to be, which is all that the kernel reads and writes of it;
    // `ids` has room for `MOST` numbers. Both live until the call returns.
    let outcome =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.into_iter().take(query.count as usize).collect())
}
