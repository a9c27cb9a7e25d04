//! Packets per second of the model on one core, from memory: encapsulation, decapsulation,
//! segmentation, reflection, options.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dynencap_abi::option::{AF_INET6, ENCAP_GW, ENCAP_INFO, ENCAP_UDP};
use dynencap_abi::{Config, Reason, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Host, Packet, Port, Sink, Socket, SocketKind, reflection};
use std::hint::black_box;

const V6: u16 = 0x86dd;
const TCP: u8 = 6;
const HEADERS: usize = 60;
const GATEWAY: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
const GATEWAY4: [u8; 4] = [192, 0, 2, 9];
/// Ports and 8, and 32, bytes of header.
const UDP_8: [u8; 12] = [0, 0, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8];
const UDP_32: [u8; 36] = {
    let mut value = [7; 36];
    (value[0], value[1], value[2], value[3]) = (0, 0, 0x17, 0xc0);
    value
};
const LENGTHS: [usize; 3] = [64, 500, 1400];
const CONFIG: Config = Config {
    source: GATEWAY,
    uplink_mtu: 1500,
    flags: 0,
    source4: [10, 0, 0, 1],
    policy_generation: 0,
    hop_limit: 0,
    segmenter: 0,
    uplink: 0,
    reserved: 0,
};

/// Takes each frame and copies nothing.
#[derive(Default)]
struct Counted {
    bytes: usize,
}

impl Sink for Counted {
    fn frame(&mut self, _: Port, ethertype: u16, parts: &[&[u8]]) {
        self.bytes += black_box(parts)
            .iter()
            .map(|part| part.len())
            .sum::<usize>();
        black_box(ethertype);
    }
}

/// Copies each frame into one buffer, as a transmit ring would take it.
struct Copied {
    buffer: Vec<u8>,
}

impl Sink for Copied {
    fn frame(&mut self, _: Port, _: u16, parts: &[&[u8]]) {
        self.buffer.clear();
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        black_box(self.buffer.as_slice());
    }
}

/// A TCP segment in IPv6 of `len` bytes, headers included.
fn tcp_packet(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(len - 40).unwrap_or_default().to_be_bytes());
    bytes.extend([TCP, 64]);
    bytes.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend([
        4, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(len, 0xa5);
    bytes
}

fn packet(bytes: &[u8], gso_size: u16) -> Packet<'_> {
    Packet {
        ethertype: V6,
        bytes,
        gso_size,
    }
}

fn socket() -> Socket {
    Socket::new(SocketKind {
        family: AF_INET6,
        ty: 1,
        protocol: TCP.into(),
    })
}

/// An option and its value.
type SetOption = (i32, &'static [u8]);

/// The exits that are measured, by name: another shape is a line here.
fn exits() -> Vec<(&'static str, Socket)> {
    let gateway: SetOption = (ENCAP_GW, &GATEWAY);
    let gateway4: SetOption = (ENCAP_GW, &GATEWAY4);
    let shapes: [(&str, &[SetOption]); 5] = [
        ("ip6", &[gateway]),
        ("udp8", &[gateway, (ENCAP_UDP, &UDP_8)]),
        ("udp32", &[gateway, (ENCAP_UDP, &UDP_32)]),
        ("ip4", &[gateway4]),
        ("ip4_udp8", &[gateway4, (ENCAP_UDP, &UDP_8)]),
    ];
    let made = shapes.into_iter().map(|(name, options)| {
        let mut socket = socket();
        for (option, value) in options {
            let set = socket.set_option(&CONFIG, *option, value);
            assert_eq!(set, Ok(()), "{name}");
        }
        (name, socket)
    });
    made.collect()
}

/// Where what [`exits`] sends arrives.
fn receiver(header_len: u8) -> Host {
    let mut host = Host::new(CONFIG);
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&GATEWAY4);
    for address in [GATEWAY, mapped] {
        for (protocol, port, header_len) in [(41, [0; 2], 0), (17, [0x17, 0xc0], header_len)] {
            let key = TunnelKey {
                address,
                protocol,
                reserved: 0,
                port,
            };
            let spec = TunnelSpec {
                header_len,
                flags: 0,
                format: TunnelSpec::FIXED,
                reserved: 0,
            };
            host.add_tunnel(key, spec);
        }
    }
    host
}

