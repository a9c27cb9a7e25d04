//! The committed object on the machine: it loads, no input makes it fault, and a reader never
//! sees half of an exit. What its verdicts must be is for the differential suite to say.

#![cfg(test)]

use dynencap_abi::{Config, Exit, Reason, SocketState, TunnelKey, TunnelSpec, object, option};
use dynencap_vm::{
    Direction, GetOption, Gso, GsoKind, Machine, Redirect, SetOption, Skb, SocketId, SocketKind,
    gso,
};
use proptest::prelude::*;

const OBJECT: &[u8] = include_bytes!("../../bpf/dynencap.bpf.o");
const TCP: SocketKind = SocketKind {
    family: option::AF_INET6,
    ty: 1,
    protocol: 6,
};
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

fn machine() -> Machine {
    let mut machine = Machine::load(OBJECT).unwrap();
    let config = Config {
        source: [0xfd; 16],
        uplink_mtu: 1500,
        flags: Config::ALLOW_PACKET_SOCKETS,
        ..Config::default()
    };
    machine
        .update_map(object::CONFIG, &[0; 4], &config.to_bytes())
        .unwrap();
    for (protocol, port) in [(4, [0; 2]), (41, [0; 2]), (17, [0x12, 0x34])] {
        let key = TunnelKey {
            address: GATEWAY,
            protocol,
            reserved: 0,
            port,
        };
        let spec = TunnelSpec {
            header_len: if protocol == 17 { 8 } else { 0 },
            flags: 0,
            format: TunnelSpec::FIXED,
            reserved: 0,
        };
        machine
            .update_map(object::TUNNELS, &key.to_bytes(), &spec.to_bytes())
            .unwrap();
    }
    machine
}

fn set(machine: &mut Machine, socket: SocketId, name: i32, value: &[u8]) {
    let outcome = machine
        .set_option(
            object::SET_OPTION,
            socket,
            option::SOL_DYNENCAP,
            name,
            value,
        )
        .unwrap();
    assert_eq!(outcome, SetOption::Consumed);
}

fn with_gateway(machine: &mut Machine) -> SocketId {
    let socket = machine.open_socket(TCP);
    set(machine, socket, option::ENCAP_GW, &GATEWAY);
    socket
}

/// Ethernet, IPv6, TCP without options, payload.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + 60 + payload];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
    frame[20] = 6;
    frame[21] = 64;
    frame[22] = 0x20;
    frame[38] = 0x20;
    frame[66] = 0x50;
    frame
}

