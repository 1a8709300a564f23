//! The eBPF programs of fixer: what needs the kernel, and nothing else.
//!
//! A packet enters in [`tc`], is seen as a [`frame`], judged by `fixer_common::decide`, mended in
//! [`apply`] (with its VLAN [`tags`] out of the way), and counted and reported in [`record`]. [`config`] and [`maps`] are the two ways in
//! which userspace takes part.
//!
//! Built for the BPF target by `cargo xtask ebpf`. It also compiles on the host, for the linters.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "additions that LLVM must not rewrite, see frame.rs"),
    feature(asm_experimental_arch)
)]

mod apply;
mod config;
mod frame;
mod maps;
mod record;
mod tags;
mod tc;

/// Programs with a GPL-compatible licence may call every helper.
#[cfg_attr(target_arch = "bpf", unsafe(link_section = "license"))]
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses a program that could get here, because it never ends.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host there is nothing to run; the names are used so that the linters see them used.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    let programs = [tc::fixer_egress, tc::fixer_ingress];
    println!(
        "{} programs under {}: build them with `cargo xtask ebpf`",
        programs.len(),
        String::from_utf8_lossy(&LICENSE)
    );
}
