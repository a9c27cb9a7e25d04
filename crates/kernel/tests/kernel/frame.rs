//! Packets written out by hand, and checksums summed the slow way.

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// The bytes of an IPv6 address.
pub(crate) fn address(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// An IPv6 packet without extension headers, traffic class 0xb9 (EF, ECT(1)), hop limit 61.
pub(crate) fn ipv6(next_header: u8, source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![
        0x6b,
        0x91,
        0x23,
        0x45,
        length[0],
        length[1],
        next_header,
        61,
    ];
    packet.extend(address(source));
    packet.extend(address(destination));
    packet.extend(payload);
    packet
}

/// A TCP segment from port 1024 to 443 with a valid checksum, inside IPv6 from 2001:db8::1
/// to 2001:db8::2: the second vector of the flow hash.
pub(crate) fn tcp_in_ipv6(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = tcp(1024, 443, flags, payload);
    let (source, destination) = ("2001:db8::1", "2001:db8::2");
    let pseudo = pseudo_header(&address(source), &address(destination), 6, segment.len());
    let checksum = !sum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    ipv6(6, source, destination, &segment)
}

/// A TCP segment from port 40000 to 80 inside IPv4 from 192.0.2.1 to 198.51.100.7: the
/// seventh vector of the flow hash. ToS 0x2e, TTL 57.
pub(crate) fn tcp_in_ipv4(payload: &[u8]) -> Vec<u8> {
    let mut segment = tcp(40000, 80, 0x10, payload);
    let (source, destination) = ([192, 0, 2, 1], [198, 51, 100, 7]);
    let pseudo = pseudo_header(&source, &destination, 6, segment.len());
    let checksum = !sum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    let length = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
    let mut packet = vec![
        0x45, 0x2e, length[0], length[1], 0x12, 0x34, 0x40, 0, 57, 6, 0, 0, //
        192, 0, 2, 1, 198, 51, 100, 7,
    ];
    let checksum = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(segment);
    packet
}

fn tcp(source: u16, destination: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (source.to_be_bytes(), destination.to_be_bytes());
    let mut segment = vec![
        source[0],
        source[1],
        destination[0],
        destination[1], //
        0,
        0,
        0x10,
        0, // sequence number 4096
        0,
        0,
        0x20,
        0, // acknowledgement
        0x50,
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ];
    segment.extend(payload);
    segment
}

/// A UDP datagram in IPv6 with a valid checksum.
pub(crate) fn udp_in_ipv6(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut datagram = vec![0x04, 0, 0x01, 0xbb, length[0], length[1], 0, 0];
    datagram.extend(payload);
    let (source, destination) = ("2001:db8::1", "2001:db8::2");
    let pseudo = pseudo_header(&address(source), &address(destination), 17, datagram.len());
    let checksum = !sum(&[&pseudo, &datagram]);
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    ipv6(17, source, destination, &datagram)
}

/// Whether the transport checksum of an IPv6 packet without extension headers is right.
pub(crate) fn checksum_is_valid(packet: &[u8]) -> bool {
    let (header, payload) = packet.split_at(40);
    let pseudo = pseudo_header(&header[8..24], &header[24..40], header[6], payload.len());
    sum(&[&pseudo, payload]) == 0xffff
}

/// `length` bytes that differ from their neighbours.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [source, destination, &length, &[0, 0, 0, protocol]].concat()
}

/// The Internet checksum's sum (RFC 1071) over parts of which all but the last are even.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