fn egress(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    socket: &Socket,
    packet: Packet<'_>,
    sink: &mut impl Sink,
) {
    let mut host = Host::new(CONFIG);
    group.bench_function(name, |bencher| {
        bencher.iter(|| host.egress(Some(black_box(socket)), black_box(packet), sink));
    });
}

fn encapsulate(criterion: &mut Criterion) {
    for (name, socket) in exits() {
        let mut group = criterion.benchmark_group(format!("encapsulate/{name}"));
        for len in LENGTHS {
            let bytes = tcp_packet(len);
            group.throughput(Throughput::ElementsAndBytes {
                elements: 1,
                bytes: len as u64,
            });
            let packet = packet(&bytes, 0);
            egress(
                &mut group,
                &format!("{len}"),
                &socket,
                packet,
                &mut Counted::default(),
            );
            let mut copied = Copied { buffer: Vec::new() };
            egress(
                &mut group,
                &format!("{len}/copied"),
                &socket,
                packet,
                &mut copied,
            );
        }
    }
}

fn decapsulate(criterion: &mut Criterion) {
    for (name, socket) in exits() {
        for len in LENGTHS {
            let mut frames: Vec<Frame> = Vec::new();
            Host::new(CONFIG).egress(Some(&socket), packet(&tcp_packet(len), 0), &mut frames);
            let Some(frame) = frames.first() else {
                continue;
            };
            let arrived = Packet {
                ethertype: frame.ethertype,
                bytes: &frame.bytes,
                gso_size: 0,
            };
            let mut host = receiver(if name == "udp32" { 32 } else { 8 });
            let mut sink = Counted::default();
            let reason = host.ingress(arrived, &mut sink);
            assert_eq!(reason, Reason::Decapsulated, "{name}");
            let throughput = Throughput::ElementsAndBytes {
                elements: 1,
                bytes: frame.bytes.len() as u64,
            };

            let mut group = criterion.benchmark_group(format!("decapsulate/{name}"));
            group.throughput(throughput.clone());
            group.bench_function(format!("{len}"), |bencher| {
                bencher.iter(|| host.ingress(black_box(arrived), &mut sink));
            });
            group.finish();

            let mut group = criterion.benchmark_group(format!("reflect/{name}"));
            group.throughput(throughput);
            group.bench_function(format!("{len}"), |bencher| {
                bencher.iter(|| reflection::parse(black_box(&arrived), host.tunnels()));
            });
        }
    }
}

fn segment(criterion: &mut Criterion) {
    let bytes = tcp_packet(65_000);
    let mut group = criterion.benchmark_group("segment/64k");
    for (name, socket) in exits() {
        let segments = (bytes.len() - HEADERS).div_ceil(1384);
        group.throughput(Throughput::ElementsAndBytes {
            elements: segments as u64,
            bytes: bytes.len() as u64,
        });
        egress(
            &mut group,
            name,
            &socket,
            packet(&bytes, 1384),
            &mut Counted::default(),
        );
    }
}

fn option(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("option");
    group.throughput(Throughput::Elements(1));
    let mut socket = socket();
    group.bench_function("set_gateway", |bencher| {
        bencher.iter(|| socket.set_option(&CONFIG, ENCAP_GW, black_box(&GATEWAY)));
    });
    group.bench_function("set_udp", |bencher| {
        bencher.iter(|| socket.set_option(&CONFIG, ENCAP_UDP, black_box(&UDP_8)));
    });
    let host = Host::new(CONFIG);
    for (name, option) in [
        ("get_gateway", ENCAP_GW),
        ("get_udp", ENCAP_UDP),
        ("get_info", ENCAP_INFO),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| host.option(black_box(&socket), option, 64));
        });
    }
}

criterion_group!(benches, encapsulate, decapsulate, segment, option);
criterion_main!(benches);