fn counted(machine: &Machine) -> Vec<(Reason, u64)> {
    let counters = machine.counters(object::COUNTERS).unwrap();
    Reason::ALL
        .into_iter()
        .zip(counters)
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[test]
fn a_socket_with_a_gateway_sends_encapsulated() {
    let mut machine = machine();
    let socket = with_gateway(&mut machine);
    assert_eq!(machine.mark(socket) & 0x00ff_0000, 0x00a8_0000);
    let frame = tcp_frame(100);
    let mut skb = Skb::new(&frame, 0x86dd);
    skb.socket = Some(socket);
    skb.mark = machine.mark(socket);
    let run = machine.run_tc(object::EGRESS, &mut skb).unwrap();
    assert_eq!(run.action, -1);
    assert_eq!(counted(&machine), [(Reason::Encapsulated, 1)]);
    assert_eq!(skb.len(), frame.len() + 40);
    assert_eq!(skb.data()[20], 41);
    assert_eq!(skb.data()[38..54], GATEWAY);
    assert_eq!(skb.data()[54..], frame[14..]);

    // The other end takes it off again.
    let wire = skb.data().to_vec();
    skb.reset(&wire, 0x86dd);
    machine.run_tc(object::INGRESS, &mut skb).unwrap();
    assert_eq!(skb.data(), frame);
}

#[test]
fn a_child_inherits_the_exit_and_options_read_back() {
    let mut machine = machine();
    let listener = with_gateway(&mut machine);
    let child = machine.clone_socket(listener);
    set(&mut machine, listener, option::ENCAP_GW, &[]);
    let mut buffer = [0; 64];
    let mut read = |socket| {
        let answer = machine
            .get_option(
                object::GET_OPTION,
                socket,
                option::SOL_DYNENCAP,
                option::ENCAP_GW,
                -92,
                &mut buffer,
            )
            .unwrap();
        assert_eq!(answer, GetOption::Ok(16));
        buffer[..16].to_vec()
    };
    assert_eq!(read(child), GATEWAY);
    assert_eq!(read(listener), [0; 16]);
}

#[test]
fn an_encapsulated_super_packet_leaves_as_segments_within_the_mtu() {
    let mut machine = machine();
    let socket = with_gateway(&mut machine);
    set(
        &mut machine,
        socket,
        option::ENCAP_UDP,
        &[0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8],
    );
    let mut skb = Skb::new(&tcp_frame(4000), 0x86dd);
    skb.socket = Some(socket);
    skb.gso = Some(Gso {
        size: 1300,
        kind: GsoKind::Tcp6,
    });
    skb.set_linear_len(74);
    machine.run_tc(object::EGRESS, &mut skb).unwrap();
    assert_eq!(counted(&machine), [(Reason::Encapsulated, 1)]);
    let mut lengths = Vec::new();
    let count = gso::segment(&skb, &mut |frame| lengths.push(frame.len())).unwrap();
    assert_eq!(count, 4);
    assert_eq!(lengths, [1430, 1430, 1430, 230]);
}

#[test]
fn the_labs_program_redirects_every_frame_to_its_device() {
    let mut machine = machine();
    machine
        .update_map(object::LAB_DEVICE, &[0; 4], &9u32.to_ne_bytes())
        .unwrap();
    for frame in [tcp_frame(100), vec![0; 14], Vec::new()] {
        let mut skb = Skb::new(&frame, 0x86dd);
        let run = machine.run_tc(object::LAB_DELIVER, &mut skb).unwrap();
        let to = Redirect {
            ifindex: 9,
            direction: Direction::Egress,
        };
        assert_eq!((run.action, run.redirect), (7, Some(to)));
        assert_eq!(skb.data(), frame);
    }
}

/// Another CPU rewrites the exit between any two instructions of the reader, as a writer that
/// follows the generation protocol does: what leaves has the one exit or the other, or is
/// dropped as busy.
#[test]
fn a_reader_never_mixes_two_exits() {
    let slots = std::mem::offset_of!(SocketState, slots);
    let ports = std::mem::offset_of!(Exit, source_port);
    let header_len = std::mem::offset_of!(Exit, header_len);
    for every in 1..60 {
        let mut machine = machine();
        let socket = with_gateway(&mut machine);
        set(
            &mut machine,
            socket,
            option::ENCAP_UDP,
            &[0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11],
        );
        let mut skb = Skb::new(&tcp_frame(100), 0x86dd);
        skb.socket = Some(socket);
        skb.mark = machine.mark(socket);
        let mut writes = 0u32;
        let mut interfere = |storages: &mut dynencap_vm::Storages<'_>| {
            // Few writes, so that some reading succeeds; each rewrites the slot not in use
            // and then moves the generation.
            writes += 1;
            if !writes.is_multiple_of(7) {
                return;
            }
            let Some(state) = storages.value_mut(object::SOCKETS, socket) else {
                return;
            };
            let generation = u32::from_ne_bytes([state[0], state[1], state[2], state[3]]);
            let next = generation.wrapping_add(1);
            let at = slots + (next & 1) as usize * size_of::<Exit>();
            let exit = &mut state[at..at + size_of::<Exit>()];
            let tag = if next & 1 == 0 { 0x22 } else { 0x33 };
            exit.fill(0);
            exit[..16].fill(tag);
            exit[32..36].fill(tag);
            exit[ports..ports + 4].fill(tag);
            exit[ports + 4] = Exit::GATEWAY | Exit::UDP;
            exit[header_len] = 4;
            state[..4].copy_from_slice(&next.to_ne_bytes());
        };
        let run = machine
            .run_tc_interleaved(object::EGRESS, &mut skb, every, &mut interfere)
            .unwrap();
        let [(reason, 1)] = counted(&machine)[..] else {
            panic!("{:?}", counted(&machine));
        };
        if reason == Reason::ExitBusy {
            assert_eq!(run.action, 2);
            continue;
        }
        assert_eq!(reason, Reason::Encapsulated, "every {every}");
        let data = skb.data();
        let tag = data[54];
        assert_eq!(data[54..58], [tag; 4], "ports, every {every}");
        assert_eq!(data[62..66], [tag; 4], "header, every {every}");
        let gateway = if tag == 0x11 { GATEWAY } else { [tag; 16] };
        assert_eq!(data[38..54], gateway, "gateway, every {every}");
    }
}

