//! The engines of user space, from memory: operations of the model, and runs of the committed
//! programs in the vm. Each is asked whether it did what it is here for.

use crate::{Error, Row, Run, sample::Samples};
use dynencap_abi::{
    Config, Reason, TunnelKey, TunnelSpec, object,
    option::{AF_INET6, ENCAP_GW, ENCAP_UDP, SOL_DYNENCAP},
};
use dynencap_model::{Frame, Host, Packet, Port, Sink, Socket, SocketKind, reflection};
use dynencap_vm::{Machine, Skb};
use std::{hint::black_box, time::Instant};

const V6: u16 = 0x86dd;
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
/// Ports and 8 bytes of header.
const UDP8: [u8; 12] = [0, 0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8];
/// Bytes of a packet, headers included, unless its name says otherwise.
const LEN: usize = 500;
/// Bytes of a super-packet, of its headers, and of what each segment carries.
const SUPER_LEN: usize = 65_000;
const HEADERS: usize = 60;
const SEGMENT: u16 = 1384;
/// Into how many segments that is cut.
pub const SEGMENTS: usize = (SUPER_LEN - HEADERS).div_ceil(SEGMENT as usize);
/// Shapes of exits: name, value of `ENCAP_UDP`.
const SHAPES: [(&str, &[u8]); 2] = [("IPv6", &[]), ("IPv6, UDP + 8", &UDP8)];

/// Something to do, again and again.
struct Operation {
    name: String,
    /// Calls a slice, which should take some milliseconds.
    calls: u32,
    /// Whether it did it.
    run: Box<dyn FnMut() -> bool>,
}

impl Operation {
    fn new(name: String, calls: u32, run: impl FnMut() -> bool + 'static) -> Self {
        Self {
            name,
            calls,
            run: Box::new(run),
        }
    }
}

/// Nanoseconds of each.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let mut operations = model();
    for object in &run.objects {
        operations.extend(vm(&object.name, &object.bytes)?);
    }
    let rounds = run.rounds(40);
    let samples = Samples::take(operations.len(), rounds, &run.interrupt, |number| {
        let Operation { name, calls, run } = &mut operations[number];
        let (start, mut done) = (Instant::now(), true);
        for _ in 0..*calls {
            done &= run();
        }
        let time = start.elapsed();
        if !done {
            return Err(Error::Wrong {
                variant: name.clone(),
                what: "did something else".to_owned(),
            });
        }
        Ok(time.as_nanos() as f64 / f64::from(*calls))
    })?;
    let rows = operations.iter().enumerate();
    let row = |(number, operation): (usize, &Operation)| {
        Row::new("engines", &operation.name, "ns", samples.summary(number))
    };
    Ok(rows.map(row).collect())
}

/// Takes each frame and copies nothing.
struct Counted;

impl Sink for Counted {
    fn frame(&mut self, _: Port, _: u16, parts: &[&[u8]]) {
        black_box(parts);
    }
}

/// Copies each frame into one buffer, as a transmit ring would take it.
#[derive(Default)]
struct Copied(Vec<u8>);

impl Sink for Copied {
    fn frame(&mut self, _: Port, _: u16, parts: &[&[u8]]) {
        self.0.clear();
        for part in parts {
            self.0.extend_from_slice(part);
        }
        black_box(self.0.as_slice());
    }
}

fn model() -> Vec<Operation> {
    let mut all = Vec::new();
    for (shape, udp) in SHAPES {
        for len in [64, LEN, 1400] {
            let name = format!("model, encapsulate, {shape}, {len} bytes");
            all.push(egress(name, udp, len, 0, Counted));
        }
        let name = format!("model, encapsulate, {shape}, {LEN} bytes, frame copied out");
        all.push(egress(name, udp, LEN, 0, Copied::default()));
        let name = format!("model, 64 KB in segments, {shape}");
        all.push(egress(name, udp, SUPER_LEN, SEGMENT, Counted));

        let frame = encapsulated(udp);
        let mut host = receiver();
        let name = format!("model, decapsulate, {shape}");
        all.push(Operation::new(name, 50_000, move || {
            let packet = packet(black_box(&frame), 0);
            host.ingress(packet, &mut Counted) == Reason::Decapsulated
        }));
        let (frame, host) = (encapsulated(udp), receiver());
        let name = format!("model, reflection's parsing, {shape}");
        all.push(Operation::new(name, 50_000, move || {
            reflection::parse(black_box(&packet(&frame, 0)), host.tunnels()).is_ok()
        }));
    }
    for (name, option, value) in [
        ("ENCAP_GW", ENCAP_GW, &GATEWAY[..]),
        ("ENCAP_UDP", ENCAP_UDP, &UDP8),
    ] {
        let mut socket = bare();
        all.push(Operation::new(
            format!("model, {name}"),
            50_000,
            move || socket.set_option(&config(), option, black_box(value)) == Ok(()),
        ));
    }
    all
}

fn egress(
    name: String,
    udp: &[u8],
    len: usize,
    gso_size: u16,
    mut sink: impl Sink + 'static,
) -> Operation {
    let (mut host, socket, bytes) = (Host::new(config()), socket(udp), tcp(len));
    let calls = if gso_size > 0 { 500 } else { 50_000 };
    Operation::new(name, calls, move || {
        let packet = packet(black_box(&bytes), gso_size);
        let egress = host.egress(Some(black_box(&socket)), packet, &mut sink);
        egress.reason == Reason::Encapsulated
    })
}

