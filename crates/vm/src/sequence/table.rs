//! The sequences that save the most dispatches on the gate's paths (`benches/gate/object`), those
//! weighed that packets take most often. `cargo xtask sequences` writes this file, from the
//! committed object. On another object it may save less; what a program does is the same.

/// Calls a macro with all sequences. Of each instruction: operation, whether its operand is a
/// register or an immediate, destination and source (15: none).
macro_rules! sequences {
    ($with:ident $($first:tt)*) => {
        $with! {
            $($first)*
            [Add32 i 2 15, LoadFrame32 r 5 10, JumpNe32 r 2 5, LoadFrame64 r 2 10, Rsh32 i 2 15,
             StoreFrame64 r 10 2, Load64 r 2 0, StoreFrame64 r 10 2]
            [Add32 r 0 2, Load32 r 2 1, Sub32 r 0 2, And32 i 0 15, Lsh32 i 0 15, Or32 i 0 15,
             LoadFrame64 r 5 10, Jump i 0 15]
            [Add32 r 7 5, Mov32 i 9 15, LoadFrame32 r 2 10, Add32 r 2 7, Lsh64 i 8 15,
             Arsh64 i 8 15, Mul32 i 8 15, StoreFrame32 r 10 2]
            [Add32 r 8 2, Add32 i 8 15, JumpGt32 i 8 15, Load32 r 5 1, And32 i 5 15,
             JumpNe32 i 5 15]
            [Add64 i 2 15, LoadImm64 i 1 15, Mov64 r 8 0, CallHelper i 0 15, Mov64 r 3 0,
             Mov64 r 0 8, JumpEq64 i 3 15, Load32 r 1 3]
            [Add64 i 4 15, LoadImm64 i 1 15, And64 r 4 1, Or64 i 4 15, StoreFrame64 r 10 4,
             Load32 r 1 3, And32 i 1 15, JumpEq32 i 1 15]
            [Add64 i 7 15, Mov32 i 9 15, JumpGt64 r 7 6, Store64 r 0 2, Mov32 i 9 15,
             LoadFrame32 r 2 10, JumpEq32 i 2 15]
            [Add64 r 0 3, Swap32 i 5 15, Or32 i 5 15, Swap32 i 5 15, Add64 r 0 5, Swap32 i 2 15,
             Add64 r 0 2, Store32 r 7 2]
            [Add64 r 1 0, Mov64 r 2 1, Rsh64 i 2 15, And32 i 1 15, Add32 r 1 2, Mov32 r 2 1,
             Rsh32 i 2 15, Add32 r 2 1]
            [Add64 r 1 2, Load8 r 1 1, Mov32 r 2 1, And32 i 2 15, JumpNe32 i 2 15, And32 i 1 15,
             JumpNe32 i 1 15]
            [Add64 r 3 1, Add64 r 3 2, Mov64 r 2 3, Rsh64 i 2 15, Xor64 r 2 3, Mul64 r 2 0]
            [Add64 r 3 1, Add64 r 3 2, Mov64 r 2 3, Rsh64 i 2 15, Xor64 r 2 3, Mul64 r 2 0,
             Rsh64 i 2 15, JumpGt64 i 2 15]
            [Add64 r 5 0, Mov64 r 7 5, Rsh64 i 7 15, Xor64 r 7 5, Mul64 r 7 4, Mov64 r 4 7,
             Rsh64 i 4 15, JumpEq64 i 4 15]
            [Add64 r 9 1, Load32 r 1 3, And32 i 1 15, Load32 r 2 9, Add64 i 9 15, And32 i 2 15,
             JumpEq32 i 2 15]
            [And32 i 3 15, Load64 r 5 0, Xor64 r 5 3, LoadFrame64 r 1 10, And64 i 1 15,
             LoadImm64 i 3 15, Mul64 r 1 3, Mul64 r 5 2]
            [And32 i 6 15, JumpGt32 i 6 15, Mov32 r 0 6, Jump i 0 15]
            [And64 i 9 15, LoadFrame64 r 2 10, Or32 i 2 15, And32 i 2 15, Mov32 i 3 15,
             StoreFrame32 r 10 3, JumpEq32 i 2 15, Jump i 0 15]
            [CallHelper i 0 15, Mov32 i 8 15, JumpEq64 i 0 15]
            [CallHelper i 0 15, Mov64 r 1 0, Mov64 r 0 8, JumpNe64 i 1 15, Load32 r 1 6,
             Load32 r 2 6, Mov64 r 3 1, Add64 i 3 15]
            [JumpEq32 i 2 15, JumpNe32 i 2 15]
            [JumpEq32 i 3 15, Load64 r 3 2, Load64 r 4 2, Load64 r 5 2, Load64 r 2 2, Load32 r 0 1,
             Load32 r 6 1, Mov64 r 7 0]
            [JumpEq32 i 3 15, Mov32 r 2 4, Or32 i 2 15, Mov32 r 3 1, And32 i 3 15, Or32 r 2 3,
             StoreFrame32 r 10 2, JumpEq32 r 2 1]
            [JumpEq32 i 5 15, LoadFrame32 r 3 10, Rsh32 i 3 15, JumpEq32 i 3 15, JumpNe32 i 3 15,
             Rsh32 i 2 15, Add32 i 2 15, LoadImm64 i 0 15]
            [JumpEq32 i 5 15, LoadFrame32 r 3 10, Rsh32 i 3 15, Or32 i 3 15, JumpEq32 i 3 15]
            [JumpEq32 i 7 15, JumpEq32 i 7 15, Mov32 i 1 15, Lsh32 r 1 7, And32 i 1 15,
             Mov32 i 0 15, JumpEq32 i 1 15]
            [JumpEq64 i 0 15, Load32 r 1 0, JumpNe32 i 1 15, LoadFrame64 r 0 10,
             LoadFrame64 r 1 10, LoadFrame64 r 3 10, LoadFrame32 r 4 10, LoadFrame64 r 2 10]
            [JumpEq64 i 0 15, Mov64 i 1 15, Atomic64 r 0 1, Mov32 i 1 15, Store32 r 6 1,
             Mov32 i 0 15, Jump i 0 15]
            [JumpEq64 i 3 15, Load32 r 3 1, Load32 r 4 1, Mov64 r 5 3, Add64 i 5 15, Mov32 i 9 15,
             JumpGt64 r 5 4, Mov32 i 4 15]
            [JumpGt64 r 3 2, Store64 r 1 9, LoadFrame64 r 2 10, Jump i 0 15]
            [JumpGt64 r 3 2, Store64 r 1 9, LoadFrame64 r 2 10, Store64 r 1 2, LoadFrame64 r 2 10,
             Store64 r 1 2, LoadFrame64 r 2 10, Store64 r 1 2]
            [JumpLt32 i 9 15, Load32 r 2 1, Load32 r 3 1, Mov64 r 4 2, Add64 i 4 15,
             JumpLe64 r 4 3]
            [JumpLt32 r 2 3, LoadImm64 i 4 15, LoadImm64 i 5 15, JumpLt32 i 3 15, Mov64 r 5 4,
             JumpNe32 r 2 9, Mov64 r 0 5, LoadFrame32 r 5 10]
            [JumpLt32 r 9 7, LoadFrame32 r 2 10, JumpEq32 i 2 15, Sub32 r 9 7, Mov32 i 8 15,
             JumpLt32 i 9 15, JumpLt32 i 7 15]
            [JumpNe32 i 3 15, Mov32 r 9 2, Load32 r 2 1, And32 i 2 15, JumpEq32 i 2 15,
             Mov32 i 8 15, JumpNe32 i 2 15, Mov32 i 8 15]
            [JumpNe32 i 4 15, Jump i 0 15]
            [JumpNe32 r 1 2, Mov64 r 2 4, Rsh64 i 2 15, StoreFrame64 r 10 2, And32 i 2 15,
             JumpEq32 i 2 15, JumpNe32 i 2 15]
            [JumpNe64 i 2 15, Mov64 i 2 15, StoreFrame64 r 10 2, StoreFrame64 r 10 2,
             LoadFrame64 r 2 10, StoreFrame64 r 10 2, Mov64 i 2 15, StoreFrame64 r 10 2]
            [JumpNe64 i 6 15, Mov32 i 2 15, StoreFrame32 r 10 2, Mov64 i 2 15, StoreFrame64 r 10 2,
             Load64 r 5 3, Load64 r 2 3, Mov64 r 6 0]
            [Load16 r 2 2, Lsh32 i 2 15]
            [Load32 r 0 3, Mov32 i 5 15, JumpNe32 i 0 15]
            [Load32 r 1 6, And32 i 1 15, JumpEq32 i 1 15]
            [Load32 r 1 6, And32 i 1 15, JumpNe32 i 1 15, Load32 r 1 6, JumpNe32 i 1 15,
             Mov32 i 1 15, StoreFrame32 r 10 1, Mov64 r 2 10]
            [Load32 r 1 6, And32 i 1 15, JumpNe32 i 1 15, Mov32 i 7 15, Load32 r 1 8,
             JumpEq32 i 1 15, JumpEq32 i 1 15, Jump i 0 15]
            [Load32 r 1 6, And32 i 1 15, Or32 i 1 15, Store32 r 6 1, Mov64 i 2 15, Load32 r 1 0,
             CallHelper i 0 15, Mov64 r 1 0]
            [Load32 r 1 6, Load32 r 4 6, JumpNe32 i 2 15, Mov64 i 2 15, Mov64 i 3 15, Mov64 r 5 1,
             Add64 i 5 15, JumpGt64 r 5 4]
            [Load32 r 2 0, Swap32 i 2 15, StoreFrame64 r 10 2, And32 i 2 15, JumpNe32 i 2 15,
             Mov32 i 9 15, Load16 r 2 0, Swap16 i 2 15]
            [Load32 r 2 1, Add64 r 2 3, Mov64 r 3 2, Add64 i 3 15, Load32 r 4 1, JumpGt64 r 3 4,
             Load64 r 8 2, Swap64 i 8 15]
            [Load32 r 2 1, Add64 r 2 7, Mov64 r 3 2, Add64 i 3 15, Load32 r 4 1, JumpGt64 r 3 4,
             Load64 r 2 2, Swap64 i 2 15]
            [Load32 r 2 1, JumpNe32 i 2 15, Load32 r 2 1, JumpEq32 i 2 15, JumpEq32 i 2 15,
             Mov32 i 7 15, JumpNe32 i 2 15, Mov32 i 7 15]
            [Load32 r 2 1, StoreFrame64 r 10 3, Add64 r 2 3, Mov64 r 3 2, Add64 i 3 15,
             Load32 r 4 1, JumpLe64 r 3 4]
            [Load32 r 2 3, Add32 i 1 15, JumpGt32 r 1 2, JumpGt32 i 4 15, Mov64 r 0 5]
            [Load32 r 2 3, Mov32 r 4 2, And32 i 4 15, JumpEq32 i 4 15]
            [Load32 r 2 6, And32 i 2 15, JumpEq32 i 2 15, JumpEq32 i 2 15]
            [Load32 r 2 9, Mov32 r 3 2, And32 i 3 15, JumpEq32 i 3 15]
            [Load32 r 3 2, Swap32 i 3 15, Mov64 r 4 3, And32 i 3 15, JumpNe32 i 3 15, Mov32 i 7 15,
             Mov32 i 3 15, StoreFrame32 r 10 3]
            [Load32 r 4 1, Mov64 r 5 3, Add64 i 5 15, JumpGt64 r 5 4, LoadFrame64 r 4 10,
             LoadFrame32 r 5 10, JumpEq64 i 4 15, Mov32 i 5 15]
            [Load32 r 5 6, Load32 r 1 6, Mov64 r 2 5, Add64 i 2 15, JumpGt64 r 2 1, Load64 r 4 5,
             Swap64 i 4 15, LoadImm64 i 1 15]
            [Load32 r 6 1, Mov32 r 5 6, Add32 i 5 15, Mov32 i 7 15, Mov32 i 0 15, JumpGt32 r 5 6,
             Mov32 i 0 15, Mov32 i 2 15]
            [Load64 r 1 0, StoreFrame64 r 10 1, Load64 r 1 0, StoreFrame64 r 10 1, Load64 r 1 0,
             StoreFrame64 r 10 1, Load64 r 1 0, StoreFrame64 r 10 1]
            [Load64 r 1 2, StoreFrame64 r 10 1, Load64 r 1 2, StoreFrame64 r 10 1, Load64 r 1 2,
             StoreFrame64 r 10 1, Load64 r 1 2, StoreFrame64 r 10 1]
            [Load64 r 1 9, Load32 r 9 8, JumpEq32 r 9 7]
            [Load64 r 1 9, Load64 r 3 9, Mov64 r 2 3, Or64 r 2 1, JumpEq64 i 2 15]
            [Load64 r 1 9, StoreFrame64 r 10 1, Load64 r 1 9, StoreFrame64 r 10 1, Load64 r 9 9,
             Mov64 r 0 8, Load32 r 1 0, JumpEq32 r 1 7]
            [Load64 r 1 9, StoreFrame64 r 10 1, Load64 r 9 9, Mov64 r 0 8, Load32 r 1 0,
             JumpEq32 r 1 7]
            [Load64 r 2 0, StoreFrame64 r 10 2, Load64 r 2 0, StoreFrame64 r 10 2, Load64 r 2 0,
             StoreFrame64 r 10 2, Load8 r 2 0, StoreFrame32 r 10 2]
            [Load64 r 3 1, Load64 r 1 1, Mov64 r 2 1, Add64 i 2 15, JumpGt64 r 2 3, Mov64 r 4 1,
             Add64 i 4 15, JumpGt64 r 4 3]
            [Load64 r 5 0, Mov64 r 1 3, Swap16 i 1 15, StoreFrame64 r 10 5, Xor64 r 5 1,
             LoadImm64 i 2 15, Mul64 r 5 2, Load64 r 4 0]
            [Load64 r 5 2, LoadImm64 i 1 15, Mov64 r 0 5, And64 r 0 1, LoadFrame32 r 4 10,
             Mov32 r 2 4, Mov64 r 1 2, Lsh64 i 1 15]
            [Load64 r 7 0, Mov64 r 2 7, Rsh64 i 2 15, JumpNe32 r 1 2, Mov64 r 1 7, And64 i 1 15,
             Mul64 i 1 15, Mov64 r 9 0]
            [Load64 r 8 6, JumpEq64 i 8 15, LoadImm64 i 1 15, Mov64 r 2 8, Mov64 i 3 15,
             Mov64 i 4 15, CallHelper i 0 15, JumpEq64 i 0 15]
            [Load8 r 0 0, JumpGt32 i 0 15, Mov64 i 2 15, Lsh64 r 2 0, LoadImm64 i 5 15,
             And64 r 2 5, JumpNe64 i 2 15, Load32 r 2 1]
            [Load8 r 2 5, Lsh32 i 2 15, Or32 r 2 0, StoreFrame64 r 10 2, Load32 r 9 5,
             Lsh64 i 9 15, Load32 r 0 5, Lsh64 i 0 15]
            [LoadFrame32 r 1 10, And32 i 1 15, JumpEq32 i 1 15]
            [LoadFrame32 r 1 10, JumpEq32 i 1 15]
            [LoadFrame32 r 2 10, JumpEq32 r 2 1, Mov64 i 4 15, JumpNe64 i 3 15, Mov64 i 4 15,
             LoadFrame64 r 1 10, Mov32 r 2 7, Mov32 i 3 15]
            [LoadFrame32 r 2 10, JumpNe32 i 2 15]
            [LoadFrame32 r 2 10, StoreFrame16 r 10 2, StoreFrame32 r 10 6, LoadFrame64 r 2 10,
             StoreFrame64 r 10 2, LoadFrame64 r 2 10, StoreFrame64 r 10 2, Mov64 r 2 10]
            [LoadFrame32 r 2 10, StoreFrame8 r 10 2, LoadFrame64 r 2 10, StoreFrame8 r 10 2,
             LoadFrame32 r 2 10, StoreFrame8 r 10 2, StoreFrame16 r 10 8, StoreFrame16 r 10 7]
            [LoadFrame32 r 4 10, JumpGt32 r 4 9, Mov32 i 0 15, LoadFrame32 r 4 10, JumpNe32 i 4 15,
             Jump i 0 15]
            [LoadFrame32 r 4 10, Mov32 i 0 15, Mov32 r 2 6, Rsh32 i 2 15, And32 i 2 15,
             JumpEq32 i 2 15, JumpEq32 i 2 15, JumpNe32 i 2 15]
            [LoadFrame32 r 4 10, Store8 r 3 4, Mov32 i 4 15, Store16 r 3 4, Store8 r 3 5,
             Or32 i 6 15, Swap32 i 6 15, Store32 r 3 6]
            [LoadFrame32 r 4 10, Xor32 i 4 15, And32 r 2 4, JumpNe32 i 2 15]
            [LoadFrame64 r 1 10, JumpNe64 i 0 15, LoadFrame32 r 2 10, JumpNe32 i 2 15]
            [LoadFrame64 r 1 10, Load32 r 4 1, Add64 r 4 2, Mov64 r 5 4, Add64 i 5 15,
             Load32 r 0 1, JumpGt64 r 5 0, Load32 r 7 4]
            [LoadFrame64 r 1 10, Mov32 i 3 15, CallHelper i 0 15, LoadFrame64 r 1 10, Mov32 i 9 15,
             LoadFrame64 r 2 10, JumpNe64 i 0 15, Load32 r 3 1]
            [LoadFrame64 r 1 10, Mov32 r 2 7, Mov32 i 3 15, Mov64 i 4 15, CallHelper i 0 15,
             LoadFrame64 r 1 10, Mov32 i 8 15, JumpEq64 i 0 15]
            [LoadFrame64 r 1 10, Mov64 r 4 7, Swap16 i 4 15, Swap32 i 7 15, Lsh32 i 7 15,
             Or32 r 7 4, Jump i 0 15]
            [LoadFrame64 r 1 10, Mov64 r 8 1, Add64 i 8 15, Load32 r 1 1, And32 i 1 15,
             Mul64 i 1 15, Mov64 r 2 8, Add64 r 2 1]
            [LoadFrame64 r 2 10, Load16 r 2 2, Swap16 i 2 15, JumpLt32 r 2 0, Mov32 i 9 15,
             StoreFrame64 r 10 2, LoadFrame32 r 2 10, LoadFrame64 r 5 10]
            [LoadFrame64 r 2 10, Load8 r 0 2, Mov32 r 2 0, And32 i 2 15, JumpNe32 i 2 15,
             Lsh32 i 0 15, And32 i 0 15, JumpLt32 i 0 15]
            [LoadFrame64 r 2 10, Store64 r 1 2, LoadFrame64 r 2 10, Store64 r 1 2,
             LoadFrame64 r 2 10, Store64 r 1 2]
            [LoadFrame64 r 2 10, Store64 r 5 2, LoadFrame64 r 2 10, Store64 r 5 2,
             LoadFrame64 r 2 10, Store64 r 5 2, LoadFrame64 r 2 10, Store64 r 5 2]
            [LoadFrame64 r 2 10, Store64 r 8 2, LoadFrame64 r 2 10, Store64 r 8 2,
             LoadFrame64 r 2 10, Store64 r 8 2]
            [LoadFrame64 r 2 10, Store64 r 8 2, Mov64 r 4 0, Store64 r 8 0, Store32 r 5 1,
             Mov32 i 2 15, Store32 r 5 2, Mov64 r 1 9]
            [LoadFrame64 r 2 10, StoreFrame64 r 10 2, LoadFrame64 r 2 10, StoreFrame64 r 10 2,
             StoreFrame64 r 10 1, LoadImm64 i 2 15, And64 r 1 2, JumpEq64 i 1 15]
            [LoadFrame64 r 3 10, Sub32 r 3 7, Load16 r 4 2, Swap16 i 4 15, Mov32 i 8 15,
             JumpEq32 r 3 4]
            [LoadFrame64 r 4 10, And32 i 4 15, Lsh32 i 4 15, Or32 r 6 4, LoadFrame64 r 4 10,
             Store64 r 3 4, LoadFrame64 r 4 10, Store64 r 3 4]
            [LoadFrame64 r 4 10, Lsh64 i 4 15, LoadFrame64 r 1 10, Mov32 r 1 1, Or64 r 4 1,
             LoadFrame64 r 5 10, Load32 r 1 5, Add32 i 1 15]
            [LoadFrame64 r 4 10, Lsh64 i 4 15, Or64 i 4 15]
            [LoadFrame64 r 5 10, JumpEq64 i 5 15, Mov32 r 7 2, Add32 i 7 15]
            [LoadFrame64 r 5 10, Load16 r 2 5, And32 i 2 15, JumpEq32 i 2 15]
            [LoadImm64 i 0 15, Mul64 r 9 0, Mul64 r 6 2, LoadImm64 i 2 15, LoadFrame64 r 0 10,
             And64 r 0 2, Mov32 i 1 15, Mov32 i 2 15]
            [LoadImm64 i 1 15, Mov64 r 2 6, Mov64 i 3 15, Mov64 i 4 15, CallHelper i 0 15]
            [LoadImm64 i 1 15, StoreFrame64 r 10 4, Mul64 r 4 1, Xor64 r 5 4, Mov64 r 4 5,
             Rsh64 i 4 15, Xor64 r 4 5, Swap32 i 3 15]
            [LoadImm64 i 2 15, Or64 r 0 2, StoreFrame64 r 10 0, Or64 r 9 2, StoreFrame64 r 10 9,
             Mov32 i 2 15, StoreFrame32 r 10 2, Mov64 i 2 15]
            [LoadImm64 i 3 15, Mul64 r 4 3, Mov64 r 2 4, Rsh64 i 2 15, Xor64 r 2 4, Load64 r 4 0,
             LoadImm64 i 0 15, Mul64 r 4 0]
            [LoadImm64 i 7 15, Mul64 r 5 7, Mov64 r 0 5, Rsh64 i 0 15, Xor64 r 0 5,
             LoadFrame64 r 5 10, Mul64 r 5 4, Xor64 r 6 5]
            [Lsh32 i 1 15, LoadFrame64 r 0 10, Or32 r 1 0, Lsh32 i 3 15, Or32 r 2 3, Mov32 i 3 15,
             LoadFrame64 r 7 10, Store16 r 7 3]
            [Lsh64 i 2 15, LoadFrame64 r 1 10, Or64 r 2 1, Swap64 i 2 15, Mov64 r 2 2,
             StoreFrame64 r 10 2]
            [Lsh64 i 3 15, LoadFrame64 r 2 10, Or64 r 3 2, Swap64 i 3 15, Mov64 r 3 3,
             StoreFrame64 r 10 3, Or32 i 1 15, Swap16 i 1 15]
            [Mov32 i 0 15, Mov64 r 8 4, Rsh32 i 8 15, Load32 r 3 2, StoreFrame64 r 10 3,
             Load32 r 3 2, StoreFrame32 r 10 3, Load32 r 3 2]
            [Mov32 i 1 15, CallHelper i 0 15, JumpEq64 i 0 15]
            [Mov32 i 1 15, JumpEq64 i 0 15, Mov64 i 2 15, JumpEq32 i 7 15, Mov32 i 2 15,
             Lsh32 r 2 7, And32 i 2 15, JumpNe32 i 2 15]
            [Mov32 i 1 15, JumpNe64 i 3 15]
            [Mov32 i 1 15, Lsh32 r 1 7, And32 i 1 15, Mov32 i 0 15, JumpEq32 i 1 15]
            [Mov32 i 1 15, Lsh32 r 1 8, And32 i 1 15, Mov32 i 0 15, JumpEq32 i 1 15]
            [Mov32 i 1 15, StoreFrame32 r 10 1]
            [Mov32 i 1 15, StoreFrame32 r 10 1, Mov64 r 2 10, Add64 i 2 15, LoadImm64 i 1 15,
             CallHelper i 0 15]
            [Mov32 i 2 15, CallHelper i 0 15, JumpEq64 i 0 15]
            [Mov32 i 2 15, LoadFrame64 r 1 10, JumpEq64 i 1 15, LoadFrame32 r 2 10, Add32 i 2 15,
             Mov64 i 4 15, LoadFrame64 r 1 10, JumpEq64 i 1 15]
            [Mov32 i 2 15, Store16 r 1 2, Mov64 i 1 15, Atomic64 r 8 1, Load64 r 1 7, Add64 i 1 15,
             Store64 r 7 1, Mov32 i 7 15]
            [Mov32 i 2 15, StoreFrame32 r 10 2, Mov32 i 2 15, StoreFrame32 r 10 2, Load64 r 2 5,
             Load64 r 5 5, StoreFrame64 r 10 2, StoreFrame64 r 10 5]
            [Mov32 i 3 15, Mov64 r 7 1, CallHelper i 0 15, Mov64 r 1 0, Mov32 i 0 15,
             JumpNe64 i 1 15, LoadFrame64 r 1 10, Load64 r 1 1]
            [Mov32 i 6 15, Mov64 r 3 9, JumpNe64 i 3 15, Mov32 i 6 15, Mov32 i 1 15,
             JumpNe64 i 3 15, Mov32 i 1 15, Neg32 i 7 15]
            [Mov32 i 8 15, JumpEq32 i 5 15, Mov32 i 8 15, LoadFrame32 r 1 10, And32 i 1 15,
             JumpEq32 i 1 15]
            [Mov32 i 8 15, JumpEq64 i 0 15, Load32 r 6 0, Mov32 r 2 6, Rsh32 i 2 15, Mov32 r 1 2,
             And32 i 1 15, JumpEq32 i 1 15]
            [Mov32 i 8 15, JumpNe32 i 5 15, JumpLt32 i 7 15, Mov32 r 2 7, Add32 i 2 15,
             JumpLt32 r 9 2, Mov32 r 3 7, Add32 i 3 15]
            [Mov32 i 8 15, StoreFrame32 r 10 8]
            [Mov32 i 9 15, LoadFrame32 r 2 10, JumpLt32 i 2 15, Load32 r 0 1, Load32 r 2 1,
             Mov64 r 5 0, Add64 i 5 15, JumpLe64 r 5 2]
            [Mov32 i 9 15, LoadFrame32 r 2 10, JumpLt32 i 2 15, Load32 r 0 1, Load32 r 2 1,
             StoreFrame64 r 10 0, Add64 i 0 15, JumpLe64 r 0 2]
            [Mov32 r 0 9, Exit i 0 15]
            [Mov32 r 1 4, Mov64 r 6 1, Mov32 r 4 7, Rsh64 i 7 15, Xor32 r 7 4, Or32 i 7 15,
             Swap16 i 7 15, LoadFrame64 r 5 10]
            [Mov32 r 2 7, And32 i 2 15, LoadFrame64 r 0 10, Xor64 r 0 2, LoadImm64 i 4 15,
             LoadFrame64 r 3 10, Mul64 r 3 4, LoadImm64 i 2 15]
            [Mov32 r 3 4, Mov32 i 2 15, Mov32 i 0 15, Atomic32 r 1 2, JumpEq32 i 0 15]
            [Mov32 r 3 7, Add32 i 3 15, Mov32 r 2 7, Add32 i 2 15, StoreFrame64 r 10 3,
             JumpLe32 r 2 9]
            [Mov32 r 4 2, And32 i 4 15, JumpNe32 i 4 15, And32 i 2 15, JumpLt32 i 2 15]
            [Mov32 r 4 5, And32 i 4 15, LoadFrame64 r 3 10, LoadFrame64 r 1 10, JumpEq32 i 4 15]
            [Mov32 r 6 4, StoreFrame64 r 10 3, Load32 r 9 3]
            [Mov32 r 7 0, And32 i 7 15, LoadFrame64 r 2 10, Add32 r 7 2]
            [Mov32 r 7 0, JumpEq32 i 7 15, JumpEq32 i 7 15, Mov32 i 1 15, Lsh32 r 1 7,
             And32 i 1 15, Mov32 i 0 15, JumpEq32 i 1 15]
            [Mov32 r 9 0, JumpEq32 i 9 15, JumpNe32 i 9 15, Mov32 i 9 15, LoadFrame64 r 1 10,
             JumpEq64 i 1 15, Mov64 i 2 15, Atomic64 r 1 2]
            [Mov64 i 0 15, StoreFrame64 r 10 0, Mov64 r 0 6, Jump i 0 15]
            [Mov64 i 4 15, LoadFrame64 r 1 10, JumpEq64 i 1 15]
            [Mov64 r 1 2, Rsh64 i 1 15, Xor32 r 1 2, Rsh64 i 2 15, Mov64 r 3 2, JumpGt64 i 2 15]
            [Mov64 r 1 6, Mov64 r 2 0, Mov32 i 3 15, CallLocal i 0 15]
            [Mov64 r 1 9, JumpNe32 i 2 15, Mov32 i 7 15, Load32 r 2 6, JumpEq32 i 2 15,
             Mov32 i 7 15, Load32 r 2 6, JumpEq32 i 2 15]
            [Mov64 r 2 0, And64 i 2 15, Mov64 r 1 0, Rsh64 i 1 15, Add64 r 1 2, Store32 r 7 5,
             Rsh64 i 0 15, And64 i 0 15]
            [Mov64 r 2 10, Add64 i 2 15, LoadFrame64 r 1 10, Mov64 r 3 6, LoadFrame32 r 4 10,
             CallLocal i 0 15]
            [Mov64 r 2 10, Add64 i 2 15, LoadImm64 i 1 15, CallHelper i 0 15]
            [Mov64 r 2 10, Add64 i 2 15, LoadImm64 i 1 15, CallHelper i 0 15, JumpEq64 i 0 15,
             Load64 r 1 0, Add64 i 1 15, Store64 r 0 1]
            [Mov64 r 2 10, Add64 i 2 15, Mov64 r 3 10, Add64 i 3 15, LoadImm64 i 1 15]
            [Mov64 r 2 4, And64 r 2 1, LoadImm64 i 1 15, JumpNe64 r 2 1, Mov32 r 1 4, Rsh32 i 1 15,
             Load32 r 2 6, Add32 i 2 15]
            [Mov64 r 3 2, Rsh64 i 3 15, JumpEq32 i 3 15, JumpEq32 i 3 15]
            [Mov64 r 3 2, Rsh64 i 3 15, Lsh32 i 3 15, And32 i 3 15, Rsh64 i 2 15, And32 i 2 15,
             LoadImm64 i 0 15, LoadImm64 i 4 15]
            [Mov64 r 4 1, Add64 r 4 3, Mov32 i 7 15, Load8 r 3 4, JumpEq32 i 3 15]
            [Mov64 r 4 10, Add64 i 4 15, Mov64 r 1 6, Mov32 i 2 15, Mov32 i 3 15, Mov32 i 5 15]
            [Mov64 r 5 1, Add64 r 5 4, Store8 r 5 2, Add64 i 4 15, JumpLt64 r 4 3]
            [Mov64 r 5 2, Rsh64 i 5 15, Load32 r 2 3, StoreFrame32 r 10 2, Rsh32 i 2 15,
             And32 r 2 5, StoreFrame32 r 10 2, Load32 r 2 1]
            [Mov64 r 5 6, Rsh64 i 6 15, Xor64 r 6 5, Mul64 r 6 7, Mov64 r 5 6, Rsh64 i 5 15,
             Xor64 r 5 6, Add64 r 5 9]
            [Mov64 r 6 0, Mov32 i 9 15, JumpEq64 i 6 15, Load32 r 9 6, Lsh64 i 9 15, Or64 r 9 7,
             Load64 r 1 8, JumpEq64 r 1 9]
            [Mov64 r 6 1, Load32 r 1 6, And32 i 1 15, JumpNe32 i 1 15]
            [Mov64 r 7 0, Mov64 r 0 8, JumpEq64 i 7 15, Mov64 r 1 6, Mov32 i 2 15, Mov32 i 3 15,
             LoadImm64 i 4 15]
            [Mov64 r 7 0, Mov64 r 0 8, JumpEq64 i 7 15, Mov64 r 1 6, Mov32 i 2 15, Mov32 i 3 15,
             Mov64 i 4 15]
            [Mov64 r 9 0, Mov32 r 2 0, And32 i 2 15, JumpNe32 i 2 15, Mov32 i 2 15,
             StoreFrame32 r 10 2, Mov32 i 2 15, StoreFrame32 r 10 2]
            [Mul64 i 1 15, Mov64 r 2 8, Add64 i 2 15, Mov64 r 9 2, Add64 r 9 1, Load64 r 1 9,
             StoreFrame64 r 10 1, Load64 r 1 9]
            [Mul64 r 0 2, Xor64 r 0 3, Rsh32 i 7 15, Xor64 r 6 7, Mov64 r 5 0, Rsh64 i 5 15,
             Xor64 r 5 0, And32 i 9 15]
            [Or32 i 1 15, Swap32 i 1 15, LoadFrame64 r 3 10, Rsh64 i 3 15, LoadFrame64 r 8 10,
             Rsh64 i 8 15, Mov64 r 0 8, Add64 r 0 1]
            [Or32 r 1 2, LoadImm64 i 2 15, LoadFrame64 r 3 10, And64 r 3 2, Or64 r 3 1,
             Mov64 r 3 3, StoreFrame64 r 10 3]
            [Or64 r 2 5, JumpNe64 i 2 15, LoadFrame64 r 2 10, StoreFrame64 r 10 2,
             LoadFrame64 r 2 10, StoreFrame64 r 10 2, JumpEq64 i 6 15]
            [Store16 r 3 4, Store16 r 3 8, Store16 r 3 7, LoadFrame64 r 4 10, Rsh64 i 4 15,
             Store16 r 3 4, Mov32 i 9 15, LoadFrame32 r 3 10]
            [Store32 r 7 3, Store32 r 7 8, Mov64 r 2 0, Rsh64 i 2 15, Lsh64 i 0 15, Rsh64 i 0 15,
             Add64 r 0 2, Store32 r 7 1]
            [Store64 r 1 2, LoadFrame64 r 2 10, Store64 r 1 2, LoadFrame64 r 2 10, Store64 r 1 2,
             LoadFrame64 r 2 10, Store64 r 1 2]
            [StoreFrame16 r 10 6, Mov64 r 3 10, Add64 i 3 15, LoadFrame64 r 1 10, Mov32 i 2 15,
             Mov32 i 4 15, Mov64 i 5 15, CallHelper i 0 15]
            [StoreFrame32 r 10 0, Load8 r 0 5, StoreFrame32 r 10 0, LoadFrame64 r 0 10,
             Load8 r 5 5, StoreFrame64 r 10 5, Mov64 i 5 15, StoreFrame64 r 10 5]
            [StoreFrame32 r 10 0, Mov32 i 7 15, Mov32 r 9 2, Rsh32 i 9 15, Mov32 r 4 9,
             And32 i 4 15, LoadFrame64 r 6 10, JumpEq32 i 4 15]
            [StoreFrame32 r 10 0, Mov32 i 8 15, LoadFrame64 r 2 10, JumpNe32 r 2 9,
             LoadFrame32 r 2 10, And32 r 4 2, And32 i 4 15, JumpNe32 i 4 15]
            [StoreFrame32 r 10 1, StoreFrame32 r 10 6, StoreFrame32 r 10 5, Or32 r 2 5,
             StoreFrame32 r 10 2]
            [StoreFrame32 r 10 2, JumpEq32 i 2 15]
            [StoreFrame32 r 10 2, JumpNe32 i 0 15, StoreFrame32 r 10 5, LoadFrame64 r 8 10,
             Mov64 r 2 8, Rsh64 i 2 15, StoreFrame64 r 10 2, And32 i 2 15]
            [StoreFrame32 r 10 2, LoadImm64 i 5 15, Mov64 r 6 8, And64 r 6 5, Mov32 i 5 15,
             JumpEq64 i 6 15]
            [StoreFrame32 r 10 2, Mov32 i 0 15, LoadFrame64 r 1 10, LoadFrame32 r 5 10,
             LoadFrame32 r 4 10, JumpNe32 i 5 15]
            [StoreFrame32 r 10 2, Mov32 i 4 15, JumpNe32 i 5 15]
            [StoreFrame32 r 10 3, Load32 r 6 2, Load16 r 3 2, Swap16 i 3 15, Add32 i 3 15,
             StoreFrame64 r 10 3, Load8 r 5 2, Mov32 i 2 15]
            [StoreFrame32 r 10 3, Mov64 r 8 2, StoreFrame64 r 10 1, StoreFrame64 r 10 1,
             JumpEq64 i 8 15, Load32 r 7 8, Mov32 r 1 7, And32 i 1 15]
            [StoreFrame32 r 10 4, StoreFrame64 r 10 8, Mov32 i 2 15, Mov32 i 8 15, And32 i 7 15,
             JumpEq32 i 5 15, JumpEq32 i 5 15]
            [StoreFrame32 r 10 8, StoreFrame32 r 10 0, StoreFrame64 r 10 1, LoadFrame64 r 1 10,
             StoreFrame32 r 10 1, LoadFrame32 r 1 10, StoreFrame32 r 10 1, LoadFrame32 r 1 10]
            [StoreFrame64 r 10 0, Mov64 r 2 10, Add64 i 2 15, LoadImm64 i 1 15, CallHelper i 0 15,
             JumpNe64 i 0 15]
            [StoreFrame64 r 10 1, Load32 r 4 1, Mov32 r 2 4, Add32 i 2 15, Mov32 i 9 15,
             Mov32 i 3 15, JumpGt32 r 2 4, Mov32 i 3 15]
            [StoreFrame64 r 10 1, Load64 r 1 9, StoreFrame64 r 10 1, Load64 r 5 9, Load64 r 0 9,
             Load64 r 6 9, Load64 r 3 9, Load64 r 4 9]
            [StoreFrame64 r 10 1, LoadFrame64 r 1 10, Load64 r 2 1, StoreFrame64 r 10 2,
             Load8 r 2 1, Load8 r 3 1, Load16 r 5 1, Load16 r 4 1]
            [StoreFrame64 r 10 1, Mov32 i 1 15, CallHelper i 0 15, JumpNe64 i 0 15, Mov32 i 1 15,
             CallHelper i 0 15, JumpEq64 i 0 15]
            [StoreFrame64 r 10 2, LoadFrame64 r 0 10, Load64 r 2 0, Load64 r 0 0,
             StoreFrame64 r 10 2, StoreFrame64 r 10 0, Or64 r 2 0, Load16 r 0 5]
            [StoreFrame64 r 10 2, StoreFrame64 r 10 5, Or64 r 2 5, Mov32 i 9 15, JumpEq64 i 2 15,
             StoreFrame64 r 10 0, LoadFrame64 r 2 10, StoreFrame64 r 10 1]
            [StoreFrame64 r 10 4, Load8 r 1 1, Load32 r 4 7, Load32 r 8 7, StoreFrame64 r 10 4,
             Add64 i 4 15, JumpGt64 r 4 8, Mov64 r 4 7]
            [StoreFrame64 r 10 4, StoreFrame64 r 10 3, StoreFrame64 r 10 2, Load64 r 5 3,
             LoadImm64 i 2 15, Mov64 r 9 5, And64 r 9 2, StoreFrame64 r 10 5]
            [StoreFrame64 r 10 7, Or64 r 0 1, Load32 r 1 6, Mov64 r 3 2, And64 i 3 15,
             StoreFrame64 r 10 5, StoreFrame64 r 10 3, JumpNe64 i 3 15]
            [StoreFrame64 r 10 8, StoreFrame64 r 10 4, StoreFrame64 r 10 3, StoreFrame64 r 10 6,
             StoreFrame64 r 10 0, StoreFrame64 r 10 5, LoadFrame64 r 2 10, StoreFrame64 r 10 2]
            [Swap16 i 8 15, Store16 r 3 8, Load64 r 4 2, Store64 r 3 4, Load64 r 4 2,
             Store64 r 3 4, Mov32 i 9 15, LoadFrame64 r 3 10]
            [Xor32 i 4 15, And32 r 4 5, StoreFrame64 r 10 2, Load64 r 2 2, LoadImm64 i 5 15,
             StoreFrame64 r 10 2, And64 r 2 5, StoreFrame64 r 10 2]
            [Xor64 r 5 4, Mov64 r 4 5, Rsh64 i 4 15, Xor64 r 4 5, Mul64 r 4 3, Mov64 r 3 4,
             Rsh64 i 3 15, Xor64 r 3 4]
        }
    };
}
pub(crate) use sequences;
