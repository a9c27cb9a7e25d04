//! Our part of a socket's mark (docs/datapath.md §1). Pure, so that the host can test it.

use crate::exit::Exit;
use dynencap_abi::{MARK_DONE, MARK_MASK, MARK_OVERHEAD_MASK, MARK_OVERHEAD_SHIFT, MARK_SENTINEL};

/// The mark of a socket whose exit costs that many bytes; `None`: it has no gateway. The larger
/// of this and what was planned before stays, so that a connection keeps its route.
#[inline(always)]
fn with_overhead(mark: u32, overhead: Option<u32>) -> u32 {
    let planned = match mark & MARK_OVERHEAD_MASK {
        MARK_DONE => 0,
        planned => planned,
    };
    let ours = match overhead {
        Some(bytes) => MARK_SENTINEL | planned.max(bytes << MARK_OVERHEAD_SHIFT),
        None => planned,
    };
    mark & !MARK_MASK | ours
}

/// The mark of a socket with this exit.
#[inline(always)]
pub(crate) fn for_exit(mark: u32, exit: &Exit) -> u32 {
    with_overhead(mark, exit.has_gateway().then(|| exit.overhead()))
}

/// The overhead part alone, for an exit with a gateway.
#[inline(always)]
pub(crate) fn overhead(exit: &Exit) -> u32 {
    exit.overhead() << MARK_OVERHEAD_SHIFT
}

/// The mark of a socket whose routes are planned for that overhead, without an exit.
#[inline(always)]
pub(crate) fn with_reserve(mark: u32, bytes: u32) -> u32 {
    mark & !MARK_MASK | bytes << MARK_OVERHEAD_SHIFT & MARK_OVERHEAD_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_overhead_stays_and_the_applications_bits_survive() {
        let first = with_overhead(0x1200_0034, Some(48));
        assert_eq!(first, 0x12b0_0034);
        // What no exit has was not planned, with the sentinel or without.
        assert_eq!(with_overhead(u32::MAX, Some(40)), 0xffa8_ffff);
        assert_eq!(with_overhead(MARK_DONE, Some(40)), 0x00a8_0000);
        assert_eq!(with_overhead(first, Some(20)), first);
        assert_eq!(with_overhead(first, Some(80)), 0x12d0_0034);
        assert_eq!(with_overhead(first, None), 0x1230_0034);
        assert_eq!(with_overhead(with_overhead(first, None), Some(40)), first);
    }

    #[test]
    fn what_says_done_is_no_plan() {
        assert_eq!(with_overhead(MARK_DONE | 1, Some(40)), 0x00a8_0001);
        assert_eq!(with_overhead(MARK_DONE | 1, None), 1);
    }

    #[test]
    fn a_reserve_has_no_sentinel() {
        assert_eq!(with_reserve(0xffff_ffff, 48), 0xff30_ffff);
        assert_eq!(with_reserve(0, 80), 0x0050_0000);
    }
}
