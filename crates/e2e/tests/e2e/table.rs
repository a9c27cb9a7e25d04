//! Ordinary options of ordinary sockets: for each, what comes of setting it and what it then
//! reads as.

use dynencap_e2e::socket::{get, set};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Level, name, value: `asm-generic/socket.h`.
const SOCKET: &[(i32, i32)] = &[
    (2, 1),          // SO_REUSEADDR
    (5, 1),          // SO_DONTROUTE
    (6, 1),          // SO_BROADCAST
    (7, 20_000),     // SO_SNDBUF
    (8, 20_000),     // SO_RCVBUF
    (9, 1),          // SO_KEEPALIVE
    (10, 1),         // SO_OOBINLINE
    (12, 3),         // SO_PRIORITY
    (15, 1),         // SO_REUSEPORT
    (16, 1),         // SO_PASSCRED
    (18, 5),         // SO_RCVLOWAT
    (29, 1),         // SO_TIMESTAMP
    (35, 1),         // SO_TIMESTAMPNS
    (36, 9),         // SO_MARK: refused to nobody
    (40, 1),         // SO_RXQ_OVFL
    (41, 1),         // SO_WIFI_STATUS
    (44, 1),         // SO_LOCK_FILTER
    (45, 1),         // SO_SELECT_ERR_QUEUE
    (46, 10),        // SO_BUSY_POLL: refused to nobody
    (47, 1_000_000), // SO_MAX_PACING_RATE
    (60, 1),         // SO_ZEROCOPY
];

/// `linux/in.h`, level 0.
const IPV4: &[(i32, i32)] = &[
    (1, 0x28), // IP_TOS
    (2, 33),   // IP_TTL
    (6, 1),    // IP_RECVOPTS
    (8, 1),    // IP_PKTINFO
    (10, 2),   // IP_MTU_DISCOVER
    (11, 1),   // IP_RECVERR
    (12, 1),   // IP_RECVTTL
    (13, 1),   // IP_RECVTOS
    (15, 1),   // IP_FREEBIND
    (19, 1),   // IP_TRANSPARENT: refused to nobody
    (20, 1),   // IP_RECVORIGDSTADDR
    (21, 20),  // IP_MINTTL
    (23, 1),   // IP_CHECKSUM
    (24, 1),   // IP_BIND_ADDRESS_NO_PORT
    (33, 7),   // IP_MULTICAST_TTL
    (34, 0),   // IP_MULTICAST_LOOP
    (49, 0),   // IP_MULTICAST_ALL
    (99, 1),   // none such
];

/// `linux/in6.h`, level 41.
const IPV6: &[(i32, i32)] = &[
    (16, 44),   // IPV6_UNICAST_HOPS
    (18, 7),    // IPV6_MULTICAST_HOPS
    (19, 0),    // IPV6_MULTICAST_LOOP
    (23, 2),    // IPV6_MTU_DISCOVER
    (24, 1300), // IPV6_MTU
    (25, 1),    // IPV6_RECVERR
    (26, 1),    // IPV6_V6ONLY
    (29, 0),    // IPV6_MULTICAST_ALL
    (33, 1),    // IPV6_FLOWINFO_SEND
    (49, 1),    // IPV6_RECVPKTINFO
    (51, 1),    // IPV6_RECVHOPLIMIT
    (56, 1),    // IPV6_RECVRTHDR
    (62, 1),    // IPV6_DONTFRAG
    (66, 1),    // IPV6_RECVTCLASS
    (67, 0x28), // IPV6_TCLASS
    (70, 1),    // IPV6_AUTOFLOWLABEL
    (72, 2),    // IPV6_ADDR_PREFERENCES
    (73, 20),   // IPV6_MINHOPCOUNT
    (99, 1),    // none such
];

