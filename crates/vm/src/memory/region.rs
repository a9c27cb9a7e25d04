//! A region of the guest's address space: where in it an access lies, and whether it may.

/// Whether a program may write a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    ReadOnly,
    ReadWrite,
}

/// Objects of one size, each followed by a red zone.
#[derive(Clone, Debug)]
pub(super) struct Region {
    bytes: Vec<u8>,
    /// Distance of two objects, less one.
    stride_mask: u32,
    /// Length of an object.
    object_len: u32,
    protection: Protection,
}

impl Region {
    pub(super) fn objects(len: usize, count: usize, protection: Protection) -> Self {
        let stride = stride(len);
        Self {
            bytes: vec![0; stride * count],
            stride_mask: u32::try_from(stride - 1).unwrap_or(u32::MAX),
            object_len: u32::try_from(len).unwrap_or(u32::MAX),
            protection,
        }
    }

    /// The number of the object at an address.
    pub(super) fn object(&self, address: u64) -> u32 {
        let shift = self.stride_mask.trailing_ones();
        (address as u32).checked_shr(shift).unwrap_or(0)
    }

    #[inline(always)]
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let offset = address as u32;
        let within = u64::from(offset & self.stride_mask) + len as u64;
        (within <= u64::from(self.object_len)).then_some(offset as usize)
    }

    /// The bytes at an address, to read.
    #[inline(always)]
    pub(super) fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        let at = self.locate(address, len)?;
        self.bytes.get(at..at + len)
    }

    /// The bytes at an address, for a program to write.
    #[inline(always)]
    pub(super) fn write(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let at = self.locate(address, len)?;
        match self.protection {
            Protection::ReadOnly => None,
            Protection::ReadWrite => self.bytes.get_mut(at..at + len),
        }
    }

    /// An object of this length, to read from outside.
    pub(super) fn value(&self, len: usize, slot: u32) -> Option<&[u8]> {
        let at = slot as usize * stride(len);
        self.bytes.get(at..at + len)
    }

    /// An object of this length, to write from outside; made where it does not exist.
    pub(super) fn value_mut(&mut self, len: usize, slot: u32) -> &mut [u8] {
        let at = slot as usize * stride(len);
        if self.bytes.len() < at + stride(len) {
            self.bytes.resize(at + stride(len), 0);
        }
        self.bytes.get_mut(at..at + len).unwrap_or_default()
    }
}

/// Bytes from one object to the next: a power of two with room for a red zone.
pub(super) fn stride(len: usize) -> usize {
    (len + 8).next_power_of_two()
}
