//! The committed object, interpreted: packets a second on each path of the data path, and what
//! each costs in instructions and helper calls (printed once at the start).

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dynencap_abi::{Config, TunnelKey, TunnelSpec, object, option};
use dynencap_vm::{Machine, Skb, SocketId, SocketKind};
use std::hint::black_box;

const OBJECT: &[u8] = include_bytes!("../crates/bpf/dynencap.bpf.o");
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const PACKET_LEN: usize = 500;

struct Path {
    name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    socket: Option<SocketId>,
}

/// Ethernet, IPv6, TCP: a packet of [`PACKET_LEN`] bytes.
fn tcp_frame() -> Vec<u8> {
    let mut frame = vec![0; 14 + PACKET_LEN];
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&(PACKET_LEN as u16 - 40).to_be_bytes());
    frame[20..22].copy_from_slice(&[6, 64]);
    frame[22] = 0x20;
    frame[38] = 0x20;
    frame[66] = 0x50;
    frame
}

fn machine() -> Option<(Machine, [Path; 5])> {
    let mut machine = Machine::load(OBJECT).ok()?;
    let config = Config {
        source: [0xfd; 16],
        uplink_mtu: 1500,
        flags: 0,
        ..Config::default()
    };
    machine
        .update_map(object::CONFIG, &[0; 4], &config.to_bytes())
        .ok()?;
    let key = TunnelKey {
        address: GATEWAY,
        protocol: 41,
        reserved: 0,
        port: [0; 2],
    };
    let spec = TunnelSpec {
        header_len: 0,
        flags: 0,
        format: TunnelSpec::FIXED,
        reserved: 0,
    };
    machine
        .update_map(object::TUNNELS, &key.to_bytes(), &spec.to_bytes())
        .ok()?;
    let kind = SocketKind {
        family: option::AF_INET6,
        ty: 1,
        protocol: 6,
    };
    let [ip, udp, none] = [(); 3].map(|()| machine.open_socket(kind));
    let with_header: [u8; 12] = [0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
    for (socket, name, value) in [
        (ip, option::ENCAP_GW, &GATEWAY[..]),
        (udp, option::ENCAP_GW, &GATEWAY),
        (udp, option::ENCAP_UDP, &with_header),
    ] {
        machine
            .set_option(
                object::SET_OPTION,
                socket,
                option::SOL_DYNENCAP,
                name,
                value,
            )
            .ok()?;
    }
    let mut encapsulated = Skb::new(&tcp_frame(), 0x86dd);
    encapsulated.socket = Some(ip);
    machine.run_tc(object::EGRESS, &mut encapsulated).ok()?;
    let egress = |name, socket| Path {
        name,
        program: object::EGRESS,
        frame: tcp_frame(),
        socket,
    };
    let paths = [
        egress("egress_ip_in_ip", Some(ip)),
        egress("egress_udp_8", Some(udp)),
        egress("egress_no_exit", Some(none)),
        egress("egress_no_socket", None),
        Path {
            name: "ingress_ip_in_ip",
            program: object::INGRESS,
            frame: encapsulated.data().to_vec(),
            socket: None,
        },
    ];
    Some((machine, paths))
}

fn paths(criterion: &mut Criterion) {
    let Some((mut machine, paths)) = machine() else {
        eprintln!("the object does not load: nothing is measured");
        return;
    };
    let mut group = criterion.benchmark_group("vm");
    group.throughput(Throughput::Elements(1));
    let mut skb = Skb::default();
    for path in paths {
        let mut run = || {
            skb.reset(black_box(&path.frame), 0x86dd);
            skb.socket = path.socket;
            machine.run_tc(path.program, &mut skb)
        };
        match run() {
            Ok(run) => println!(
                "{}: {} instructions, {} helper calls, action {}",
                path.name, run.meter.instructions, run.meter.helpers, run.action
            ),
            Err(fault) => println!("{}: {fault}", path.name),
        }
        group.bench_function(path.name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
