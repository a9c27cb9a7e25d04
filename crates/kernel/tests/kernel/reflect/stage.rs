//! A host with real sockets behind real programs, and the far end of its wire, where frames are
//! made by hand: so that each can come by any path, late, early or forged.

use super::packet::{ACK, End, FIN, Left, SYN, Segment, Via, read, tcp, udp};
use crate::{client::octets, config, object};
use dynencap_abi::{Config, Event, Reason, TunnelSpec};
use dynencap_kernel::{DeviceProgram, Error, Lab, Loaded, sys};
use std::{
    fs,
    io::{IoSlice, Read},
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    process::Command,
    time::{Duration, Instant},
};

/// The host's own addresses and the client's.
pub(crate) const SERVER: [&str; 2] = ["2001:db8:1::5", "10.1.0.5"];
pub(crate) const CLIENT: [&str; 2] = ["2001:db8:2::7", "10.2.0.7"];
/// Gateways at the far end.
pub(crate) const GATEWAYS: [&str; 3] = ["2001:db8:9::1", "2001:db8:9::2", "2001:db8:9::3"];

pub(crate) struct Stage {
    pub(crate) loaded: Loaded,
    wire: OwnedFd,
    link: sys::Link,
    ethernet: [u8; 6],
    custom_len: usize,
    lab: Lab,
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Stage {
    /// Reflection on, with these flags of the configuration beside.
    pub(crate) fn new(flags: u32) -> Self {
        Self::sized(flags, dynencap_abi::object::MAX_REFLECTED)
    }

    pub(crate) fn sized(flags: u32, reflected: u32) -> Self {
        let programs = [DeviceProgram::Egress, DeviceProgram::Ingress];
        let lab = Lab::new().unwrap();
        let mut loaded = Loaded::load_sized(object(), &programs, reflected).unwrap();
        let config = Config {
            source4: [10, 5, 0, 5],
            flags: Config::REFLECT | flags,
            ..config()
        };
        loaded.set_config(&config).unwrap();
        loaded.attach_cgroup(lab.cgroup().open().unwrap()).unwrap();
        loaded.attach_device(lab.host(), "up0", &programs).unwrap();
        let ethernet = lab.host().in_namespace(|| Ok(addresses())).unwrap();
        let (wire, link) = lab
            .peer()
            .in_namespace(|| {
                let socket = sys::packet_socket().unwrap();
                let link = sys::Link::named("up1").unwrap();
                sys::bind_packet(socket.as_fd(), link, 3).unwrap();
                Ok((socket, link))
            })
            .unwrap();
        Self {
            loaded,
            wire,
            link,
            ethernet,
            custom_len: 0,
            lab,
        }
    }

    /// Lets packets come by it, for reflection.
    pub(crate) fn tunnel(&mut self, via: &Via, inner_is_ipv4: bool, format: u8) {
        self.tunnel_with(via, inner_is_ipv4, format, TunnelSpec::REFLECT);
    }

    /// The same with these flags of `TunnelSpec`.
    pub(crate) fn tunnel_with(&mut self, via: &Via, inner_is_ipv4: bool, format: u8, flags: u8) {
        let custom_len = via.udp.as_ref().map_or(0, |(_, custom)| custom.len());
        let spec = TunnelSpec {
            header_len: if format == TunnelSpec::FIXED {
                custom_len as u8
            } else {
                0
            },
            flags,
            format,
            reserved: 0,
        };
        self.custom_len = custom_len;
        self.loaded
            .add_tunnel(&via.key(inner_is_ipv4), &spec)
            .unwrap();
    }

    /// Runs `work` as a program on the host.
    pub(crate) fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let result = self.lab.host().in_namespace(|| Ok::<_, Error>(work()));
        result.unwrap()
    }

    /// A command of `ip` on the host.
    pub(crate) fn ip(&self, command: &str) {
        self.on_host(|| run(&format!("ip {command}")));
    }

    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        self.on_host(|| fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }

    /// Gives every packet that comes in this mark, as a firewall would.
    pub(crate) fn mark_what_comes(&self, mark: u32) {
        self.on_host(|| {
            run("nft add table inet t");
            run("nft add chain inet t c { type filter hook prerouting priority 0; }");
            run(&format!("nft add rule inet t c meta mark set {mark}"));
        });
    }

    /// Makes a cgroup below the lab's; its id.
    pub(crate) fn make_cgroup(&self, name: &str) -> u64 {
        let path = self.lab.cgroup().child(name).unwrap();
        fs::metadata(path).unwrap().ino()
    }

    /// Id of the lab's own cgroup, in which programs are unless told otherwise.
    pub(crate) fn cgroup(&self) -> u64 {
        fs::metadata(self.lab.cgroup().path()).unwrap().ino()
    }

    /// Runs `work` as a program on the host, in that cgroup.
    pub(crate) fn inside<T: Send>(&self, cgroup: &str, work: impl FnOnce() -> T + Send) -> T {
        let own = self.lab.cgroup().path();
        let pid = std::process::id().to_string();
        fs::write(own.join(cgroup).join("cgroup.procs"), &pid).unwrap();
        let result = self.on_host(work);
        fs::write(own.join("cgroup.procs"), &pid).unwrap();
        result
    }

    /// Puts a packet on the wire to the host.
    pub(crate) fn send(&self, packet: &[u8]) {
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let mut header = self.ethernet.to_vec();
        header.extend([2, 0, 0, 0, 0, 1]);
        header.extend(u16::to_be_bytes(ethertype));
        let pieces = [IoSlice::new(&header), IoSlice::new(packet)];
        sys::send_frame(self.wire.as_fd(), self.link, ethertype, &pieces).unwrap();
    }

