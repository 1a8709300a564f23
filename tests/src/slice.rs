//! A frame in memory, for the packet logic as an ordinary function.

use fixer_common::frame::Frame;

/// A slice that can also be a segmentation-offload packet.
pub struct Slice<'a> {
    /// From its destination address on.
    pub bytes: &'a [u8],
    /// Whether it is a segmentation-offload packet.
    pub gso: bool,
}

impl Frame for Slice<'_> {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn is_gso(&self) -> bool {
        self.gso
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.load(offset)
    }

    fn view<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.view(offset)
    }

    fn head<const N: usize>(&self) -> Option<&[u8; N]> {
        self.bytes.head()
    }
}
