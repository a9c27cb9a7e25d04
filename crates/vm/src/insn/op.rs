//! What instructions do, and the codes by which they are dispatched on.

macro_rules! ops {
    ($($(#[$attribute:meta])* $op:ident,)*) => {
        /// What an instruction does. Arithmetic, conditions and stores have two forms: their
        /// operand is `r[src]` or the immediate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Op {
            $($(#[$attribute])* $op,)*
        }

        impl Op {
            /// In the order of their numbers.
            const ALL: &[Self] = &[$(Self::$op),*];
        }
    };
}

ops! {
    // With two forms.
    Add64,
    Sub64,
    Mul64,
    Div64,
    SDiv64,
    Or64,
    And64,
    Lsh64,
    Rsh64,
    Mod64,
    SMod64,
    Xor64,
    Mov64,
    Arsh64,
    Add32,
    Sub32,
    Mul32,
    Div32,
    SDiv32,
    Or32,
    And32,
    Lsh32,
    Rsh32,
    Mod32,
    SMod32,
    Xor32,
    Mov32,
    Arsh32,
    Store8,
    Store16,
    Store32,
    Store64,
    /// At a fixed place of the frame at hand, as most of what compilers emit.
    StoreFrame8,
    StoreFrame16,
    StoreFrame32,
    StoreFrame64,
    JumpEq64,
    JumpGt64,
    JumpGe64,
    JumpSet64,
    JumpNe64,
    JumpSGt64,
    JumpSGe64,
    JumpLt64,
    JumpLe64,
    JumpSLt64,
    JumpSLe64,
    JumpEq32,
    JumpGt32,
    JumpGe32,
    JumpSet32,
    JumpNe32,
    JumpSGt32,
    JumpSGe32,
    JumpLt32,
    JumpLe32,
    JumpSLt32,
    JumpSLe32,
    // With one form.
    Neg64,
    MovSx8To64,
    MovSx16To64,
    MovSx32To64,
    Neg32,
    MovSx8To32,
    MovSx16To32,
    Truncate16,
    Truncate32,
    Truncate64,
    Swap16,
    Swap32,
    Swap64,
    LoadImm64,
    Load8,
    Load16,
    Load32,
    Load64,
    LoadSx8,
    LoadSx16,
    LoadSx32,
    /// As [`Op::StoreFrame8`].
    LoadFrame8,
    LoadFrame16,
    LoadFrame32,
    LoadFrame64,
    /// The kind is the immediate.
    Atomic32,
    Atomic64,
    Jump,
    CallHelper,
    CallLocal,
    Exit,
    Invalid,
}

impl Op {
    /// How many have two forms.
    const TWO_FORMS: u8 = Self::Neg64 as u8;
    /// How many codes there are.
    pub(crate) const CODES: u16 = Self::Invalid.code(true) + 1;

    /// As it stands in [`Insn::code`]; `immediate`: the form, where there are two.
    pub(crate) const fn code(self, immediate: bool) -> u16 {
        Self::number_code(self as u8, immediate)
    }

    /// The operation of such a code; `None` for that of a sequence.
    pub(crate) fn of_code(code: u16) -> Option<Self> {
        let two = u16::from(Self::TWO_FORMS);
        let number = if code < two * 2 { code / 2 } else { code - two };
        Self::ALL.get(usize::from(number)).copied()
    }

    /// As [`Op::code`], by the operation's number.
    pub(crate) const fn number_code(number: u8, immediate: bool) -> u16 {
        if number < Self::TWO_FORMS {
            number as u16 * 2 + immediate as u16
        } else {
            number as u16 + Self::TWO_FORMS as u16
        }
    }
}

/// An atomic operation, from the immediate of a `BPF_ATOMIC` store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atomic {
    Add,
    Or,
    And,
    Xor,
    FetchAdd,
    FetchOr,
    FetchAnd,
    FetchXor,
    Exchange,
    CompareExchange,
}

impl Atomic {
    /// From an instruction's immediate.
    pub(crate) fn from_imm(imm: u64) -> Option<Self> {
        Some(match imm {
            0x00 => Self::Add,
            0x40 => Self::Or,
            0x50 => Self::And,
            0xa0 => Self::Xor,
            0x01 => Self::FetchAdd,
            0x41 => Self::FetchOr,
            0x51 => Self::FetchAnd,
            0xa1 => Self::FetchXor,
            0xe1 => Self::Exchange,
            0xf1 => Self::CompareExchange,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_that_of_its_codes_and_of_no_other() {
        for op in Op::ALL {
            for immediate in [false, true] {
                assert_eq!(Op::of_code(op.code(immediate)), Some(*op));
            }
        }
        assert_eq!(Op::of_code(Op::CODES), None);
        let codes: std::collections::HashSet<u16> = (Op::ALL.iter())
            .flat_map(|op| [op.code(false), op.code(true)])
            .collect();
        assert_eq!(codes.len(), usize::from(Op::CODES));
    }
}
