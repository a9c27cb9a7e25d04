//! RFC 9669 §4.1: division by zero gives 0, modulo by zero leaves the destination, and the
//! smallest number divided by -1 is itself.

#[inline(always)]
pub(super) fn signed_div64(a: u64, b: u64) -> u64 {
    match b {
        0 => 0,
        _ => a
            .cast_signed()
            .wrapping_div(b.cast_signed())
            .cast_unsigned(),
    }
}

#[inline(always)]
pub(super) fn signed_rem64(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => a
            .cast_signed()
            .wrapping_rem(b.cast_signed())
            .cast_unsigned(),
    }
}

#[inline(always)]
pub(super) fn signed_div32(a: u32, b: u32) -> u32 {
    match b {
        0 => 0,
        _ => a
            .cast_signed()
            .wrapping_div(b.cast_signed())
            .cast_unsigned(),
    }
}

#[inline(always)]
pub(super) fn signed_rem32(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        _ => a
            .cast_signed()
            .wrapping_rem(b.cast_signed())
            .cast_unsigned(),
    }
}
