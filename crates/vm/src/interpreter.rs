//! Runs decoded instructions over guest memory. Owns registers, frames and metering; helpers
//! are someone else's ([`Helpers`]).
//!
//! The interpreter can pause after any number of instructions and go on: that is the budget,
//! and it lets a test act as another CPU between two instructions.

use crate::fault::{Access, FaultKind};
use crate::insn::{Atomic, Insn, Op};
use crate::memory::{Memory, STACK_FRAMES, context_address, frame_pointer};

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
        arguments: [u64; 5],
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

#[derive(Clone, Copy, Default)]
struct Frame {
    return_to: usize,
    saved: [u64; 4],
}

/// The state of one run.
pub(crate) struct Cpu {
    registers: [u64; 16],
    pc: usize,
    depth: usize,
    frames: [Frame; STACK_FRAMES],
    pub(crate) meter: Meter,
}

/// What r1 to r5 hold after a helper call: nothing that can be used as a pointer.
const CLOBBERED: u64 = 0xdead_dead_dead_0000;

impl Cpu {
    pub(crate) fn new() -> Self {
        let mut registers = [0; 16];
        registers[1] = context_address();
        registers[10] = frame_pointer(0);
        Self {
            registers,
            pc: 0,
            depth: 0,
            frames: [Frame::default(); STACK_FRAMES],
            meter: Meter::default(),
        }
    }

    /// The slot at which it stands: after a fault, the one that faulted.
    pub(crate) fn pc(&self) -> usize {
        self.pc
    }

