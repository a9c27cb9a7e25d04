//! Link types: which ones can be replayed, and how the others are called in refusals.
//! Numbers are the LINKTYPE registry's.

/// What stands in front of a packet's network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// BSD loopback: address family in the capturing machine's byte order.
    Null,
    /// Ethernet.
    Ethernet,
    /// An IP packet of either version.
    Raw,
    /// OpenBSD loopback: address family in network byte order.
    Loop,
    /// Linux "cooked" capture.
    LinuxSll,
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
    /// Linux "cooked" capture, version 2.
    LinuxSll2,
}

impl LinkType {
    /// Every link type that can be replayed.
    pub const ALL: [LinkType; 8] = [
        LinkType::Null,
        LinkType::Ethernet,
        LinkType::Raw,
        LinkType::Loop,
        LinkType::LinuxSll,
        LinkType::Ipv4,
        LinkType::Ipv6,
        LinkType::LinuxSll2,
    ];

    /// From the number in a file.
    pub fn from_number(number: u32) -> Option<LinkType> {
        match number {
            // DLT_RAW is 12, on OpenBSD 14; writers that skip the mapping store it as it is.
            12 | 14 => Some(LinkType::Raw),
            _ => LinkType::ALL
                .into_iter()
                .find(|known| u32::from(known.number()) == number),
        }
    }

    /// The number to write into a file.
    pub const fn number(self) -> u16 {
        match self {
            LinkType::Null => 0,
            LinkType::Ethernet => 1,
            LinkType::Raw => 101,
            LinkType::Loop => 108,
            LinkType::LinuxSll => 113,
            LinkType::Ipv4 => 228,
            LinkType::Ipv6 => 229,
            LinkType::LinuxSll2 => 276,
        }
    }

    /// The registry's name.
    pub const fn name(self) -> &'static str {
        match self {
            LinkType::Null => "NULL",
            LinkType::Ethernet => "ETHERNET",
            LinkType::Raw => "RAW",
            LinkType::Loop => "LOOP",
            LinkType::LinuxSll => "LINUX_SLL",
            LinkType::Ipv4 => "IPV4",
            LinkType::Ipv6 => "IPV6",
            LinkType::LinuxSll2 => "LINUX_SLL2",
        }
    }

    /// The supported ones, for refusals.
    pub(super) fn supported() -> String {
        LinkType::ALL
            .map(|known| format!("{} {}", known.name(), known.number()))
            .join(", ")
    }

    /// The registry's name of any number that captures are likely to bring.
    pub(super) fn name_of(number: u32) -> &'static str {
        if let Some(known) = LinkType::from_number(number) {
            return known.name();
        }
        UNSUPPORTED
            .iter()
            .find(|(known, _)| *known == number)
            .map_or("unknown", |(_, name)| name)
    }
}

const UNSUPPORTED: [(u32, &str); 46] = [
    (3, "AX25"),
    (6, "IEEE802_5"),
    (7, "ARCNET_BSD"),
    (8, "SLIP"),
    (9, "PPP"),
    (10, "FDDI"),
    (50, "PPP_HDLC"),
    (51, "PPP_ETHER"),
    (100, "ATM_RFC1483"),
    (104, "C_HDLC"),
    (105, "IEEE802_11"),
    (107, "FRELAY"),
    (114, "LTALK"),
    (117, "PFLOG"),
    (119, "IEEE802_11_PRISM"),
    (122, "IP_OVER_FC"),
    (123, "SUNATM"),
    (127, "IEEE802_11_RADIOTAP"),
    (129, "ARCNET_LINUX"),
    (138, "APPLE_IP_OVER_IEEE1394"),
    (139, "MTP2_WITH_PHDR"),
    (140, "MTP2"),
    (141, "MTP3"),
    (142, "SCCP"),
    (143, "DOCSIS"),
    (144, "LINUX_IRDA"),
    (147, "USER0"),
    (163, "IEEE802_11_AVS"),
    (165, "BACNET_MS_TP"),
    (166, "PPP_PPPD"),
    (187, "BLUETOOTH_HCI_H4"),
    (189, "USB_LINUX"),
    (192, "PPI"),
    (195, "IEEE802_15_4_WITHFCS"),
    (201, "BLUETOOTH_HCI_H4_WITH_PHDR"),
    (220, "USB_LINUX_MMAPPED"),
    (227, "CAN_SOCKETCAN"),
    (230, "IEEE802_15_4_NOFCS"),
    (239, "NFLOG"),
    (240, "NETANALYZER"),
    (247, "INFINIBAND"),
    (249, "USBPCAP"),
    (252, "WIRESHARK_UPPER_PDU"),
    (253, "NETLINK"),
    (258, "PKTAP"),
    (274, "ETHERNET_MPACKET"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_supported_type_is_found_by_its_number_and_the_rest_are_not() {
        for known in LinkType::ALL {
            assert_eq!(
                LinkType::from_number(u32::from(known.number())),
                Some(known)
            );
        }
        assert_eq!(LinkType::from_number(12), Some(LinkType::Raw));
        assert_eq!(LinkType::from_number(14), Some(LinkType::Raw));
        for (number, name) in UNSUPPORTED {
            assert_eq!(LinkType::from_number(number), None, "{name}");
            assert_eq!(LinkType::name_of(number), name);
        }
        assert_eq!(LinkType::name_of(65_000), "unknown");
    }
}
