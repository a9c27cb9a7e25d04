//! The captures: for each its name, what it is for, how the traffic is made, and the conditions
//! without which it would be worthless. Each kind of traffic has a module of its own.

use std::path::{Path, PathBuf};

use super::program::{
    CURL, DIG, DNSMASQ, ETHTOOL, IP, IPERF3, NGINX, Program, TCPDUMP, TSHARK, UNSHARE,
};
use super::verify::{Condition, frames};

mod bulk;
mod closing;
mod dns;
mod http;
mod loss;
mod quic;
mod vlan;

/// One capture to record.
pub(super) struct Scene {
    /// The file's name; its extension says the format.
    pub(super) file: &'static str,
    pub(super) what: &'static str,
    /// The programs whose traffic it is, beside `TOOLS`.
    pub(super) programs: &'static [Program],
    /// Makes the traffic; the raw pcap. `home` is an empty directory for files of the moment.
    pub(super) record: fn(home: &Path) -> anyhow::Result<PathBuf>,
    pub(super) conditions: &'static [Condition],
}

impl Scene {
    /// The file's name without its extension, by which `--only` asks for it.
    pub(super) fn name(&self) -> &'static str {
        self.file
            .split_once('.')
            .map_or(self.file, |(name, _)| name)
    }
}

/// What every scene needs.
pub(super) const TOOLS: [Program; 5] = [IP, ETHTOOL, TCPDUMP, TSHARK, UNSHARE];

