//! A packet as bytes that can be asked for, wherever they are kept.

/// An Ethernet frame, starting with its destination address.
///
/// A frame may be longer than what can be read of it: in the kernel the tail of a packet may lie
/// in pages that were not pulled in. [`len`](Frame::len) is the truth about the packet;
/// [`load`](Frame::load) says what is within reach.
pub trait Frame {
    /// Length of the whole frame in bytes, readable or not.
    fn len(&self) -> usize;

    /// Whether the frame has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is a segmentation-offload packet: many segments that travel as one.
    fn is_gso(&self) -> bool;

    /// Brings the first `len` bytes within reach, where they are not, as far as the frame has them. What
    /// cannot be brought stays out of reach.
    #[inline(always)]
    fn fetch(&self, len: usize) {
        let _ = len;
    }

    /// The `N` bytes at `offset`, or `None` where they cannot be read.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The `N` bytes at `offset` where they lie, for a look at several places among them.
    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The first `N` bytes, or `None` where they cannot be read.
    fn head<const N: usize>(&self) -> Option<&[u8; N]>;

    /// The same number, which is at most `MOST`, as one that the frame's owner cannot foretell.
    ///
    /// The kernel's verifier walks on from where several ways meet once for every number that it
    /// foresees there. What it cannot foresee it walks through once. `MOST` has all its bits set.
    #[inline(always)]
    fn launder<const MOST: usize>(&self, number: usize) -> usize {
        number & MOST
    }

    /// The offset `distance` bytes behind `offset`: their sum, made the way that the frame's owner
    /// can follow.
    #[inline(always)]
    fn beyond(&self, offset: usize, distance: usize) -> usize {
        offset + distance
    }

    /// The `N` bytes at `offset` added up as 32-bit words in the machine's byte order.
    ///
    /// `N` is a multiple of 4 and at most 512, so the result stays below 2^39.
    fn sum<const N: usize>(&self, offset: usize) -> Option<u64> {
        let bytes = self.load::<N>(offset)?;
        let words = bytes.as_chunks::<4>().0.iter();
        Some(words.map(|word| u64::from(u32::from_ne_bytes(*word))).sum())
    }
}

/// A frame that lies in memory whole.
impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn is_gso(&self) -> bool {
        false
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }

    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.first_chunk()
    }
}