/// Frames that begin like IP more often than chance would have it.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let random = prop::collection::vec(any::<u8>(), 0..200);
    let likely = (
        any::<bool>(),
        0..3usize,
        prop::collection::vec(any::<u8>(), 40..200),
    )
        .prop_map(|(six, next, mut bytes)| {
            let len = (bytes.len() as u16).to_be_bytes();
            if six {
                bytes[0] = 0x60;
                let payload = (bytes.len() as u16 - 40).to_be_bytes();
                bytes[4..6].copy_from_slice(&payload);
                bytes[6] = [6, 41, 17][next];
                bytes[24..40].copy_from_slice(&GATEWAY);
                if next == 2 && bytes.len() >= 48 {
                    bytes[42..44].copy_from_slice(&[0x12, 0x34]);
                    let payload = [bytes[4], bytes[5]];
                    bytes[44..46].copy_from_slice(&payload);
                }
            } else {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&len);
                bytes[9] = [6, 17, 1][next];
            }
            let mut frame = vec![0; 12];
            frame.extend_from_slice(if six { &[0x86, 0xdd] } else { &[8, 0] });
            frame.extend_from_slice(&bytes);
            frame
        });
    prop_oneof![random, likely]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_frame_makes_the_programs_fault(
        frame in any_frame(),
        protocol in prop_oneof![Just(0x0800u16), Just(0x86dd), any::<u16>()],
        header in prop::option::of(0..33usize),
        size in prop::option::of(any::<u16>()),
        linear in 0..200usize,
    ) {
        let mut machine = machine();
        let socket = with_gateway(&mut machine);
        if let Some(len) = header {
            let value: Vec<u8> = [0x12, 0x34, 0x12, 0x34].into_iter().chain(vec![7; len]).collect();
            set(&mut machine, socket, option::ENCAP_UDP, &value);
        }
        let mut skb = Skb::new(&frame, protocol);
        skb.set_linear_len(linear);
        skb.socket = Some(socket);
        skb.mark = machine.mark(socket);
        skb.gso = size.map(|size| Gso { size, kind: GsoKind::Tcp6 });
        let run = machine.run_tc(object::EGRESS, &mut skb);
        prop_assert!(run.is_ok(), "{}", run.unwrap_err());
        let _ = gso::segment(&skb, &mut |_| {});
        skb.reset(&frame, protocol);
        let run = machine.run_tc(object::INGRESS, &mut skb);
        prop_assert!(run.is_ok(), "{}", run.unwrap_err());
        let total: u64 = machine.counters(object::COUNTERS).unwrap().iter().sum();
        prop_assert_eq!(total, 2);
    }

    #[test]
    fn no_option_makes_the_programs_fault(
        level in prop_oneof![Just(option::SOL_DYNENCAP), any::<i32>()],
        name in prop_oneof![0..6i32, any::<i32>()],
        value in prop::collection::vec(any::<u8>(), 0..60),
        family in prop_oneof![Just(2u32), Just(10), Just(17), any::<u32>()],
    ) {
        let mut machine = machine();
        let socket = machine.open_socket(SocketKind { family, ty: 1, protocol: 6 });
        let before = machine.storage(object::SOCKETS, socket).unwrap();
        let run = machine.set_option(object::SET_OPTION, socket, level, name, &value);
        prop_assert!(run.is_ok(), "{}", run.unwrap_err());
        if let Ok(SetOption::Refused(_)) = run {
            prop_assert_eq!(machine.storage(object::SOCKETS, socket).unwrap(), before);
        }
        let mut buffer = value;
        let run = machine.get_option(object::GET_OPTION, socket, level, name, -92, &mut buffer);
        prop_assert!(run.is_ok(), "{}", run.unwrap_err());
    }
}
