//! `bpf_skb_adjust_room`: what it refuses, and what it does to the frame.

use super::frame;
use crate::room::*;
use crate::skb::{Gso, GsoKind, Skb, Tunnel};

fn gso(kind: GsoKind) -> Skb {
    let mut skb = frame();
    skb.gso = Some(Gso { size: 1000, kind });
    skb
}

const L2_8: u64 = 8 << 56;

#[test]
fn refusals_have_the_kernels_errnos() {
    let arp = Skb::new(&[0; 60], 0x0806);
    let long = Skb::new(&[0; MAX_LEN - 39], ETH_P_IPV6);
    let mut encapsulated = frame();
    adjust(&mut encapsulated, 40, MODE_MAC, ENCAP_L3_IPV6).unwrap();
    let encap = FIXED_GSO | ENCAP_L3_IPV6;
    #[rustfmt::skip]
    let table = [
        ("unknown flag", frame(), 40, MODE_MAC, 1 << 9, EINVAL),
        ("more than 4095", frame(), 4096, MODE_MAC, encap, EFAULT),
        ("neither IPv4 nor IPv6", arp, 40, MODE_MAC, encap, ENOTSUPP),
        ("unknown mode", frame(), 40, 2, encap, ENOTSUPP),
        ("too long", long, 40, MODE_MAC, encap, ENOTSUPP),
        ("both IPv4 and IPv6", frame(), 40, MODE_MAC, encap | ENCAP_L3_IPV4, EINVAL),
        ("both UDP and GRE", frame(), 40, MODE_MAC, encap | ENCAP_L4_UDP | ENCAP_L4_GRE, EINVAL),
        ("Ethernet below 14", frame(), 40, MODE_MAC, encap | ENCAP_L2_ETH | L2_8, EINVAL),
        ("L2 above the room", frame(), 7, MODE_MAC, encap | L2_8, EINVAL),
        ("twice", encapsulated, 40, MODE_MAC, encap, EALREADY),
        ("datagrams that would shrink", gso(GsoKind::Udp), 40, MODE_MAC, ENCAP_L3_IPV6, ENOTSUPP),
        ("growing with decap", frame(), 40, MODE_MAC, DECAP_L3_IPV6, EINVAL),
        ("decap to both", frame(), -4, MODE_MAC, DECAP_L3_IPV6 | DECAP_L3_IPV4, EINVAL),
        ("shrinking with encap", frame(), -4, MODE_MAC, ENCAP_L3_IPV6, EINVAL),
        ("less than an IPv6 header left", frame(), -7, MODE_MAC, FIXED_GSO, ENOTSUPP),
        ("less than an IPv4 header left", frame(), -27, MODE_MAC, DECAP_L3_IPV4, ENOTSUPP),
        ("nothing left", frame(), -46, MODE_MAC, DECAP_L3_IPV4, ENOTSUPP),
        ("datagrams that would grow", gso(GsoKind::Udp), -4, MODE_MAC, 0, ENOTSUPP),
    ];
    for (name, mut skb, difference, mode, flags, errno) in table {
        let before = skb.data().to_vec();
        assert_eq!(
            adjust(&mut skb, difference, mode, flags),
            Err(errno),
            "{name}"
        );
        assert_eq!(skb.data(), before, "{name}");
    }
}

#[test]
fn growing_puts_zeros_behind_the_link_layer_header() {
    let mut skb = Skb::new(frame().data(), ETH_P_IP);
    adjust(
        &mut skb,
        56,
        MODE_MAC,
        FIXED_GSO | ENCAP_L3_IPV6 | ENCAP_L4_UDP | L2_8,
    )
    .unwrap();
    assert_eq!(skb.data()[..14], frame().data()[..14]);
    assert_eq!(skb.data()[14..70], [0; 56]);
    assert_eq!(skb.data()[70..], frame().data()[14..]);
    assert_eq!(skb.protocol, ETH_P_IPV6);
    let encapsulation = skb.encapsulation.unwrap();
    assert_eq!(encapsulation.tunnel, Tunnel::Udp);
    assert_eq!(encapsulation.inner_network, 70);
    assert_eq!(encapsulation.inner_protocol, ETH_P_IP);
}

