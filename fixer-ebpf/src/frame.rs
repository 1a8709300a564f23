//! `__sk_buff` as a [`Frame`], and every helper that is called on it, wrapped to be safe.
//!
//! What the verifier wants is kept here. A packet may be read between `data` and `data_end` after a
//! comparison with `data_end` that it can follow: the sum of a packet pointer and a bounded offset
//! against the untouched end. LLVM likes to rewrite such a comparison into arithmetic on
//! `data_end`, which the verifier forbids, and to keep pointers across helpers that invalidate
//! them. Reading both ends afresh and volatile before every access leaves it no occasion.

use core::{hint, mem::MaybeUninit, ptr};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{
        bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use fixer_common::{frame::Frame, wire::vlan};

/// A helper's refusal: its negative errno.
pub type Refusal = i64;

/// What is out of a program's reach: not a helper's word, but our own.
pub const OUT_OF_REACH: Refusal = -1;

/// The most bytes that LLVM copies by itself. Longer copies it leaves to a loop over single bytes.
const INLINE_COPY: usize = 128;

/// A VLAN tag.
#[derive(Clone, Copy)]
pub struct Tag {
    /// Its EtherType, in network byte order as the helpers take it.
    pub protocol: u16,
    /// Priority, drop eligibility and VLAN identifier (`vlan_tci`).
    pub tci: u16,
}

impl Tag {
    /// A tag as it stands inside a frame.
    #[inline(always)]
    pub const fn from_wire([a, b, c, d]: [u8; vlan::LEN]) -> Self {
        Self { protocol: u16::from_ne_bytes([a, b]), tci: u16::from_be_bytes([c, d]) }
    }

    /// The tag as it stands inside a frame.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; vlan::LEN] {
        let ([a, b], [c, d]) = (self.protocol.to_ne_bytes(), self.tci.to_be_bytes());
        [a, b, c, d]
    }
}

/// Whether bytes are covered by the sum that a network card took of the packet
/// (`CHECKSUM_COMPLETE`), which then changes with them.
#[derive(Clone, Copy)]
pub enum Summed {
    /// All that lies behind the Ethernet header.
    Yes,
    /// The Ethernet header.
    No,
}

/// A packet in the hands of a classifier.
///
/// Wraps the context that the kernel passed in, which stays valid as long as the program runs.
#[derive(Clone, Copy)]
pub struct Skb(*mut __sk_buff);

/// Reads a field of the context, afresh.
macro_rules! context_field {
    ($skb:expr, $field:ident) => {{
        // SAFETY: the pointer came from the kernel and is valid for the program's whole run. Every
        // field is a plain number, and the verifier checks that this program type may read it.
        unsafe { ptr::read_volatile(&raw const (*$skb.0).$field) }
    }};
}

