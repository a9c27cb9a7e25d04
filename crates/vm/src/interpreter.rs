//! Runs decoded instructions over guest memory. Owns registers, frames and metering; helpers
//! are someone else's ([`Helpers`]).
//!
//! The interpreter can pause after any number of instructions and go on: that is the budget,
//! and it lets a test act as another CPU between two instructions. While the limit is far, it
//! runs sequences ([`crate::sequence`]) and looks at the limit only where a program could go
//! round in circles; near the limit, single instructions.

mod division;

use crate::fault::{Access, FaultKind};
use crate::insn::{Atomic, Insn, Op};
use crate::memory::{Memory, STACK_FRAMES, context_address, frame_place, frame_pointer};
use crate::object::Program;
use crate::sequence::{Sequence, Single, Window, form, pack, sequences, step};
use division::{signed_div32, signed_div64, signed_rem32, signed_rem64};

/// What a run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// Instructions executed (a 64-bit immediate load is one).
    pub instructions: u64,
    /// Helper calls.
    pub helpers: u64,
}

/// Executes a helper call.
pub(crate) trait Helpers {
    /// `arguments` are r1 to r5; gives r0.
    fn call(
        &mut self,
        helper: i32,
        arguments: &[u64; 5],
        memory: &mut Memory,
    ) -> Result<u64, FaultKind>;
}

/// Why the interpreter returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program ended with this r0.
    Exited(u64),
    /// The limit is reached.
    Paused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    return_to: usize,
    saved: [u64; 4],
}

/// More than there are: any byte is an index.
const REGISTERS: usize = 256;

/// The state of one run.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    registers: [u64; REGISTERS],
    pc: usize,
    depth: usize,
    frames: [Frame; STACK_FRAMES],
    pub(crate) meter: Meter,
}

/// The opcode of 64-bit atomic operations, for reports.
const ATOMIC: u8 = 0xdb;
/// What r1 to r5 hold after a helper call: nothing that can be used as a pointer.
const CLOBBERED: u64 = 0xdead_dead_dead_0000;

impl Cpu {
    pub(crate) fn new() -> Self {
        let mut cpu = Self {
            registers: [0; REGISTERS],
            pc: 0,
            depth: 0,
            frames: [Frame::default(); STACK_FRAMES],
            meter: Meter::default(),
        };
        cpu.reset();
        cpu
    }

    /// Stands before the first instruction of a program, with the context in r1.
    pub(crate) fn reset(&mut self) {
        self.registers[..11].fill(0);
        self.registers[1] = context_address();
        self.registers[10] = frame_pointer(0);
        self.pc = 0;
        self.depth = 0;
        self.meter = Meter::default();
    }

    /// The slot at which it stands: after a fault, the one that faulted.
    pub(crate) fn pc(&self) -> usize {
        self.pc
    }

