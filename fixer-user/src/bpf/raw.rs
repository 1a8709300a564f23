//! bpf(2) itself, for what aya has no word for.

use std::io;

/// Carries out a command, whose attributes the kernel may write to. What they do not reach to is 0 to the
/// kernel. Gives what it returned: 0, or a descriptor.
///
/// # Safety
///
/// `attributes` are those of the command, as far as the kernel reads and writes them, and the addresses
/// in them are good for what the command does there.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the attributes are alive and as long as is said; all else is the caller's word.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match i32::try_from(outcome) {
        Ok(outcome @ 0..) => Ok(outcome),
        _ => Err(io::Error::last_os_error()),
    }
}
