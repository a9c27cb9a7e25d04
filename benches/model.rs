//! Packets per second of the model on one core, from memory: encapsulation, decapsulation,
//! segmentation, reflection, options.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use dynencap_abi::option::{AF_INET6, ENCAP_GW, ENCAP_UDP};
use dynencap_abi::{Config, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Host, Packet, Port, Sink, Socket, SocketKind, reflection};
use std::hint::black_box;

const V6: u16 = 0x86dd;
const TCP: u8 = 6;
const HEADERS: usize = 60;
const GATEWAY: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
const CONFIG: Config = Config {
    source: GATEWAY,
    uplink_mtu: 1500,
    flags: 0,
    source4: [0; 4],
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

/// The two exits that are measured, by name.
fn exits() -> [(&'static str, Socket); 2] {
    let mut ip = socket();
    let mut udp = socket();
    let settings = [
        ip.set_option(&CONFIG, ENCAP_GW, &GATEWAY),
        udp.set_option(&CONFIG, ENCAP_GW, &GATEWAY),
        udp.set_option(
            &CONFIG,
            ENCAP_UDP,
            &[0, 0, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
    ];
    assert!(settings.iter().all(Result::is_ok), "{settings:?}");
    [("ip6", ip), ("udp8", udp)]
}

fn receiver() -> Host {
    let mut host = Host::new(CONFIG);
    for (protocol, port, header_len) in [(41, [0; 2], 0), (17, [0x17, 0xc0], 8)] {
        let key = TunnelKey {
            address: GATEWAY,
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
        for len in [64, 500, 1400] {
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
        let mut frames: Vec<Frame> = Vec::new();
        Host::new(CONFIG).egress(Some(&socket), packet(&tcp_packet(500), 0), &mut frames);
        let Some(frame) = frames.first() else {
            continue;
        };
        let arrived = packet(&frame.bytes, 0);
        let mut host = receiver();
        let throughput = Throughput::ElementsAndBytes {
            elements: 1,
            bytes: frame.bytes.len() as u64,
        };

        let mut group = criterion.benchmark_group(format!("decapsulate/{name}"));
        group.throughput(throughput.clone());
        let mut sink = Counted::default();
        group.bench_function("500", |bencher| {
            bencher.iter(|| host.ingress(black_box(arrived), &mut sink));
        });
        group.finish();

        let mut group = criterion.benchmark_group(format!("reflect/{name}"));
        group.throughput(throughput);
        group.bench_function("500", |bencher| {
            bencher.iter(|| reflection::parse(black_box(&arrived), host.tunnels()));
        });
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
        let value = [0, 0, 0x17, 0xc0, 1, 2, 3, 4, 5, 6, 7, 8];
        bencher.iter(|| socket.set_option(&CONFIG, ENCAP_UDP, black_box(&value)));
    });
}

criterion_group!(benches, encapsulate, decapsulate, segment, option);
criterion_main!(benches);
