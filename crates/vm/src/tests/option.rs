//! The socket-option hooks' rules for buffers and return values.

use super::{EXIT, call, insn, machine, mov};
use crate::option::{GetOption, SetOption};
use crate::socket::SocketKind;
use aya_obj::generated::bpf_insn;

const OPTLEN: i16 = 32;
const RETVAL: i16 = 36;
const KIND: SocketKind = SocketKind {
    family: 2,
    ty: 1,
    protocol: 6,
};

/// Stores into the context and returns a verdict.
fn program(stores: &[(i16, i32)], verdict: i32) -> Vec<bpf_insn> {
    let stores = stores
        .iter()
        .map(|&(at, value)| insn(0x62, 1, 0, at, value));
    stores.chain([mov(0, verdict), EXIT]).collect()
}

fn set(program: &[bpf_insn], value: &[u8]) -> SetOption {
    let mut machine = machine(program);
    let socket = machine.open_socket(KIND);
    machine.set_option("main", socket, 1, 2, value).unwrap()
}

fn get(program: &[bpf_insn], kernel_result: i32, buffer: &mut [u8]) -> GetOption {
    let mut machine = machine(program);
    let socket = machine.open_socket(KIND);
    machine
        .get_option("main", socket, 1, 2, kernel_result, buffer)
        .unwrap()
}

fn passed(value: Option<&[u8]>) -> SetOption {
    SetOption::PassedOn {
        level: 1,
        name: 2,
        value: value.map(<[u8]>::to_vec),
    }
}

#[test]
fn setsockopt_follows_the_length_that_the_program_leaves() {
    let long = [7; 5000];
    type Row<'a> = (&'a [(i16, i32)], i32, &'a [u8], SetOption);
    let table: [Row<'_>; 8] = [
        (&[], 1, b"abcd", passed(Some(b"abcd"))),
        (&[(OPTLEN, 0)], 1, b"abcd", passed(None)),
        (&[(OPTLEN, 2)], 1, b"abcd", passed(Some(b"ab"))),
        (&[(OPTLEN, -1)], 1, b"abcd", SetOption::Consumed),
        (&[(OPTLEN, -2)], 1, b"abcd", SetOption::Refused(14)),
        // The buffer has 16 bytes at least.
        (&[(OPTLEN, 17)], 1, b"abcd", SetOption::Refused(14)),
        (&[], 1, &long, passed(None)),
        (&[(OPTLEN, 3)], 1, &long, passed(Some(&[7; 3]))),
    ];
    for (stores, verdict, value, expected) in table {
        assert_eq!(
            set(&program(stores, verdict), value),
            expected,
            "{stores:?}"
        );
    }
}

#[test]
fn a_refusal_is_eperm_unless_the_program_says_why() {
    assert_eq!(set(&program(&[], 0), b""), SetOption::Refused(1));
    let says_why = [mov(1, -92), call(187), mov(0, 0), EXIT];
    assert_eq!(set(&says_why, b""), SetOption::Refused(92));
    // An errno counts even with verdict 1.
    let contradicts = [mov(1, -22), call(187), mov(0, 1), EXIT];
    assert_eq!(set(&contradicts, b""), SetOption::Refused(22));
}

#[test]
fn getsockopt_lets_the_kernels_answer_through_or_replaces_it() {
    let mut buffer = *b"kern";
    assert_eq!(get(&program(&[], 1), 0, &mut buffer), GetOption::Ok(4));
    assert_eq!(
        get(&program(&[], 1), -92, &mut buffer),
        GetOption::Refused(92)
    );
    assert_eq!(&buffer, b"kern");
    let answer = program(&[(RETVAL, 0), (OPTLEN, 2)], 1);
    assert_eq!(get(&answer, -92, &mut buffer), GetOption::Ok(2));
    assert_eq!(&buffer, b"\0\0rn");
    let too_long = program(&[(RETVAL, 0), (OPTLEN, 5)], 1);
    assert_eq!(get(&too_long, -92, &mut buffer), GetOption::Refused(14));
    assert_eq!(get(&program(&[], 0), 0, &mut buffer), GetOption::Refused(1));
}

#[test]
fn the_option_buffer_ends_where_it_says() {
    // *(u8 *)(optval + offset): the buffer of a 4-byte value has 16 bytes.
    for (offset, ok) in [(15, true), (16, false), (-1, false)] {
        let program = [
            insn(0x79, 2, 1, 8, 0),
            insn(0x71, 0, 2, offset, 0),
            mov(0, 1),
            EXIT,
        ];
        let mut machine = machine(&program);
        let socket = machine.open_socket(KIND);
        let result = machine.set_option("main", socket, 1, 2, b"abcd");
        assert_eq!(result.is_ok(), ok, "{offset}");
    }
}
