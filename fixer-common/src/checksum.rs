//! The Internet checksum, and what a half-finished one looks like.
//!
//! RFC 1071 defines the checksum of UDP and TCP as the ones' complement of the ones' complement
//! sum of the covered 16-bit words: add them, fold every carry out of the top back into the bottom,
//! and invert. Three properties make it cheap, and this module rests on all of them:
//!
//! * *Any grouping works.* A carry out of 16 bits is worth 1, so 32-bit words can be added into a
//!   64-bit accumulator and folded once at the end.
//! * *Any byte order works.* Swapping the bytes of every word swaps the bytes of the sum. So words
//!   are added as the machine loads them, and only the folded result is put in order.
//! * *Zero has two faces.* 0x0000 and 0xffff are the same number in ones' complement. A sum that
//!   folds to 0xffff over data that carries its checksum means the data verifies. UDP claims the
//!   other face: a stored 0 means "the sender did not compute one", so a computed 0 is sent as
//!   0xffff (RFC 768).
//!
//! What is covered is not only the datagram: the *pseudo-header* (addresses, protocol and length)
//! is added so that a datagram delivered to the wrong host does not verify.
//!
//! Linux leaves the last step to the hardware. It stores the folded sum of the pseudo-header, not
//! inverted, in the checksum field, marks the packet `CHECKSUM_PARTIAL`, and expects a device to
//! add the rest from `csum_start` on and to store the complement. When no device ever does, the
//! field still holds that pseudo-header sum: that is the fault fixer mends, and how it knows it.

use crate::frame::Frame;

/// A running ones' complement sum, kept in the machine's byte order, not yet folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds a 16-bit field given by its value.
    #[inline(always)]
    pub const fn word(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Adds `N` bytes of `frame` at `offset`; `N` is a multiple of 4. `None` if they are out of reach.
    #[inline(always)]
    pub fn bytes<const N: usize>(
        self,
        frame: &(impl Frame + ?Sized),
        offset: usize,
    ) -> Option<Self> {
        Some(Self(self.0 + frame.sum::<N>(offset)?))
    }

    /// The sum as one 16-bit word: carries folded in, not inverted.
    #[inline(always)]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The value a checksum field must hold so that the data behind this sum verifies.
    ///
    /// A computed 0 becomes 0xffff: over UDP a stored 0 would mean "no checksum" (RFC 768), and
    /// over TCP the two are the same number.
    #[inline(always)]
    pub const fn complement(self) -> u16 {
        match !self.fold() {
            0 => 0xffff,
            sum => sum,
        }
    }

    /// Whether data that includes its own checksum adds up.
    #[inline(always)]
    pub const fn verifies(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The largest piece that is added without a new bounds test, in bytes.
const PIECE: usize = 512;

/// The longest range that [`range`] adds up, in bytes: what a jumbo frame can hold.
pub const LONGEST: usize = 18 * PIECE;

/// Adds the `len` bytes of `frame` from `start` on to `sum`, an odd last byte padded with zero.
///
/// The range is cut into pieces of constant size, a few of 512 and then one of each smaller power
/// of two, because the verifier wants a bounds test with a constant before it lets a packet be read.
/// Where a piece lies is computed from `len` alone and not from the pieces before it: so the
/// verifier finds the same state behind a piece whether it was added or not, and looks once at
/// what follows instead of twice.
///
/// `None` if a part is out of reach or the range is longer than [`LONGEST`].
#[inline(always)]
pub fn range(frame: &(impl Frame + ?Sized), start: usize, len: usize, sum: Sum) -> Option<Sum> {
    let mut sum = sum;
    if len > LONGEST {
        return None;
    }
    for piece in 0..LONGEST / PIECE {
        if piece == len / PIECE {
            break;
        }
        sum = sum.bytes::<PIECE>(frame, frame.beyond(start, piece * PIECE))?;
    }
    macro_rules! pieces {
        ($($size:literal)*) => {$(
            if len & $size != 0 {
                sum = sum.bytes::<$size>(frame, frame.beyond(start, above(len, $size)))?;
            }
        )*};
    }
    pieces!(256 128 64 32 16 8 4);
    if len & 2 != 0 {
        sum = sum.word(u16::from_be_bytes(frame.load(frame.beyond(start, above(len, 2)))?));
    }
    if len & 1 != 0 {
        let [last] = frame.load(frame.beyond(start, above(len, 1)))?;
        sum = sum.word(u16::from_be_bytes([last, 0]));
    }
    Some(sum)
}

/// How many bytes of a range of this length come before its piece of this size.
#[inline(always)]
const fn above(len: usize, size: usize) -> usize {
    // Every length that is added up fits into these bits, and the verifier sees that it does.
    const BITS: usize = (LONGEST + 1).next_power_of_two() - 1;
    len & BITS & !(2 * size - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum_of(bytes: &[u8]) -> Sum {
        range(bytes, 0, bytes.len(), Sum::default()).unwrap()
    }

    /// RFC 1071, section 3: the numerical example.
    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum_of(&bytes).fold(), 0xddf2);
        assert_eq!(sum_of(&bytes).complement(), 0x220d);
    }

    /// Every length up to the longest, against the definition taken word by word.
    #[test]
    fn every_length_agrees_with_the_definition() {
        let bytes: Vec<u8> = (0..LONGEST + 8).map(|n| (n * 31 + n / 7) as u8).collect();
        let mut plain = 0u32;
        for len in 0..=LONGEST {
            let mut even = plain;
            if len % 2 == 1 {
                even += u32::from(bytes[len - 1]) << 8;
            } else if len > 0 {
                even += u32::from(u16::from_be_bytes([bytes[len - 2], bytes[len - 1]]));
                even = (even & 0xffff) + (even >> 16);
                plain = even;
            }
            let folded = (even & 0xffff) + (even >> 16);
            let sum = range(&bytes[..], 0, len, Sum::default()).unwrap();
            assert_eq!(u32::from(sum.fold()), folded, "{len} bytes");
        }
    }

    #[test]
    fn a_range_that_is_too_long_or_out_of_reach_is_refused() {
        let bytes = vec![0u8; LONGEST + 2048];
        assert!(range(&bytes[..], 0, LONGEST, Sum::default()).is_some());
        assert!(range(&bytes[..], 0, LONGEST + 1, Sum::default()).is_none());
        assert!(range(&bytes[..100], 0, 101, Sum::default()).is_none());
        assert!(range(&bytes[..100], 99, 2, Sum::default()).is_none());
    }

    /// RFC 768: an all-zero computed checksum is transmitted as all ones.
    #[test]
    fn a_computed_zero_is_sent_as_all_ones() {
        assert_eq!(Sum::default().word(0xffff).complement(), 0xffff);
        assert_eq!(Sum::default().word(0xfffe).complement(), 0x0001);
    }

    /// RFC 1624, section 4: a header that sums to 0xcd7a without its field of 0x5555 has checksum
    /// 0xdd2f; the field changes to 0x3285, and the new checksum is the ones' complement zero.
    #[test]
    fn rfc_1624_example() {
        let rest = Sum::default().word(0xcd7a);
        assert_eq!(rest.word(0x5555).complement(), 0xdd2f);
        assert!(rest.word(0x5555).word(0xdd2f).verifies());
        assert_eq!(rest.word(0x3285).fold(), 0xffff);
        let updated = Sum::default().word(!0xdd2f).word(!0x5555).word(0x3285);
        assert_eq!(updated.fold(), 0xffff);
    }
}