/// Every capture, in the order of recording.
pub(super) const SCENES: [Scene; 8] = [
    Scene {
        file: "http.pcapng",
        what: "HTTP/1.1 with keep-alive: GET of several sizes, HEAD, 404, over IPv4 and IPv6",
        programs: &[CURL, NGINX],
        record: http::keep_alive,
        conditions: &[
            frames("ip && http.request", 6),
            frames("ipv6 && http.request", 6),
            frames("http.response.code == 404", 2),
            frames("ip && tcp.flags.syn == 1 && tcp.flags.ack == 0", 1),
            frames("ipv6 && tcp.flags.syn == 1 && tcp.flags.ack == 0", 1),
            frames("tcp.checksum.status == \"Good\"", 40),
        ],
    },
    Scene {
        file: "bulk-tso.pcap",
        what: "bulk TCP captured at a sender with TSO: super-packets with partial checksums",
        programs: &[IPERF3],
        record: bulk::super_packets,
        conditions: &[
            frames("ip && tcp.len > 1460", 5),
            frames("ipv6 && tcp.len > 1440", 5),
            frames("ip && frame.len > 32768", 1),
            frames("ipv6 && frame.len > 32768", 1),
        ],
    },
    Scene {
        file: "dns.pcap",
        what: "DNS queries (A, AAAA, TXT, no such name) over UDP and TCP, IPv4 and IPv6",
        programs: &[DIG, DNSMASQ],
        record: dns::lookups,
        conditions: &[
            frames("ip && udp && dns.flags.response == 1 && dns.a", 1),
            frames("ipv6 && udp && dns.flags.response == 1 && dns.aaaa", 1),
            frames("udp && dns.txt", 2),
            frames("ip && tcp && dns.flags.response == 1", 4),
            frames("ipv6 && tcp && dns.flags.response == 1", 4),
            frames("dns.flags.rcode == 3", 4),
            frames("udp.checksum.status == \"Good\"", 16),
        ],
    },
    Scene {
        file: "udp-segment.pcap",
        what: "UDP_SEGMENT (1,200 bytes) captured at the sender before segmentation, \
               with the receiver's small replies",
        programs: &[],
        record: quic::super_datagrams,
        conditions: &[
            frames("ip && udp.length > 1480", 4),
            frames("ipv6 && udp.length > 1460", 4),
            frames("ip && udp.length > 32768", 1),
            frames("ipv6 && udp.length > 32768", 1),
            frames("udp.length < 100", 4),
        ],
    },
    Scene {
        file: "sack-loss.pcap",
        what: "bulk TCP over a wire that loses some full segments, captured at the sender: SACK \
               (several blocks) and retransmissions, IPv4 and IPv6",
        programs: &[CURL, NGINX],
        record: loss::download,
        conditions: &[
            frames("ip && tcp.options.sack_le", 3),
            frames("ipv6 && tcp.options.sack_le", 3),
            // tshark takes what comes within 3 ms for reordering; at a sender both are resends.
            frames(
                "ip && (tcp.analysis.retransmission || tcp.analysis.out_of_order)",
                3,
            ),
            frames(
                "ipv6 && (tcp.analysis.retransmission || tcp.analysis.out_of_order)",
                3,
            ),
            frames("tcp.analysis.retransmission", 1),
            frames("tcp.options.sack.count > 1", 1),
            frames("tcp.checksum.status == \"Good\"", 200),
        ],
    },
    Scene {
        file: "teardown.pcap",
        what: "the ends of TCP connections: a FIN repeated into TIME_WAIT and answered, a \
               half-close, an abort (SO_LINGER 0), a closed port; IPv4 and IPv6",
        programs: &[],
        record: closing::endings,
        conditions: &[
            frames("ip && tcp.flags.fin == 1 && tcp.analysis.retransmission", 1),
            frames(
                "ipv6 && tcp.flags.fin == 1 && tcp.analysis.retransmission",
                1,
            ),
            frames("tcp.flags.reset == 1 && tcp.seq == 1 && tcp.ack == 1", 2),
            frames("ip && tcp.flags.reset == 1", 2),
            frames("ipv6 && tcp.flags.reset == 1", 2),
            frames("tcp.flags.fin == 1", 10),
        ],
    },
    Scene {
        file: "vlan.pcap",
        what: "a trunk with 802.1Q tags (VLAN 42): ARP, neighbour discovery, echo requests whole \
               and in fragments (3,000 bytes), HTTP, over IPv4 and IPv6",
        programs: &[CURL, NGINX],
        record: vlan::trunk,
        conditions: &[
            frames("vlan.id == 42 && arp", 2),
            frames("vlan.id == 42 && icmpv6.type == 135", 1),
            frames("vlan.id == 42 && icmpv6.type == 136", 1),
            frames("vlan.id == 42 && icmp.type == 8", 2),
            frames("vlan.id == 42 && icmp.type == 0", 2),
            frames("vlan.id == 42 && icmpv6.type == 129", 2),
            frames("vlan.id == 42 && ip.flags.mf == 1", 2),
            frames("vlan.id == 42 && ipv6.fraghdr.more == 1", 2),
            frames("vlan.id == 42 && ip && http.request", 1),
            frames("vlan.id == 42 && ipv6 && http.request", 1),
        ],
    },
    Scene {
        file: "any-sll2.pcap",
        what: "tcpdump -i any (LINUX_SLL2) at a server: HTTP over eth0 and over the loopback, \
               IPv4 and IPv6",
        programs: &[CURL, NGINX],
        record: http::on_any_device,
        conditions: &[
            frames("sll && ip && http.request", 2),
            frames("sll && ipv6 && http.request", 2),
            frames("sll.pkttype == 0", 4),
            frames("sll.pkttype == 4", 4),
            frames("ip.dst == 127.0.0.1", 4),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::SCENES;

    #[test]
    fn names_are_unique_and_formats_are_known() {
        for (index, scene) in SCENES.iter().enumerate() {
            assert!(
                SCENES
                    .iter()
                    .skip(index + 1)
                    .all(|other| other.name() != scene.name())
            );
            assert!(scene.file.ends_with(".pcap") || scene.file.ends_with(".pcapng"));
            assert!(
                !scene.conditions.is_empty(),
                "{} may be anything",
                scene.file
            );
        }
    }
}