    /// Runs until the program ends or `limit` instructions are executed in all.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        memory: &mut Memory,
        helpers: &mut impl Helpers,
        limit: u64,
    ) -> Result<Stop, FaultKind> {
        // Between two looks at the limit it only goes forward: at most once through the program.
        let far = limit.saturating_sub(program.code.len() as u64);
        if self.meter.instructions < far {
            match self.execute::<true>(&program.joined, memory, helpers, far) {
                Ok(Stop::Paused) => {}
                ended => return ended,
            }
        }
        self.execute::<false>(&program.code, memory, helpers, limit)
    }

    /// As [`Cpu::run`], one instruction after the other, noting the slot of each.
    pub(crate) fn run_noting(
        &mut self,
        program: &Program,
        memory: &mut Memory,
        helpers: &mut impl Helpers,
        limit: u64,
        executed: &mut Vec<usize>,
    ) -> Result<Stop, FaultKind> {
        while self.meter.instructions < limit {
            executed.push(self.pc);
            let next = self.meter.instructions + 1;
            match self.execute::<false>(&program.code, memory, helpers, next) {
                Ok(Stop::Paused) => {}
                ended => return ended,
            }
        }
        Ok(Stop::Paused)
    }

    /// `FAR`: the limit is only looked at where the program goes back.
    #[expect(
        clippy::too_many_lines,
        reason = "one line per instruction: a table, not logic"
    )]
    #[expect(
        unreachable_code,
        unused_variables,
        reason = "some instructions never go on by themselves, or have no operand"
    )]
    #[inline(never)]
    fn execute<const FAR: bool>(
        &mut self,
        code: &[Window],
        memory: &mut Memory,
        helpers: &mut impl Helpers,
        limit: u64,
    ) -> Result<Stop, FaultKind> {
        let mut pc = self.pc;
        let mut frame = frame_place(self.depth);
        // Executed so far, less `pc`: straight on, one counts for both.
        let mut ahead = self.meter.instructions.wrapping_sub(pc as u64);
        macro_rules! r {
            ($index:expr) => {
                self.registers[$index as usize]
            };
        }
        // The instruction at hand counts, unless nothing of it was done.
        macro_rules! stop {
            ($result:expr, $counts:literal) => {{
                self.pc = pc;
                self.meter.instructions = ahead.wrapping_add(pc as u64).wrapping_add($counts);
                return $result;
            }};
        }
        macro_rules! fault {
            ($kind:expr) => {
                stop!(Err($kind), 1)
            };
        }
        macro_rules! go {
            ($target:expr) => {{
                let target = $target;
                ahead = ahead
                    .wrapping_add(pc as u64 + 1)
                    .wrapping_sub(target as u64);
                let back = target <= pc;
                pc = target;
                if FAR && back && ahead.wrapping_add(pc as u64) >= limit {
                    stop!(Ok(Stop::Paused), 0);
                }
                continue;
            }};
        }
        macro_rules! operand {
            ($i:ident $s:tt r) => {
                r!($s)
            };
            ($i:ident $s:tt i) => {
                $i.imm
            };
        }
        macro_rules! alu64 {
            ($i:ident $d:tt $s:tt $form:ident, |$a:ident, $b:ident| $value:expr) => {{
                let ($a, $b) = (r!($d), operand!($i $s $form));
                r!($d) = $value;
            }};
        }
        macro_rules! alu32 {
            ($i:ident $d:tt $s:tt $form:ident, |$a:ident, $b:ident| $value:expr) => {{
                let ($a, $b) = (r!($d) as u32, operand!($i $s $form) as u32);
                r!($d) = u64::from($value);
            }};
        }
        macro_rules! load {
            ($i:ident $d:tt $s:tt, $bytes:literal, $convert:expr) => {{
                let address = r!($s).wrapping_add(offset($i));
                match memory.load::<$bytes>(address) {
                    Some(bytes) => r!($d) = $convert(bytes),
                    None => fault!(memory_fault(address, $bytes, Access::Read)),
                }
            }};
        }
        macro_rules! store {
            ($i:ident $d:tt $s:tt $form:ident, $bytes:literal, $ty:ty) => {{
                let address = r!($d).wrapping_add(offset($i));
                let value = (operand!($i $s $form) as $ty).to_le_bytes();
                if memory.store::<$bytes>(address, value).is_none() {
                    fault!(memory_fault(address, $bytes, Access::Write));
                }
            }};
        }
        macro_rules! load_frame {
            ($i:ident $d:tt $s:tt, $ty:ty) => {{
                let bytes = memory.load_frame(frame, $i.offset);
                r!($d) = u64::from(<$ty>::from_le_bytes(bytes));
            }};
        }
        macro_rules! store_frame {
            ($i:ident $d:tt $s:tt $form:ident, $ty:ty) => {{
                let value = (operand!($i $s $form) as $ty).to_le_bytes();
                memory.store_frame(frame, $i.offset, value);
            }};
        }
        macro_rules! atomic {
            ($i:ident $d:tt $s:tt, $bytes:literal, $ty:ty) => {{
                let Some(kind) = Atomic::from_imm($i.imm) else {
                    fault!(FaultKind::Opcode { code: ATOMIC });
                };
                let address = r!($d).wrapping_add(offset($i));
                let Some(old) = memory.load::<$bytes>(address) else {
                    fault!(memory_fault(address, $bytes, Access::Read));
                };
                let old = <$ty>::from_le_bytes(old);
                let (operand, expected) = (r!($s) as $ty, self.registers[0] as $ty);
                let new = match kind {
                    Atomic::Add | Atomic::FetchAdd => old.wrapping_add(operand),
                    Atomic::Or | Atomic::FetchOr => old | operand,
                    Atomic::And | Atomic::FetchAnd => old & operand,
                    Atomic::Xor | Atomic::FetchXor => old ^ operand,
                    Atomic::Exchange => operand,
                    Atomic::CompareExchange if old == expected => operand,
                    Atomic::CompareExchange => old,
                };
                if memory.store::<$bytes>(address, new.to_le_bytes()).is_none() {
                    fault!(memory_fault(address, $bytes, Access::Write));
                }
                match kind {
                    Atomic::Add | Atomic::Or | Atomic::And | Atomic::Xor => {}
                    Atomic::CompareExchange => self.registers[0] = u64::from(old),
                    _ => r!($s) = u64::from(old),
                }
            }};
        }
        macro_rules! jump64 {
            ($i:ident $d:tt $s:tt $form:ident, |$a:ident, $b:ident| $taken:expr) => {{
                let ($a, $b) = (r!($d), operand!($i $s $form));
                if $taken {
                    go!($i.offset as usize);
                }
            }};
        }
        macro_rules! jump32 {
            ($i:ident $d:tt $s:tt $form:ident, |$a:ident, $b:ident| $taken:expr) => {{
                let ($a, $b) = (r!($d) as u32, operand!($i $s $form) as u32);
                if $taken {
                    go!($i.offset as usize);
                }
            }};
        }
        #[rustfmt::skip]
        macro_rules! perform {
            ($i:ident $d:tt $s:tt, Add64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.wrapping_add(b)) };
            ($i:ident $d:tt $s:tt, Sub64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.wrapping_sub(b)) };
            ($i:ident $d:tt $s:tt, Mul64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.wrapping_mul(b)) };
            ($i:ident $d:tt $s:tt, Div64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.checked_div(b).unwrap_or(0)) };
            ($i:ident $d:tt $s:tt, SDiv64 $form:ident) => { alu64!($i $d $s $form, |a, b| signed_div64(a, b)) };
            ($i:ident $d:tt $s:tt, Or64 $form:ident) => { alu64!($i $d $s $form, |a, b| a | b) };
            ($i:ident $d:tt $s:tt, And64 $form:ident) => { alu64!($i $d $s $form, |a, b| a & b) };
            ($i:ident $d:tt $s:tt, Lsh64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.wrapping_shl(b as u32)) };
            ($i:ident $d:tt $s:tt, Rsh64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.wrapping_shr(b as u32)) };
            ($i:ident $d:tt $s:tt, Neg64 $form:ident) => { alu64!($i $d $s $form, |a, _b| a.wrapping_neg()) };
            ($i:ident $d:tt $s:tt, Mod64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.checked_rem(b).unwrap_or(a)) };
            ($i:ident $d:tt $s:tt, SMod64 $form:ident) => { alu64!($i $d $s $form, |a, b| signed_rem64(a, b)) };
            ($i:ident $d:tt $s:tt, Xor64 $form:ident) => { alu64!($i $d $s $form, |a, b| a ^ b) };
            ($i:ident $d:tt $s:tt, Mov64 $form:ident) => { alu64!($i $d $s $form, |_a, b| b) };
            ($i:ident $d:tt $s:tt, MovSx8To64 $form:ident) => { alu64!($i $d $s r, |_a, b| i64::from(b as i8).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, MovSx16To64 $form:ident) => { alu64!($i $d $s r, |_a, b| i64::from(b as i16).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, MovSx32To64 $form:ident) => { alu64!($i $d $s r, |_a, b| i64::from(b as i32).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, Arsh64 $form:ident) => { alu64!($i $d $s $form, |a, b| a.cast_signed().wrapping_shr(b as u32).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, Add32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.wrapping_add(b)) };
            ($i:ident $d:tt $s:tt, Sub32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.wrapping_sub(b)) };
            ($i:ident $d:tt $s:tt, Mul32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.wrapping_mul(b)) };
            ($i:ident $d:tt $s:tt, Div32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.checked_div(b).unwrap_or(0)) };
            ($i:ident $d:tt $s:tt, SDiv32 $form:ident) => { alu32!($i $d $s $form, |a, b| signed_div32(a, b)) };
            ($i:ident $d:tt $s:tt, Or32 $form:ident) => { alu32!($i $d $s $form, |a, b| a | b) };
            ($i:ident $d:tt $s:tt, And32 $form:ident) => { alu32!($i $d $s $form, |a, b| a & b) };
            ($i:ident $d:tt $s:tt, Lsh32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.wrapping_shl(b)) };
            ($i:ident $d:tt $s:tt, Rsh32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.wrapping_shr(b)) };
            ($i:ident $d:tt $s:tt, Neg32 $form:ident) => { alu32!($i $d $s $form, |a, _b| a.wrapping_neg()) };
            ($i:ident $d:tt $s:tt, Mod32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.checked_rem(b).unwrap_or(a)) };
            ($i:ident $d:tt $s:tt, SMod32 $form:ident) => { alu32!($i $d $s $form, |a, b| signed_rem32(a, b)) };
            ($i:ident $d:tt $s:tt, Xor32 $form:ident) => { alu32!($i $d $s $form, |a, b| a ^ b) };
            ($i:ident $d:tt $s:tt, Mov32 $form:ident) => { alu32!($i $d $s $form, |_a, b| b) };
            ($i:ident $d:tt $s:tt, MovSx8To32 $form:ident) => { alu32!($i $d $s r, |_a, b| i32::from(b as i8).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, MovSx16To32 $form:ident) => { alu32!($i $d $s r, |_a, b| i32::from(b as i16).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, Arsh32 $form:ident) => { alu32!($i $d $s $form, |a, b| a.cast_signed().wrapping_shr(b).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, Truncate16 $form:ident) => { alu64!($i $d $s $form, |a, _b| a & 0xffff) };
            ($i:ident $d:tt $s:tt, Truncate32 $form:ident) => { alu64!($i $d $s $form, |a, _b| a & 0xffff_ffff) };
            ($i:ident $d:tt $s:tt, Swap16 $form:ident) => { alu64!($i $d $s $form, |a, _b| u64::from((a as u16).swap_bytes())) };
            ($i:ident $d:tt $s:tt, Swap32 $form:ident) => { alu64!($i $d $s $form, |a, _b| u64::from((a as u32).swap_bytes())) };
            ($i:ident $d:tt $s:tt, Swap64 $form:ident) => { alu64!($i $d $s $form, |a, _b| a.swap_bytes()) };
            ($i:ident $d:tt $s:tt, Load8 $form:ident) => { load!($i $d $s, 1, |b| u64::from(u8::from_le_bytes(b))) };
            ($i:ident $d:tt $s:tt, Load16 $form:ident) => { load!($i $d $s, 2, |b| u64::from(u16::from_le_bytes(b))) };
            ($i:ident $d:tt $s:tt, Load32 $form:ident) => { load!($i $d $s, 4, |b| u64::from(u32::from_le_bytes(b))) };
            ($i:ident $d:tt $s:tt, Load64 $form:ident) => { load!($i $d $s, 8, u64::from_le_bytes) };
            ($i:ident $d:tt $s:tt, LoadSx8 $form:ident) => { load!($i $d $s, 1, |b| i64::from(i8::from_le_bytes(b)).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, LoadSx16 $form:ident) => { load!($i $d $s, 2, |b| i64::from(i16::from_le_bytes(b)).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, LoadSx32 $form:ident) => { load!($i $d $s, 4, |b| i64::from(i32::from_le_bytes(b)).cast_unsigned()) };
            ($i:ident $d:tt $s:tt, Store8 $form:ident) => { store!($i $d $s $form, 1, u8) };
            ($i:ident $d:tt $s:tt, Store16 $form:ident) => { store!($i $d $s $form, 2, u16) };
            ($i:ident $d:tt $s:tt, Store32 $form:ident) => { store!($i $d $s $form, 4, u32) };
            ($i:ident $d:tt $s:tt, Store64 $form:ident) => { store!($i $d $s $form, 8, u64) };
            ($i:ident $d:tt $s:tt, LoadFrame8 $form:ident) => { load_frame!($i $d $s, u8) };
            ($i:ident $d:tt $s:tt, LoadFrame16 $form:ident) => { load_frame!($i $d $s, u16) };
            ($i:ident $d:tt $s:tt, LoadFrame32 $form:ident) => { load_frame!($i $d $s, u32) };
            ($i:ident $d:tt $s:tt, LoadFrame64 $form:ident) => { load_frame!($i $d $s, u64) };
            ($i:ident $d:tt $s:tt, StoreFrame8 $form:ident) => { store_frame!($i $d $s $form, u8) };
            ($i:ident $d:tt $s:tt, StoreFrame16 $form:ident) => { store_frame!($i $d $s $form, u16) };
            ($i:ident $d:tt $s:tt, StoreFrame32 $form:ident) => { store_frame!($i $d $s $form, u32) };
            ($i:ident $d:tt $s:tt, StoreFrame64 $form:ident) => { store_frame!($i $d $s $form, u64) };
            ($i:ident $d:tt $s:tt, Atomic32 $form:ident) => { atomic!($i $d $s, 4, u32) };
            ($i:ident $d:tt $s:tt, Atomic64 $form:ident) => { atomic!($i $d $s, 8, u64) };
            ($i:ident $d:tt $s:tt, JumpEq64 $form:ident) => { jump64!($i $d $s $form, |a, b| a == b) };
            ($i:ident $d:tt $s:tt, JumpGt64 $form:ident) => { jump64!($i $d $s $form, |a, b| a > b) };
            ($i:ident $d:tt $s:tt, JumpGe64 $form:ident) => { jump64!($i $d $s $form, |a, b| a >= b) };
            ($i:ident $d:tt $s:tt, JumpSet64 $form:ident) => { jump64!($i $d $s $form, |a, b| a & b != 0) };
            ($i:ident $d:tt $s:tt, JumpNe64 $form:ident) => { jump64!($i $d $s $form, |a, b| a != b) };
            ($i:ident $d:tt $s:tt, JumpSGt64 $form:ident) => { jump64!($i $d $s $form, |a, b| a.cast_signed() > b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpSGe64 $form:ident) => { jump64!($i $d $s $form, |a, b| a.cast_signed() >= b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpLt64 $form:ident) => { jump64!($i $d $s $form, |a, b| a < b) };
            ($i:ident $d:tt $s:tt, JumpLe64 $form:ident) => { jump64!($i $d $s $form, |a, b| a <= b) };
            ($i:ident $d:tt $s:tt, JumpSLt64 $form:ident) => { jump64!($i $d $s $form, |a, b| a.cast_signed() < b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpSLe64 $form:ident) => { jump64!($i $d $s $form, |a, b| a.cast_signed() <= b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpEq32 $form:ident) => { jump32!($i $d $s $form, |a, b| a == b) };
            ($i:ident $d:tt $s:tt, JumpGt32 $form:ident) => { jump32!($i $d $s $form, |a, b| a > b) };
            ($i:ident $d:tt $s:tt, JumpGe32 $form:ident) => { jump32!($i $d $s $form, |a, b| a >= b) };
            ($i:ident $d:tt $s:tt, JumpSet32 $form:ident) => { jump32!($i $d $s $form, |a, b| a & b != 0) };
            ($i:ident $d:tt $s:tt, JumpNe32 $form:ident) => { jump32!($i $d $s $form, |a, b| a != b) };
            ($i:ident $d:tt $s:tt, JumpSGt32 $form:ident) => { jump32!($i $d $s $form, |a, b| a.cast_signed() > b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpSGe32 $form:ident) => { jump32!($i $d $s $form, |a, b| a.cast_signed() >= b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpLt32 $form:ident) => { jump32!($i $d $s $form, |a, b| a < b) };
            ($i:ident $d:tt $s:tt, JumpLe32 $form:ident) => { jump32!($i $d $s $form, |a, b| a <= b) };
            ($i:ident $d:tt $s:tt, JumpSLt32 $form:ident) => { jump32!($i $d $s $form, |a, b| a.cast_signed() < b.cast_signed()) };
            ($i:ident $d:tt $s:tt, JumpSLe32 $form:ident) => { jump32!($i $d $s $form, |a, b| a.cast_signed() <= b.cast_signed()) };
            ($i:ident $d:tt $s:tt, Truncate64 $form:ident) => { alu64!($i $d $s $form, |a, _b| a) };
            ($i:ident $d:tt $s:tt, LoadImm64 $form:ident) => {{
                r!($d) = $i.imm;
                // Two slots, one instruction.
                pc += 1;
                ahead = ahead.wrapping_sub(1);
            }};
            ($i:ident $d:tt $s:tt, Jump $form:ident) => { go!($i.offset as usize) };
            ($i:ident $d:tt $s:tt, CallHelper $form:ident) => {{
                self.meter.helpers += 1;
                // In place: copied, they would be read before their single stores are through.
                let arguments = arguments(&self.registers);
                match helpers.call($i.imm as i32, arguments, memory) {
                    Ok(value) => self.registers[0] = value,
                    Err(kind) => fault!(kind),
                }
                self.registers[1..6].fill(CLOBBERED);
            }};
            ($i:ident $d:tt $s:tt, CallLocal $form:ident) => {{
                if self.depth + 1 >= STACK_FRAMES {
                    fault!(FaultKind::Depth {
                        limit: STACK_FRAMES
                    });
                }
                let r = &mut self.registers;
                self.frames[self.depth] = Frame {
                    return_to: pc + 1,
                    saved: [r[6], r[7], r[8], r[9]],
                };
                self.depth += 1;
                r[10] = frame_pointer(self.depth);
                frame = frame_place(self.depth);
                memory.open_frame(self.depth);
                go!($i.offset as usize);
            }};
            ($i:ident $d:tt $s:tt, Exit $form:ident) => {{
                if self.depth == 0 {
                    stop!(Ok(Stop::Exited(self.registers[0])), 1);
                }
                self.depth -= 1;
                let caller = self.frames[self.depth];
                self.registers[6..10].copy_from_slice(&caller.saved);
                self.registers[1..6].fill(CLOBBERED);
                self.registers[10] = frame_pointer(self.depth);
                frame = frame_place(self.depth);
                go!(caller.return_to);
            }};
        }
        // One after the other; where one goes on elsewhere, what follows is not reached.
        macro_rules! steps {
            ($at:expr;) => {};
            ($at:expr; $op:ident $form:ident $d:tt $s:tt $($rest:tt)*) => {{
                let [insn, after @ ..] = $at;
                perform!(insn $d $s, $op $form);
                pc += 1;
                steps!(after; $($rest)*);
            }};
        }
        // Every instruction by itself, and every sequence.
        macro_rules! dispatch {
            (
                $at:ident; $($two:ident)*; $($one:ident)*;
                $([$($op:ident $form:ident $d:literal $s:literal),*])*
            ) => {
                match $at[0].code {
                    $(<Single<{ Op::$two as u8 }>>::REGISTER => {
                        let [insn, ..] = $at;
                        perform!(insn (insn.dst) (insn.src), $two r);
                        pc += 1;
                    }
                    <Single<{ Op::$two as u8 }>>::IMMEDIATE => {
                        let [insn, ..] = $at;
                        perform!(insn (insn.dst) (insn.src), $two i);
                        pc += 1;
                    })*
                    $(<Single<{ Op::$one as u8 }>>::IMMEDIATE => {
                        let [insn, ..] = $at;
                        perform!(insn (insn.dst) (insn.src), $one i);
                        pc += 1;
                    })*
                    $(<Sequence<{
                        pack(&[$(step(Op::$op.code(form!($form)), $d, $s)),*])
                    }>>::CODE if FAR => {
                        steps!($at; $($op $form $d $s)*);
                    })*
                    _ => fault!(FaultKind::Opcode {
                        code: $at[0].imm as u8
                    }),
                }
            };
        }
        loop {
            if !FAR && ahead.wrapping_add(pc as u64) >= limit {
                stop!(Ok(Stop::Paused), 0);
            }
            let Some(Window(at)) = code.get(pc) else {
                stop!(Err(FaultKind::ProgramCounter), 0);
            };
            sequences!(dispatch at;
                Add64 Sub64 Mul64 Div64 SDiv64 Or64 And64 Lsh64 Rsh64 Mod64
                SMod64 Xor64 Mov64 Arsh64 Add32 Sub32 Mul32 Div32 SDiv32 Or32
                And32 Lsh32 Rsh32 Mod32 SMod32 Xor32 Mov32 Arsh32 Store8 Store16
                Store32 Store64 StoreFrame8 StoreFrame16 StoreFrame32
                StoreFrame64 JumpEq64 JumpGt64 JumpGe64 JumpSet64 JumpNe64
                JumpSGt64 JumpSGe64 JumpLt64 JumpLe64 JumpSLt64 JumpSLe64
                JumpEq32 JumpGt32 JumpGe32 JumpSet32 JumpNe32 JumpSGt32
                JumpSGe32 JumpLt32 JumpLe32 JumpSLt32 JumpSLe32;
                Neg64 MovSx8To64 MovSx16To64 MovSx32To64 Neg32 MovSx8To32
                MovSx16To32 Truncate16 Truncate32 Truncate64 Swap16 Swap32
                Swap64 LoadImm64 Load8 Load16 Load32 Load64 LoadSx8 LoadSx16
                LoadSx32 LoadFrame8 LoadFrame16 LoadFrame32 LoadFrame64 Atomic32
                Atomic64 Jump CallHelper CallLocal Exit;
            );
        }
    }
}

#[inline(always)]
fn offset(insn: &Insn) -> u64 {
    i64::from(insn.offset.cast_signed()).cast_unsigned()
}

/// r1 to r5.
#[inline(always)]
fn arguments(registers: &[u64; REGISTERS]) -> &[u64; 5] {
    let [_, behind @ ..] = registers;
    behind.first_chunk().unwrap_or(&[0; 5])
}

#[cold]
fn memory_fault(address: u64, len: usize, access: Access) -> FaultKind {
    FaultKind::Memory {
        address,
        len,
        access,
    }
}