#[test]
fn each_tunnel_has_its_kind_and_protocol() {
    let l2_4 = 4 << 56;
    #[rustfmt::skip]
    let table = [
        (ETH_P_IP, 20, ENCAP_L3_IPV4, Tunnel::Ipip4, ETH_P_IP),
        (ETH_P_IPV6, 20, ENCAP_L3_IPV4, Tunnel::Ipip4, ETH_P_IP),
        (ETH_P_IP, 40, ENCAP_L3_IPV6, Tunnel::Ipip6, ETH_P_IPV6),
        (ETH_P_IPV6, 32, ENCAP_L3_IPV4 | ENCAP_L4_UDP | l2_4, Tunnel::Udp, ETH_P_IP),
        (ETH_P_IP, 28, ENCAP_L3_IPV4 | ENCAP_L4_GRE, Tunnel::Gre, ETH_P_IP),
    ];
    for (inner, amount, flags, tunnel, outer) in table {
        let mut skb = Skb::new(frame().data(), inner);
        adjust(&mut skb, amount, MODE_MAC, FIXED_GSO | flags).unwrap();
        let encapsulation = skb.encapsulation.unwrap();
        assert_eq!(encapsulation.tunnel, tunnel, "{flags:#x}");
        assert_eq!(encapsulation.inner_protocol, inner);
        assert_eq!(encapsulation.inner_network, 14 + amount as usize);
        assert_eq!(skb.protocol, outer);
        assert_eq!(
            skb.data()[14..][..amount as usize],
            vec![0; amount as usize]
        );
        // Whatever the kind, not a second time; taking off works, and does not allow it either.
        let again = adjust(&mut skb, 40, MODE_MAC, FIXED_GSO | ENCAP_L3_IPV6);
        assert_eq!(again, Err(EALREADY));
        let decap = if inner == ETH_P_IP {
            DECAP_L3_IPV4
        } else {
            DECAP_L3_IPV6
        };
        adjust(&mut skb, -amount, MODE_MAC, FIXED_GSO | decap).unwrap();
        assert_eq!((skb.data(), skb.protocol), (frame().data(), inner));
    }
}

#[test]
fn an_ipv4_frame_may_become_an_ipv6_one_only_where_that_fits() {
    // 60 bytes are 46 of packet: 20 off leaves 26, enough for IPv4 alone.
    let ipv4 = || Skb::new(frame().data(), ETH_P_IP);
    let shrunk = |flags| adjust(&mut ipv4(), -20, MODE_MAC, flags);
    assert_eq!(shrunk(DECAP_L3_IPV6), Err(ENOTSUPP));
    assert_eq!(shrunk(DECAP_L3_IPV4), Ok(()));
    assert_eq!(shrunk(0), Ok(()));
}

#[test]
fn growing_beyond_the_head_room_keeps_the_frame() {
    let mut skb = frame();
    for _ in 0..3 {
        adjust(&mut skb, 400, MODE_MAC, 0).unwrap();
    }
    assert_eq!(skb.len(), 60 + 1200);
    assert_eq!(skb.data()[14..1214], [0; 1200]);
    assert_eq!(skb.data()[1214..], frame().data()[14..]);
}

#[test]
fn shrinking_takes_out_what_stands_behind_the_link_layer_header() {
    let mut skb = frame();
    adjust(&mut skb, -26, MODE_MAC, DECAP_L3_IPV4).unwrap();
    assert_eq!(skb.data()[..14], frame().data()[..14]);
    assert_eq!(skb.data()[14..], frame().data()[40..]);
    assert_eq!(skb.protocol, ETH_P_IP);
}

#[test]
fn the_segment_size_moves_unless_it_is_fixed() {
    let table = [
        (40, ENCAP_L3_IPV6, 960),
        (40, ENCAP_L3_IPV6 | FIXED_GSO, 1000),
        (-4, DECAP_L3_IPV6, 1004),
        (-4, DECAP_L3_IPV6 | FIXED_GSO, 1000),
    ];
    for (difference, flags, size) in table {
        let mut skb = gso(GsoKind::Tcp6);
        adjust(&mut skb, difference, MODE_MAC, flags).unwrap();
        assert_eq!(skb.gso.unwrap().size, size, "{difference} {flags}");
    }
}
