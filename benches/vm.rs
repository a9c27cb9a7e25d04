//! The committed object, interpreted: every program on each of its paths, in packets (or calls)
//! a second, and what each costs in instructions and helper calls (printed once at the start).
//!
//! A new path is a line in [`Bed::paths`].

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dynencap_abi::object;
use dynencap_abi::option::{self, ENCAP_GW, ENCAP_INFO, ENCAP_UDP, ENOPROTOOPT, SOL_DYNENCAP};
use dynencap_benches::engines;
use dynencap_vm::{Endpoints, Fault, Machine, Meter, Skb, SocketId, SocketKind};
use std::error::Error;
use std::hint::black_box;

const OBJECT: &[u8] = include_bytes!("../crates/bpf/dynencap.bpf.o");
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const GATEWAY4: [u8; 4] = [192, 0, 2, 9];
const PACKET_LEN: usize = 500;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;
/// `BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB`, `BPF_SOCK_OPS_STATE_CB`.
const ESTABLISHED_CB: u32 = 4;
const STATE_CB: u32 = 10;
const TCP_ESTABLISHED: u32 = 1;
const TCP_CLOSE: u32 = 7;
const TCP: SocketKind = SocketKind {
    family: option::AF_INET6,
    ty: 1,
    protocol: 6,
};
/// Ports and 8, and 32, bytes of header.
const UDP_8: [u8; 12] = [0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
const UDP_32: [u8; 36] = {
    let mut value = [7; 36];
    (value[0], value[1], value[2], value[3]) = (0, 0, 0x12, 0x34);
    value
};

/// What is run.
enum Call {
    Frame {
        program: &'static str,
        ethertype: u16,
        frame: Vec<u8>,
        socket: Option<SocketId>,
    },
    SetOption(SocketId, i32, &'static [u8]),
    GetOption(SocketId, i32),
    /// And closing it again.
    CreateSocket,
    Track(SocketId, u32, [u32; 4]),
}

struct Path {
    name: &'static str,
    call: Call,
}

/// A machine with a configured host.
struct Bed {
    machine: Machine,
    skb: Skb,
}

impl Bed {
    fn new() -> Result<Self, Box<dyn Error>> {
        let machine = engines::machine(OBJECT)?;
        Ok(Self {
            machine,
            skb: Skb::default(),
        })
    }

    /// A socket with these options set.
    fn socket(&mut self, options: &[(i32, &[u8])]) -> Result<SocketId, Fault> {
        let socket = self.machine.open_socket(TCP);
        for (name, value) in options {
            let program = object::SET_OPTION;
            self.machine
                .set_option(program, socket, SOL_DYNENCAP, *name, value)?;
        }
        Ok(socket)
    }

    fn paths(&mut self) -> Result<Vec<Path>, Box<dyn Error>> {
        let gateway: (i32, &[u8]) = (ENCAP_GW, &GATEWAY);
        let gateway4: (i32, &[u8]) = (ENCAP_GW, &GATEWAY4);
        let ip = self.socket(&[gateway])?;
        let udp = self.socket(&[gateway, (ENCAP_UDP, &UDP_8)])?;
        let long = self.socket(&[gateway, (ENCAP_UDP, &UDP_32)])?;
        let ip4 = self.socket(&[gateway4])?;
        let udp4 = self.socket(&[gateway4, (ENCAP_UDP, &UDP_8)])?;
        let none = self.machine.open_socket(TCP);
        let tracked = self.socket(&[gateway])?;
        let endpoints = Endpoints {
            local: "[2001:db8::1]:40000".parse()?,
            remote: Some("[2001:db8::2]:443".parse()?),
        };
        self.machine.set_endpoints(tracked, Some(endpoints));
        let of = |program, ethertype, frame, socket| Call::Frame {
            program,
            ethertype,
            frame,
            socket,
        };
        let egress = |frame: fn() -> (u16, Vec<u8>), socket| {
            let (ethertype, frame) = frame();
            of(object::EGRESS, ethertype, frame, socket)
        };
        let mut tunnelled = Vec::new();
        for socket in [ip, udp] {
            let mut skb = Skb::new(&packet6().1, V6);
            (skb.socket, skb.mark) = (Some(socket), self.machine.mark(socket));
            self.machine.run_tc(object::EGRESS, &mut skb)?;
            tunnelled.push(skb.data().to_vec());
        }
        let mut ingress = tunnelled
            .into_iter()
            .map(|frame| of(object::INGRESS, V6, frame, None));
        let mut ingress = || ingress.next().ok_or("nothing was encapsulated");
        let segmented = of(object::SEGMENTED, V6, packet6().1, Some(ip));
        let plain = of(object::INGRESS, V6, packet6().1, None);
        let closing = [TCP_ESTABLISHED, TCP_CLOSE, 0, 0];
        Ok([
            ("egress_ip6", egress(packet6, Some(ip))),
            ("egress_ip6_udp_8", egress(packet6, Some(udp))),
            ("egress_ip6_udp_32", egress(packet6, Some(long))),
            ("egress_ip4", egress(packet6, Some(ip4))),
            ("egress_ip4_udp_8", egress(packet6, Some(udp4))),
            ("egress_v4_in_ip6", egress(packet4, Some(ip))),
            ("egress_v4_in_ip4", egress(packet4, Some(ip4))),
            ("egress_miss", egress(packet6, Some(none))),
            ("egress_no_socket", egress(packet6, None)),
            ("segmented_ip6", segmented),
            ("ingress_ip6", ingress()?),
            ("ingress_ip6_udp_8", ingress()?),
            ("ingress_no_tunnel", plain),
            (
                "set_option_gateway",
                Call::SetOption(ip, ENCAP_GW, &GATEWAY),
            ),
            ("set_option_udp", Call::SetOption(udp, ENCAP_UDP, &UDP_8)),
            ("get_option_gateway", Call::GetOption(ip, ENCAP_GW)),
            ("get_option_info", Call::GetOption(ip, ENCAP_INFO)),
            ("socket_create", Call::CreateSocket),
            (
                "track_established",
                Call::Track(tracked, ESTABLISHED_CB, [0; 4]),
            ),
            ("track_closed", Call::Track(tracked, STATE_CB, closing)),
        ]
        .map(|(name, call)| Path { name, call })
        .into())
    }

    /// One run; of option calls, which tell none, no count.
    fn run(&mut self, path: &Path) -> Result<Option<Meter>, Fault> {
        let machine = &mut self.machine;
        match &path.call {
            Call::Frame {
                program,
                ethertype,
                frame,
                socket,
            } => {
                self.skb.reset(black_box(frame), *ethertype);
                self.skb.socket = *socket;
                self.skb.mark = socket.map_or(0, |socket| machine.mark(socket));
                let run = machine.run_tc(program, &mut self.skb)?;
                Ok(Some(run.meter))
            }
            Call::SetOption(socket, name, value) => {
                let program = object::SET_OPTION;
                machine.set_option(program, *socket, SOL_DYNENCAP, *name, black_box(value))?;
                Ok(None)
            }
            Call::GetOption(socket, name) => {
                let (program, mut buffer) = (object::GET_OPTION, [0; 64]);
                let unknown = -ENOPROTOOPT;
                machine.get_option(program, *socket, SOL_DYNENCAP, *name, unknown, &mut buffer)?;
                black_box(buffer);
                Ok(None)
            }
            Call::CreateSocket => {
                let created = machine.create_socket(object::SOCKET_CREATE, black_box(TCP))?;
                if let dynencap_vm::CreateSocket::Created(socket) = created {
                    machine.close_socket(socket);
                }
                Ok(None)
            }
            Call::Track(socket, op, arguments) => {
                let run = machine.run_sock_ops(object::TRACK, *op, *arguments, *socket)?;
                Ok(Some(run.meter))
            }
        }
    }
}

/// Ethernet, IPv6, TCP: a packet of [`PACKET_LEN`] bytes.
fn packet6() -> (u16, Vec<u8>) {
    let mut frame = vec![0; 14 + PACKET_LEN];
    frame[12..14].copy_from_slice(&V6.to_be_bytes());
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&(PACKET_LEN as u16 - 40).to_be_bytes());
    frame[20..22].copy_from_slice(&[6, 64]);
    frame[22] = 0x20;
    frame[38] = 0x20;
    frame[66] = 0x50;
    (V6, frame)
}

/// Ethernet, IPv4, TCP: the same.
fn packet4() -> (u16, Vec<u8>) {
    let mut frame = vec![0; 14 + PACKET_LEN];
    frame[12..14].copy_from_slice(&V4.to_be_bytes());
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(PACKET_LEN as u16).to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    frame[46] = 0x50;
    (V4, frame)
}

fn paths(criterion: &mut Criterion) {
    let made = Bed::new().and_then(|mut bed| {
        let paths = bed.paths()?;
        Ok((bed, paths))
    });
    let (mut bed, paths) = match made {
        Ok(made) => made,
        Err(error) => {
            eprintln!("nothing is measured: {error}");
            return;
        }
    };
    let mut group = criterion.benchmark_group("vm");
    group.throughput(Throughput::Elements(1));
    for path in paths {
        match bed.run(&path) {
            Ok(Some(Meter {
                instructions,
                helpers,
            })) => println!(
                "{}: {instructions} instructions, {helpers} helper calls",
                path.name
            ),
            Ok(None) => {}
            Err(fault) => println!("{}: {fault}", path.name),
        }
        group.bench_function(path.name, |bencher| bencher.iter(|| bed.run(&path)));
    }
    group.finish();
}

criterion_group!(benches, paths);
criterion_main!(benches);