impl Skb {
    /// The packet behind a classifier's context.
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        Self(context.skb.skb)
    }

    /// The index of the interface that the packet is on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        context_field!(self, ifindex)
    }

    /// The EtherType that the kernel believes the frame to have (`skb->protocol`). A sender of raw
    /// frames may have told it another than the frame holds.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        u16::from_be(context_field!(self, protocol) as u16)
    }

    /// The VLAN tag that the kernel keeps beside the frame.
    #[inline(always)]
    pub fn tag(self) -> Option<Tag> {
        (context_field!(self, vlan_present) != 0).then(|| Tag {
            protocol: context_field!(self, vlan_proto) as u16,
            tci: context_field!(self, vlan_tci) as u16,
        })
    }

    /// Makes the first `len` bytes readable, and nobody else's: others may look at the same packet.
    #[inline(always)]
    pub fn own(self, len: usize) -> Result<(), Refusal> {
        // SAFETY: the context is valid; the helper checks the length itself.
        outcome(unsafe { bpf_skb_pull_data(self.0, len as u32) })
    }

    /// Takes the outermost VLAN tag away, wherever it is kept, and puts the next one beside the frame.
    #[inline(always)]
    pub fn pop_tag(self) -> Result<(), Refusal> {
        // SAFETY: the context is valid.
        outcome(unsafe { bpf_skb_vlan_pop(self.0) })
    }

    /// Puts a VLAN tag beside the frame; one that was there moves into it.
    #[inline(always)]
    pub fn push_tag(self, tag: Tag) -> Result<(), Refusal> {
        // SAFETY: the context is valid.
        outcome(unsafe { bpf_skb_vlan_push(self.0, tag.protocol, tag.tci) })
    }

    /// Takes `bytes` out of the frame behind the Ethernet header, or puts as many zeros there if
    /// it is negative. `bpf_skb_adjust_room` counts the other way round.
    #[inline(always)]
    pub fn shrink(self, bytes: i32) -> Result<(), Refusal> {
        // SAFETY: the context is valid; the helper checks the lengths itself.
        outcome(unsafe { bpf_skb_adjust_room(self.0, -bytes, BPF_ADJ_ROOM_MAC, 0) })
    }

    /// Makes the frame `len` bytes long: cuts its tail, or adds zeros.
    #[inline(always)]
    pub fn set_len(self, len: usize) -> Result<(), Refusal> {
        // SAFETY: the context is valid; the helper checks the length itself.
        outcome(unsafe { bpf_skb_change_tail(self.0, len as u32, 0) })
    }

    /// Overwrites the bytes at `offset`.
    #[inline(always)]
    pub fn store<const N: usize>(
        self,
        offset: usize,
        bytes: &[u8; N],
        summed: Summed,
    ) -> Result<(), Refusal> {
        let flags = match summed {
            Summed::Yes => u64::from(BPF_F_RECOMPUTE_CSUM),
            Summed::No => 0,
        };
        // SAFETY: `bytes` is readable for `N` bytes; the helper checks the offset itself.
        outcome(unsafe {
            bpf_skb_store_bytes(self.0, offset as u32, bytes.as_ptr().cast(), N as u32, flags)
        })
    }

    /// Copies the `N` bytes at `offset` out of the frame, without a helper if they are few.
    #[inline(always)]
    pub fn read<const N: usize>(
        self,
        offset: usize,
        to: &mut MaybeUninit<[u8; N]>,
    ) -> Result<(), Refusal> {
        if N > INLINE_COPY {
            // SAFETY: `to` is writable for `N` bytes.
            return unsafe { self.copy(offset, to.as_mut_ptr().cast(), N) };
        }
        let start = self.reach::<N>(offset).ok_or(OUT_OF_REACH)?;
        // SAFETY: `reach` has shown that these bytes lie inside the packet.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(start as *const [u8; N], 1) };
        Ok(())
    }

    /// Copies `len` bytes of the frame at `offset` to `to`, pulled in or not.
    ///
    /// # Safety
    ///
    /// `to` must be writable for `len` bytes.
    #[inline(always)]
    pub unsafe fn copy(self, offset: usize, to: *mut u8, len: usize) -> Result<(), Refusal> {
        // SAFETY: the caller vouches for `to`.
        outcome(unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, to.cast(), len as u32) })
    }

    #[inline(always)]
    fn data(self) -> usize {
        context_field!(self, data) as usize
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        context_field!(self, data_end) as usize
    }

    /// The address of `N` readable bytes at `offset`.
    #[inline(always)]
    fn reach<const N: usize>(self, offset: usize) -> Option<usize> {
        let start = self.data() + offset;
        (advance::<N>(start) <= self.data_end()).then_some(start)
    }
}

impl Frame for Skb {
    #[inline(always)]
    fn len(&self) -> usize {
        context_field!(self, len) as usize
    }

    #[inline(always)]
    fn is_gso(&self) -> bool {
        context_field!(self, gso_size) != 0
    }

