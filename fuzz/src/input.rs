//! Inputs: option calls, a host's configuration, a packet. What is drawn from the head is
//! combined with a default by exclusive or, or by addition.

use arbitrary::{Arbitrary, Unstructured};
use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP, GATEWAY_LEN, PORTS_LEN};
use dynencap_abi::{Config, MAX_HEADER_LEN, MAX_UPLINK_MTU, MIN_UPLINK_MTU, TunnelKey, TunnelSpec};
use dynencap_model::{Frame, Packet, Port};

/// The exit that a head of zeros gives.
const GATEWAY: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
/// Ports 0 and 6080.
const PORTS: [u8; PORTS_LEN] = [0, 0, 0x17, 0xc0];
const CUSTOM_LEN: usize = 8;
const LONGEST: usize = PORTS_LEN + MAX_HEADER_LEN + 4;

/// One `setsockopt` or `getsockopt` call.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Call {
    name: u8,
    len: u8,
    value: [u8; LONGEST],
}

impl Call {
    /// The option's name; a head of zeros sets gateway and ports by turns.
    pub fn name(&self, index: usize) -> i32 {
        let turn = if index.is_multiple_of(2) {
            ENCAP_GW
        } else {
            ENCAP_UDP
        };
        turn ^ i32::from(self.name)
    }

    /// The option's value, mostly one of a valid length.
    pub fn value(&self, index: usize) -> Vec<u8> {
        let mut value = self.value;
        let (default, len): (&[u8], usize) = if self.name(index) == ENCAP_GW {
            (&GATEWAY, GATEWAY_LEN)
        } else {
            (&PORTS, PORTS_LEN + CUSTOM_LEN)
        };
        for (byte, default) in value.iter_mut().zip(default) {
            *byte ^= default;
        }
        let len = len.wrapping_add_signed(isize::from(self.len as i8));
        value.get(..len).unwrap_or_default().to_vec()
    }

    /// The buffer of a call that reads.
    pub fn capacity(&self) -> usize {
        usize::from(self.len)
    }
}

/// A host's configuration and the tunnels that end on it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Hosting {
    source: [u8; 16],
    uplink_mtu: u32,
    flags: u32,
    tunnel_header_len: u8,
    tunnel_port: [u8; 2],
    tunnel_address: [u8; 16],
}

impl Hosting {
    /// The configuration; a head of zeros permits packet sockets.
    pub fn config(&self) -> Config {
        let mut source = SOURCE;
        for (byte, change) in source.iter_mut().zip(self.source) {
            *byte ^= change;
        }
        Config {
            source,
            uplink_mtu: 1500 ^ self.uplink_mtu,
            flags: Config::ALLOW_PACKET_SOCKETS ^ self.flags,
            ..Config::default()
        }
    }

    /// The configuration with an MTU that an uplink can have.
    pub fn valid_config(&self) -> Config {
        let config = self.config();
        Config {
            uplink_mtu: config.uplink_mtu.clamp(MIN_UPLINK_MTU, MAX_UPLINK_MTU),
            ..config
        }
    }

    /// Tunnels that reflect: those of [`Hosting::tunnels`], and on the next ports GUE and Geneve.
    pub fn reflecting(&self) -> Vec<(TunnelKey, TunnelSpec)> {
        let mut tunnels = self.tunnels().to_vec();
        if let Some((key, spec)) = tunnels.last().copied() {
            for (nth, format) in [TunnelSpec::GUE, TunnelSpec::GENEVE]
                .into_iter()
                .enumerate()
            {
                let port = u16::from_be_bytes(key.port).wrapping_add(1 + nth as u16);
                let port = port.to_be_bytes();
                tunnels.push((TunnelKey { port, ..key }, TunnelSpec { format, ..spec }));
            }
        }
        for (_, spec) in &mut tunnels {
            spec.flags = TunnelSpec::REFLECT;
        }
        tunnels
    }

    /// One tunnel of each kind.
    pub fn tunnels(&self) -> [(TunnelKey, TunnelSpec); 3] {
        let mut address = GATEWAY;
        for (byte, change) in address.iter_mut().zip(self.tunnel_address) {
            *byte ^= change;
        }
        let tunnel = |protocol, port, header_len| {
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
            (key, spec)
        };
        let port = [
            PORTS[2] ^ self.tunnel_port[0],
            PORTS[3] ^ self.tunnel_port[1],
        ];
        let header_len = (CUSTOM_LEN as u8 ^ self.tunnel_header_len) % (MAX_HEADER_LEN as u8 + 1);
        [
            tunnel(4, [0; 2], 0),
            tunnel(41, [0; 2], 0),
            tunnel(17, port, header_len),
        ]
    }
}

/// How a packet departs from the bytes at the input's end.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Shape {
    ethertype: u16,
    gso_size: u16,
    longer_by: u16,
    mend: u8,
}

/// The packet: its Ethernet type goes by the version, and by the head; on demand it is longer
/// than an input can be, and its length field right.
pub fn frame(shape: &Shape, rest: &[u8]) -> Frame {
    let mut bytes = rest.to_vec();
    bytes.resize(bytes.len() + usize::from(shape.longer_by), 0);
    let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
    if shape.mend & 1 == 1 {
        let (at, total) = if is_v4 {
            (2, bytes.len())
        } else {
            (4, bytes.len().wrapping_sub(40))
        };
        if let Some(field) = bytes.get_mut(at..at + 2) {
            field.copy_from_slice(&(total as u16).to_be_bytes());
        }
    }
    Frame {
        port: Port::Wire,
        ethertype: shape.ethertype ^ if is_v4 { 0x0800 } else { 0x86dd },
        bytes,
    }
}

impl Shape {
    /// The frame as the model takes it.
    pub fn packet<'a>(&self, frame: &'a Frame) -> Packet<'a> {
        Packet {
            ethertype: frame.ethertype,
            bytes: &frame.bytes,
            gso_size: self.gso_size,
        }
    }
}

/// A head and what follows it.
pub type Split<'a, H> = (H, &'a [u8]);

/// Takes the head off; `None` where the input is shorter than it.
pub fn split<'a, H: Arbitrary<'a>>(data: &'a [u8]) -> Option<Split<'a, H>> {
    if data.len() < H::size_hint(0).0 {
        return None;
    }
    let mut unstructured = Unstructured::new(data);
    let head = H::arbitrary(&mut unstructured).ok()?;
    Some((head, unstructured.take_rest()))
}
