//! Bytes that another core has, asked for before they are wanted: they come while something else
//! is done. The one `unsafe` of this crate.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the cache lines of up to `length` bytes from a place on.
#[inline]
pub(super) fn prefetch(bytes: &[u8], at: usize, length: usize) {
    for at in (at..at + length).step_by(LINE) {
        if let Some(byte) = bytes.get(at) {
            ask(byte);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the hint takes a pointer, and there is none without"
)]
#[inline]
fn ask(byte: &u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: `PREFETCHh` reads and writes nothing and faults at no address (Intel SDM, volume
    // 2B); this one is of a byte that `get` found.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
}

/// To read is all that is stable elsewhere; whoever reads waits.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ask(byte: &u8) {
    std::hint::black_box(*byte);
}