fn config() -> Config {
    Config {
        source: [0xfd; 16],
        source4: [10, 0, 0, 1],
        uplink_mtu: 1500,
        ..Config::default()
    }
}

fn bare() -> Socket {
    Socket::new(SocketKind {
        family: AF_INET6,
        ty: 1,
        protocol: 6,
    })
}

fn socket(udp: &[u8]) -> Socket {
    let mut socket = bare();
    // Refused, the operation would do something else.
    let _ = socket.set_option(&config(), ENCAP_GW, &GATEWAY);
    let _ = socket.set_option(&config(), ENCAP_UDP, udp);
    socket
}

/// Tunnels at which both shapes arrive.
fn tunnels() -> [(TunnelKey, TunnelSpec); 2] {
    [(41, [0; 2], 0), (17, [0x12, 0x34], 8)].map(|(protocol, port, header_len)| {
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
        (key, spec)
    })
}

fn receiver() -> Host {
    let mut host = Host::new(config());
    for (key, spec) in tunnels() {
        host.add_tunnel(key, spec);
    }
    host
}

/// What a socket's packet is on the wire, from the IP header on.
fn encapsulated(udp: &[u8]) -> Vec<u8> {
    let mut frames: Vec<Frame> = Vec::new();
    Host::new(config()).egress(Some(&socket(udp)), packet(&tcp(LEN), 0), &mut frames);
    frames.pop().map_or_else(Vec::new, |frame| frame.bytes)
}

fn packet(bytes: &[u8], gso_size: u16) -> Packet<'_> {
    Packet {
        ethertype: V6,
        bytes,
        gso_size,
    }
}

/// TCP in IPv6, `len` bytes in all.
fn tcp(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(((len - 40) as u16).to_be_bytes());
    bytes.extend([6, 64]);
    for last in [1, 2] {
        bytes.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend([
        4, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(len, 0xa5);
    bytes
}

/// What the frame is for, in the vm.
#[derive(Clone, Copy)]
enum Leaves {
    Through(&'static [u8]),
    AsItCame,
}

fn vm(object: &str, bytes: &[u8]) -> Result<Vec<Operation>, Error> {
    let mut all = Vec::new();
    let ways = SHAPES.map(|(shape, udp)| (shape, Leaves::Through(udp)));
    let more = [("no exit", true), ("no socket", false)];
    let more = more.map(|(name, has)| (name, has, Leaves::AsItCame));
    let ways = ways.map(|(name, leaves)| (name, true, leaves));
    for (name, has_socket, leaves) in ways.into_iter().chain(more) {
        let mut machine = machine(bytes)?;
        let socket = has_socket.then(|| machine.open_socket(vm_kind()));
        if let (Some(socket), Leaves::Through(udp)) = (socket, leaves) {
            for (option, value) in [(ENCAP_GW, &GATEWAY[..]), (ENCAP_UDP, udp)] {
                machine
                    .set_option(object::SET_OPTION, socket, SOL_DYNENCAP, option, value)
                    .map_err(Error::reference("vm"))?;
            }
        }
        let frame = ethernet(&tcp(LEN));
        let mut skb = Skb::default();
        let name = format!("vm, egress, {name}, {object}");
        all.push(Operation::new(name, 2000, move || {
            skb.reset(black_box(&frame), V6);
            skb.socket = socket;
            skb.mark = socket.map_or(0, |socket| machine.mark(socket));
            let ran = machine.run_tc(object::EGRESS, &mut skb).is_ok();
            let is_longer = skb.data().len() > frame.len();
            ran && is_longer == matches!(leaves, Leaves::Through(_))
        }));
    }
    for (name, udp) in SHAPES {
        let mut machine = machine(bytes)?;
        let frame = ethernet(&encapsulated(udp));
        let mut skb = Skb::default();
        let name = format!("vm, ingress, {name}, {object}");
        all.push(Operation::new(name, 2000, move || {
            skb.reset(black_box(&frame), V6);
            let ran = machine.run_tc(object::INGRESS, &mut skb).is_ok();
            ran && skb.data().len() < frame.len()
        }));
    }
    Ok(all)
}

const fn vm_kind() -> dynencap_vm::SocketKind {
    dynencap_vm::SocketKind {
        family: AF_INET6,
        ty: 1,
        protocol: 6,
    }
}

/// A machine with a configured host at which both shapes arrive.
pub fn machine(bytes: &[u8]) -> Result<Machine, Error> {
    let failed = || Error::reference("vm");
    let mut machine = Machine::load(bytes).map_err(Error::reference("vm"))?;
    machine
        .update_map(object::CONFIG, &[0; 4], &config().to_bytes())
        .map_err(failed())?;
    for (key, spec) in tunnels() {
        machine
            .update_map(object::TUNNELS, &key.to_bytes(), &spec.to_bytes())
            .map_err(failed())?;
    }
    Ok(machine)
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(V6.to_be_bytes());
    frame.extend(packet);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_does_what_it_is_here_for() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/bpf/dynencap.bpf.o");
        let object = std::fs::read(path).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for mut operation in model().into_iter().chain(vm("dynencap", &object).unwrap()) {
            assert!((operation.run)(), "{}", operation.name);
            assert!(names.insert(operation.name.clone()), "{}", operation.name);
        }
    }
}