    /// Runs until the program ends or `limit` instructions are executed in all.
    pub(crate) fn run(
        &mut self,
        code: &[Insn],
        memory: &mut Memory,
        helpers: &mut impl Helpers,
        limit: u64,
    ) -> Result<Stop, FaultKind> {
        let mut pc = self.pc;
        let mut executed = self.meter.instructions;
        let result = self.execute(code, memory, helpers, limit, &mut pc, &mut executed);
        self.pc = pc;
        self.meter.instructions = executed;
        result
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one arm per instruction: a table, not logic"
    )]
    #[inline(always)]
    fn execute(
        &mut self,
        code: &[Insn],
        memory: &mut Memory,
        helpers: &mut impl Helpers,
        limit: u64,
        pc_out: &mut usize,
        executed: &mut u64,
    ) -> Result<Stop, FaultKind> {
        let mut pc = *pc_out;
        macro_rules! r {
            ($index:expr) => {
                self.registers[usize::from($index & 15)]
            };
        }
        macro_rules! stop {
            ($result:expr) => {{
                *pc_out = pc;
                return $result;
            }};
        }
        loop {
            if *executed >= limit {
                stop!(Ok(Stop::Paused));
            }
            let Some(insn) = code.get(pc) else {
                stop!(Err(FaultKind::ProgramCounter));
            };
            *executed += 1;
            macro_rules! operand {
                () => {
                    r!(insn.src).wrapping_add(insn.imm)
                };
            }
            macro_rules! alu64 {
                (|$a:ident, $b:ident| $value:expr) => {{
                    let ($a, $b) = (r!(insn.dst), operand!());
                    r!(insn.dst) = $value;
                }};
            }
            macro_rules! alu32 {
                (|$a:ident, $b:ident| $value:expr) => {{
                    let ($a, $b) = (r!(insn.dst) as u32, operand!() as u32);
                    r!(insn.dst) = u64::from($value);
                }};
            }
            macro_rules! load {
                ($bytes:literal, $convert:expr) => {{
                    let address = r!(insn.src).wrapping_add(offset(insn));
                    match memory.load::<$bytes>(address) {
                        Some(bytes) => r!(insn.dst) = $convert(bytes),
                        None => stop!(Err(memory_fault(address, $bytes, Access::Read))),
                    }
                }};
            }
            macro_rules! store {
                ($bytes:literal, $ty:ty) => {{
                    let address = r!(insn.dst).wrapping_add(offset(insn));
                    let value = (operand!() as $ty).to_le_bytes();
                    if memory.store::<$bytes>(address, value).is_none() {
                        stop!(Err(memory_fault(address, $bytes, Access::Write)));
                    }
                }};
            }
            macro_rules! load_frame {
                ($ty:ty) => {{
                    let bytes = memory.load_frame(self.depth, insn.offset);
                    r!(insn.dst) = u64::from(<$ty>::from_le_bytes(bytes));
                }};
            }
            macro_rules! store_frame {
                ($ty:ty) => {{
                    let value = (operand!() as $ty).to_le_bytes();
                    memory.store_frame(self.depth, insn.offset, value);
                }};
            }
            macro_rules! atomic {
                ($bytes:literal, $ty:ty) => {{
                    let Some(kind) = Atomic::from_imm(insn.imm) else {
                        stop!(Err(FaultKind::Opcode { code: insn.code }));
                    };
                    let address = r!(insn.dst).wrapping_add(offset(insn));
                    let Some(old) = memory.load::<$bytes>(address) else {
                        stop!(Err(memory_fault(address, $bytes, Access::Read)));
                    };
                    let old = <$ty>::from_le_bytes(old);
                    let (operand, expected) = (r!(insn.src) as $ty, self.registers[0] as $ty);
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
                        stop!(Err(memory_fault(address, $bytes, Access::Write)));
                    }
                    match kind {
                        Atomic::Add | Atomic::Or | Atomic::And | Atomic::Xor => {}
                        Atomic::CompareExchange => self.registers[0] = u64::from(old),
                        _ => r!(insn.src) = u64::from(old),
                    }
                }};
            }
            macro_rules! jump64 {
                (|$a:ident, $b:ident| $taken:expr) => {{
                    let ($a, $b) = (r!(insn.dst), operand!());
                    if $taken {
                        pc = insn.offset as usize;
                        continue;
                    }
                }};
            }
            macro_rules! jump32 {
                (|$a:ident, $b:ident| $taken:expr) => {{
                    let ($a, $b) = (r!(insn.dst) as u32, operand!() as u32);
                    if $taken {
                        pc = insn.offset as usize;
                        continue;
                    }
                }};
            }
            match insn.op {
                Op::Add64 => alu64!(|a, b| a.wrapping_add(b)),
                Op::Sub64 => alu64!(|a, b| a.wrapping_sub(b)),
                Op::Mul64 => alu64!(|a, b| a.wrapping_mul(b)),
                Op::Div64 => alu64!(|a, b| a.checked_div(b).unwrap_or(0)),
                Op::SDiv64 => alu64!(|a, b| signed_div64(a, b)),
                Op::Or64 => alu64!(|a, b| a | b),
                Op::And64 => alu64!(|a, b| a & b),
                Op::Lsh64 => alu64!(|a, b| a.wrapping_shl(b as u32)),
                Op::Rsh64 => alu64!(|a, b| a.wrapping_shr(b as u32)),
                Op::Neg64 => alu64!(|a, _b| a.wrapping_neg()),
                Op::Mod64 => alu64!(|a, b| a.checked_rem(b).unwrap_or(a)),
                Op::SMod64 => alu64!(|a, b| signed_rem64(a, b)),
                Op::Xor64 => alu64!(|a, b| a ^ b),
                Op::Mov64 => alu64!(|_a, b| b),
                Op::MovSx8To64 => alu64!(|_a, b| i64::from(b as i8).cast_unsigned()),
                Op::MovSx16To64 => alu64!(|_a, b| i64::from(b as i16).cast_unsigned()),
                Op::MovSx32To64 => alu64!(|_a, b| i64::from(b as i32).cast_unsigned()),
                Op::Arsh64 => alu64!(|a, b| a.cast_signed().wrapping_shr(b as u32).cast_unsigned()),
                Op::Add32 => alu32!(|a, b| a.wrapping_add(b)),
                Op::Sub32 => alu32!(|a, b| a.wrapping_sub(b)),
                Op::Mul32 => alu32!(|a, b| a.wrapping_mul(b)),
                Op::Div32 => alu32!(|a, b| a.checked_div(b).unwrap_or(0)),
                Op::SDiv32 => alu32!(|a, b| signed_div32(a, b)),
                Op::Or32 => alu32!(|a, b| a | b),
                Op::And32 => alu32!(|a, b| a & b),
                Op::Lsh32 => alu32!(|a, b| a.wrapping_shl(b)),
                Op::Rsh32 => alu32!(|a, b| a.wrapping_shr(b)),
                Op::Neg32 => alu32!(|a, _b| a.wrapping_neg()),
                Op::Mod32 => alu32!(|a, b| a.checked_rem(b).unwrap_or(a)),
                Op::SMod32 => alu32!(|a, b| signed_rem32(a, b)),
                Op::Xor32 => alu32!(|a, b| a ^ b),
                Op::Mov32 => alu32!(|_a, b| b),
                Op::MovSx8To32 => alu32!(|_a, b| i32::from(b as i8).cast_unsigned()),
                Op::MovSx16To32 => alu32!(|_a, b| i32::from(b as i16).cast_unsigned()),
                Op::Arsh32 => alu32!(|a, b| a.cast_signed().wrapping_shr(b).cast_unsigned()),
                Op::Truncate16 => alu64!(|a, _b| a & 0xffff),
                Op::Truncate32 => alu64!(|a, _b| a & 0xffff_ffff),
                Op::Truncate64 => {}
                Op::Swap16 => alu64!(|a, _b| u64::from((a as u16).swap_bytes())),
                Op::Swap32 => alu64!(|a, _b| u64::from((a as u32).swap_bytes())),
                Op::Swap64 => alu64!(|a, _b| a.swap_bytes()),
                Op::LoadImm64 => {
                    r!(insn.dst) = insn.imm;
                    pc += 1;
                }
                Op::Load8 => load!(1, |b| u64::from(u8::from_le_bytes(b))),
                Op::Load16 => load!(2, |b| u64::from(u16::from_le_bytes(b))),
                Op::Load32 => load!(4, |b| u64::from(u32::from_le_bytes(b))),
                Op::Load64 => load!(8, u64::from_le_bytes),
                Op::LoadSx8 => load!(1, |b| i64::from(i8::from_le_bytes(b)).cast_unsigned()),
                Op::LoadSx16 => load!(2, |b| i64::from(i16::from_le_bytes(b)).cast_unsigned()),
                Op::LoadSx32 => load!(4, |b| i64::from(i32::from_le_bytes(b)).cast_unsigned()),
                Op::Store8 => store!(1, u8),
                Op::Store16 => store!(2, u16),
                Op::Store32 => store!(4, u32),
                Op::Store64 => store!(8, u64),
                Op::LoadFrame8 => load_frame!(u8),
                Op::LoadFrame16 => load_frame!(u16),
                Op::LoadFrame32 => load_frame!(u32),
                Op::LoadFrame64 => load_frame!(u64),
                Op::StoreFrame8 => store_frame!(u8),
                Op::StoreFrame16 => store_frame!(u16),
                Op::StoreFrame32 => store_frame!(u32),
                Op::StoreFrame64 => store_frame!(u64),
                Op::Atomic32 => atomic!(4, u32),
                Op::Atomic64 => atomic!(8, u64),
                Op::Jump => {
                    pc = insn.offset as usize;
                    continue;
                }
                Op::JumpEq64 => jump64!(|a, b| a == b),
                Op::JumpGt64 => jump64!(|a, b| a > b),
                Op::JumpGe64 => jump64!(|a, b| a >= b),
                Op::JumpSet64 => jump64!(|a, b| a & b != 0),
                Op::JumpNe64 => jump64!(|a, b| a != b),
                Op::JumpSGt64 => jump64!(|a, b| a.cast_signed() > b.cast_signed()),
                Op::JumpSGe64 => jump64!(|a, b| a.cast_signed() >= b.cast_signed()),
                Op::JumpLt64 => jump64!(|a, b| a < b),
                Op::JumpLe64 => jump64!(|a, b| a <= b),
                Op::JumpSLt64 => jump64!(|a, b| a.cast_signed() < b.cast_signed()),
                Op::JumpSLe64 => jump64!(|a, b| a.cast_signed() <= b.cast_signed()),
                Op::JumpEq32 => jump32!(|a, b| a == b),
                Op::JumpGt32 => jump32!(|a, b| a > b),
                Op::JumpGe32 => jump32!(|a, b| a >= b),
                Op::JumpSet32 => jump32!(|a, b| a & b != 0),
                Op::JumpNe32 => jump32!(|a, b| a != b),
                Op::JumpSGt32 => jump32!(|a, b| a.cast_signed() > b.cast_signed()),
                Op::JumpSGe32 => jump32!(|a, b| a.cast_signed() >= b.cast_signed()),
                Op::JumpLt32 => jump32!(|a, b| a < b),
                Op::JumpLe32 => jump32!(|a, b| a <= b),
                Op::JumpSLt32 => jump32!(|a, b| a.cast_signed() < b.cast_signed()),
                Op::JumpSLe32 => jump32!(|a, b| a.cast_signed() <= b.cast_signed()),
                Op::CallHelper => {
                    self.meter.helpers += 1;
                    let r = &self.registers;
                    let arguments = [r[1], r[2], r[3], r[4], r[5]];
                    match helpers.call(insn.imm as i32, arguments, memory) {
                        Ok(value) => self.registers[0] = value,
                        Err(kind) => stop!(Err(kind)),
                    }
                    self.registers[1..6].fill(CLOBBERED);
                }
                Op::CallLocal => {
                    if self.depth + 1 >= STACK_FRAMES {
                        stop!(Err(FaultKind::Depth {
                            limit: STACK_FRAMES
                        }));
                    }
                    let r = &mut self.registers;
                    self.frames[self.depth] = Frame {
                        return_to: pc + 1,
                        saved: [r[6], r[7], r[8], r[9]],
                    };
                    self.depth += 1;
                    r[10] = frame_pointer(self.depth);
                    memory.open_frame(self.depth);
                    pc = insn.offset as usize;
                    continue;
                }
                Op::Exit => {
                    if self.depth == 0 {
                        stop!(Ok(Stop::Exited(self.registers[0])));
                    }
                    self.depth -= 1;
                    let frame = self.frames[self.depth];
                    self.registers[6..10].copy_from_slice(&frame.saved);
                    self.registers[1..6].fill(CLOBBERED);
                    self.registers[10] = frame_pointer(self.depth);
                    pc = frame.return_to;
                    continue;
                }
                Op::Invalid => stop!(Err(FaultKind::Opcode { code: insn.code })),
            }
            pc += 1;
        }
    }
}

#[inline(always)]
fn offset(insn: &Insn) -> u64 {
    i64::from(insn.offset.cast_signed()).cast_unsigned()
}

#[cold]
fn memory_fault(address: u64, len: usize, access: Access) -> FaultKind {
    FaultKind::Memory {
        address,
        len,
        access,
    }
}

// RFC 9669 §4.1: division by zero gives 0, modulo by zero leaves the destination, and the
// smallest number divided by -1 is itself.

fn signed_div64(a: u64, b: u64) -> u64 {
    match b {
        0 => 0,
        _ => a
            .cast_signed()
            .wrapping_div(b.cast_signed())
            .cast_unsigned(),
    }
}

fn signed_rem64(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => a
            .cast_signed()
            .wrapping_rem(b.cast_signed())
            .cast_unsigned(),
    }
}

fn signed_div32(a: u32, b: u32) -> u32 {
    match b {
        0 => 0,
        _ => a
            .cast_signed()
            .wrapping_div(b.cast_signed())
            .cast_unsigned(),
    }
}

fn signed_rem32(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        _ => a
            .cast_signed()
            .wrapping_rem(b.cast_signed())
            .cast_unsigned(),
    }
}