    /// The next packet of TCP or UDP that leaves the host within that time.
    pub(crate) fn left_within(&self, time: Duration) -> Option<Left> {
        let end = Instant::now() + time;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            let waited = !rest.is_zero() && sys::wait_readable(self.wire.as_fd(), rest).unwrap();
            if !waited {
                return None;
            }
            let mut frame = [0; 4096];
            let length = read_frame(&self.wire, &mut frame);
            let bytes = &frame[14..length];
            if let Some(left) = read(bytes, self.custom_len) {
                return Some(left);
            }
        }
    }

    /// The next one, which must come.
    #[track_caller]
    pub(crate) fn left(&self) -> Left {
        self.left_within(Duration::from_secs(3)).expect("a packet")
    }

    /// Nothing leaves for that port, though a packet and its repetition might.
    #[track_caller]
    pub(crate) fn nothing_left_for(&self, port: u16) {
        while let Some(left) = self.left_within(Duration::from_millis(500)) {
            assert_ne!(left.to.1, port, "{left:?}");
        }
    }

    pub(crate) fn event(&self, event: Event) -> u64 {
        self.loaded.events().unwrap()[event as usize]
    }

    pub(crate) fn counted(&self, reason: Reason) -> u64 {
        self.loaded.counters().unwrap()[reason as usize]
    }
}

fn read_frame(socket: &OwnedFd, into: &mut [u8]) -> usize {
    let mut file = fs::File::from(socket.try_clone().unwrap());
    file.read(into).unwrap()
}

/// Gives the host its addresses and routes; the uplink's Ethernet address.
fn addresses() -> [u8; 6] {
    for path in ["all", "up0", "lo"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{path}/disable_ipv6"), "0").unwrap();
    }
    fs::write("/proc/sys/net/ipv6/conf/up0/router_solicitations", "0").unwrap();
    run("ip link set lo up");
    run(&format!("ip addr add {}/32 dev up0", SERVER[1]));
    run(&format!("ip addr add {}/128 dev up0 nodad", SERVER[0]));
    // The kernel takes an IPv6 address into use by and by.
    let is_local = || run("ip -6 route show table local").contains(SERVER[0]);
    let until = Instant::now() + Duration::from_secs(5);
    while !is_local() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    run("ip route add default dev up0");
    run("ip -6 route add default dev up0");
    let shown = run("ip -o link show up0");
    let address = shown.split("link/ether ").nth(1).unwrap();
    let mut bytes = [0; 6];
    for (byte, text) in bytes.iter_mut().zip(address[..17].split(':')) {
        *byte = u8::from_str_radix(text, 16).unwrap();
    }
    bytes
}

/// A TCP client at the far end.
pub(crate) struct Client<'s> {
    pub(crate) stage: &'s Stage,
    pub(crate) own: End,
    pub(crate) server: End,
    /// The next sequence number of either side.
    pub(crate) sequence: u32,
    pub(crate) expected: u32,
    pub(crate) class: u8,
}

impl<'s> Client<'s> {
    pub(crate) fn new(stage: &'s Stage, port: u16, server: (&str, u16)) -> Self {
        let server: End = (server.0.parse().unwrap(), server.1);
        let own: IpAddr = CLIENT[usize::from(server.0.is_ipv4())].parse().unwrap();
        Self {
            stage,
            own: (own, port),
            server,
            sequence: 1000,
            expected: 0,
            class: 0,
        }
    }

    /// A packet of this connection; what it holds counts as sent.
    pub(crate) fn packet(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let segment = Segment {
            sequence: self.sequence,
            acknowledgement: if flags & ACK == 0 { 0 } else { self.expected },
            flags,
            payload: payload.to_vec(),
        };
        self.sequence = self
            .sequence
            .wrapping_add(payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
        tcp(self.own, self.server, self.class, &segment)
    }

    pub(crate) fn send(&mut self, via: &Via, flags: u8, payload: &[u8]) {
        let packet = self.packet(flags, payload);
        self.stage.send(&via.wrap(&packet));
    }

    /// The server's next packet; what it holds counts as received. What others get is none of
    /// this one's business.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Left {
        let mut left = self.stage.left();
        while left.to != self.own {
            left = self.stage.left();
        }
        assert_eq!((left.from, left.to), (self.server, self.own));
        let segment = &left.segment;
        let length = segment.payload.len() as u32 + u32::from(segment.flags & (SYN | FIN) != 0);
        self.expected = segment.sequence.wrapping_add(length);
        left
    }

    /// SYN, SYN-ACK, ACK; the SYN-ACK's way.
    #[track_caller]
    pub(crate) fn connect(&mut self, via: &Via) -> Option<Via> {
        self.send(via, SYN, &[]);
        let answer = self.receive();
        assert_eq!(answer.segment.flags & (SYN | ACK), SYN | ACK);
        self.send(via, ACK, &[]);
        answer.path().cloned()
    }
}

/// A UDP packet of a client at the far end.
pub(crate) fn datagram(port: u16, server: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let server: End = (server.0.parse().unwrap(), server.1);
    let own: IpAddr = CLIENT[usize::from(server.0.is_ipv4())].parse().unwrap();
    udp((own, port), server, payload)
}

/// As a map holds it.
pub(crate) fn gateway(via: &Via) -> [u8; 16] {
    octets(&via.gateway.to_string())
}