/// `linux/tcp.h`, level 6.
const TCP: &[(i32, i32)] = &[
    (1, 1),       // TCP_NODELAY
    (2, 1000),    // TCP_MAXSEG
    (3, 1),       // TCP_CORK
    (4, 30),      // TCP_KEEPIDLE
    (5, 7),       // TCP_KEEPINTVL
    (6, 4),       // TCP_KEEPCNT
    (7, 3),       // TCP_SYNCNT
    (8, 9),       // TCP_LINGER2
    (9, 2),       // TCP_DEFER_ACCEPT
    (10, 40_000), // TCP_WINDOW_CLAMP
    (12, 0),      // TCP_QUICKACK
    (16, 1),      // TCP_THIN_LINEAR_TIMEOUTS
    (18, 9000),   // TCP_USER_TIMEOUT
    (23, 5),      // TCP_FASTOPEN
    (25, 90_000), // TCP_NOTSENT_LOWAT
    (27, 1),      // TCP_SAVE_SYN
    (30, 1),      // TCP_FASTOPEN_CONNECT
    (34, 1),      // TCP_FASTOPEN_NO_COOKIE
    (36, 1),      // TCP_INQ
    (99, 1),      // none such
];

/// `linux/udp.h`, level 17.
const UDP: &[(i32, i32)] = &[
    (1, 1),      // UDP_CORK
    (101, 1),    // UDP_NO_CHECK6_TX
    (102, 1),    // UDP_NO_CHECK6_RX
    (103, 1200), // UDP_SEGMENT
    (104, 1),    // UDP_GRO
    (99, 1),     // none such
];

/// Values that are no integer: level, name, bytes.
const OTHER: &[(i32, i32, &[u8])] = &[
    (1, 13, &[1, 0, 0, 0, 5, 0, 0, 0]), // SO_LINGER
    (1, 20, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), // SO_RCVTIMEO
    (1, 21, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), // SO_SNDTIMEO
    (1, 25, b"c0\0"),                   // SO_BINDTODEVICE
    (0, 4, &[1, 1, 1, 0]),              // IP_OPTIONS
    (0, 4, &[1; 41]),                   // IP_OPTIONS, too long
    (6, 13, b"reno"),                   // TCP_CONGESTION
    (6, 13, b"no-such"),                // TCP_CONGESTION
    (6, 1, &[]),                        // TCP_NODELAY, too short
    (41, 54, &[0, 0, 1, 0, 0, 0, 0, 0]), // IPV6_HOPOPTS: refused to nobody
    (0xE9CB, 1, &[0; 16]),              // a level next to ours
    (0xE9C9, 1, &[0; 16]),              // and the one before
];

/// Outcomes of all of them, on four sockets.
pub(crate) fn run(_: Value) -> Value {
    let mut outcomes = Vec::new();
    for (name, domain, ty) in [
        ("TCP over IPv6", Domain::IPV6, Type::STREAM),
        ("TCP over IPv4", Domain::IPV4, Type::STREAM),
        ("UDP over IPv6", Domain::IPV6, Type::DGRAM),
        ("UDP over IPv4", Domain::IPV4, Type::DGRAM),
    ] {
        let socket = Socket::new(domain, ty, None).unwrap();
        let mut levels = vec![(1, SOCKET), (0, IPV4)];
        levels.extend((domain == Domain::IPV6).then_some((41, IPV6)));
        levels.push(if ty == Type::STREAM {
            (6, TCP)
        } else {
            (17, UDP)
        });
        let integers = levels.iter().flat_map(|(level, options)| {
            options
                .iter()
                .map(|(option, value)| (*level, *option, value.to_ne_bytes().to_vec()))
        });
        let others = OTHER
            .iter()
            .map(|(level, option, value)| (*level, *option, value.to_vec()));
        for (level, option, value) in integers.chain(others) {
            let outcome = json!({
                "before": get(&socket, level, option, 64).unwrap_or_else(|errno| vec![errno as u8]),
                "set": set(&socket, level, option, &value).err().unwrap_or(0),
                "after": get(&socket, level, option, 64).unwrap_or_else(|errno| vec![errno as u8]),
            });
            outcomes.push(json!([format!("{name}: {level} {option}"), outcome]));
        }
    }
    outcomes.into()
}