    /// Nothing is pulled out of a segmentation-offload packet: kernels have crashed on those whose
    /// segments were moved (a1e40ac5b5e9, 3382a1ed7f77), and none is mended anyway.
    #[inline(always)]
    fn fetch(&self, len: usize) {
        let len = len.min(self.len());
        if subtract(self.data_end(), self.data()) < len && !self.is_gso() {
            // SAFETY: the context is valid; the helper checks the length itself.
            unsafe { bpf_skb_pull_data(self.0, len as u32) };
        }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.reach::<N>(offset)?;
        // SAFETY: `reach` has shown that these bytes lie inside the packet.
        Some(unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.reach::<N>(offset)? as *const [u8; N];
        // SAFETY: no packet lies at address 0; said so that nobody tests it.
        unsafe { hint::assert_unchecked(!start.is_null()) };
        // SAFETY: `reach` has shown that these bytes lie inside the packet. They stay there: nothing
        // that moves a packet's bytes happens while they are borrowed.
        Some(unsafe { &*start })
    }

    /// Reached backwards from its end, which the comparison has in a register anyway.
    #[inline(always)]
    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        let end = advance::<N>(self.data());
        if end > self.data_end() {
            return None;
        }
        let start = (end - N) as *const [u8; N];
        // SAFETY: no packet lies at address 0; said so that nobody tests it.
        unsafe { hint::assert_unchecked(!start.is_null()) };
        // SAFETY: the comparison shows that the `N` bytes before `end` lie inside the packet. They
        // stay there: nothing that this program does to a packet happens while its head is borrowed.
        Some(unsafe { &*start })
    }

    /// Adds and takes away the packet's length, read twice: nobody but we knows that the two are one.
    #[inline(always)]
    fn launder<const MOST: usize>(&self, number: usize) -> usize {
        subtract(add(number, self.len()), self.len()) & MOST
    }

    /// An addition of its own. LLVM sees that the two have no bit in common and would make it an
    /// OR, of whose result the verifier knows nothing (before Linux 6.10, 0922c78f592c) or little.
    #[inline(always)]
    fn beyond(&self, offset: usize, distance: usize) -> usize {
        add(offset, distance)
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, offset: usize) -> Option<u64> {
        let start = self.reach::<N>(offset)? as *const u32;
        let mut sum = 0;
        for block in 0..N / BLOCK {
            // SAFETY: `reach` has shown that all `N` bytes lie inside the packet.
            sum = unsafe { words(start.byte_add(block * BLOCK), BLOCK / 4, sum) };
        }
        // SAFETY: as above.
        Some(unsafe { words(start.byte_add(N / BLOCK * BLOCK), N % BLOCK / 4, sum) })
    }
}

#[inline(always)]
fn outcome(code: i64) -> Result<(), Refusal> {
    if code == 0 { Ok(()) } else { Err(code) }
}

/// `start + N`, as an instruction of its own: LLVM would turn `start + 1 <= end` into `start < end`,
/// from which the verifier learns nothing.
#[inline(always)]
fn advance<const N: usize>(mut start: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    // SAFETY: one addition to a register.
    unsafe {
        core::arch::asm!(
            "{start} += {N}",
            start = inout(reg) start,
            N = const N,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        start += N;
    }
    start
}

/// How many bytes are added without a jump. Left to itself LLVM makes a loop of every long sum,
/// which costs three more instructions for each word, and the verifier its patience.
const BLOCK: usize = 256;

/// Adds the first `count` words, at most 64, to `sum` without a jump: `count` is a constant wherever
/// this is called.
///
/// # Safety
///
/// The words must lie inside the packet.
#[inline(always)]
unsafe fn words(start: *const u32, count: usize, mut sum: u64) -> u64 {
    macro_rules! add {
        ($($word:literal)*) => {$(
            if $word < count {
                // SAFETY: the caller vouches for the first `count` words.
                sum = add_now(sum, unsafe { start.add($word).read_unaligned() });
            }
        )*};
    }
    add!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    add!(16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    add!(32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47);
    add!(48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);
    sum
}

/// `sum + word`, added when it is this line's turn. LLVM would load all words first, and spill them.
#[inline(always)]
fn add_now(sum: u64, word: u32) -> u64 {
    add(sum as usize, word as usize) as u64
}

/// An operation on two registers, whatever LLVM knows about them.
macro_rules! operation {
    ($name:ident, $line:literal, $elsewhere:ident) => {
        #[inline(always)]
        pub fn $name(mut one: usize, other: usize) -> usize {
            #[cfg(target_arch = "bpf")]
            // SAFETY: one operation on two registers.
            unsafe {
                core::arch::asm!(
                    $line,
                    one = inout(reg) one,
                    other = in(reg) other,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            #[cfg(not(target_arch = "bpf"))]
            {
                one = one.$elsewhere(other);
            }
            one
        }
    };
}

operation!(add, "{one} += {other}", wrapping_add);
operation!(subtract, "{one} -= {other}", wrapping_sub);
