//! The segmenting pair: it is there, silent, cuts super-packets, and goes without a trace.

use crate::{
    require::require,
    stage::{Stage, inside},
};
use dynencap_kernel::{
    host::{self, Ensured, Error, SegmentPair},
    sys,
};
use std::{fs, io::IoSlice, os::fd::AsFd, thread, time::Duration};

const PACKET_VNET_HDR: i32 = 15;

/// Packets that the device of that name in the calling thread's namespace has received.
fn received(device: &str) -> u64 {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{device}:")))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A TCP super-packet of 10 segments, in IPv6, out of `device`.
fn send_super_packet(device: &str) {
    const SEGMENT: u16 = 1000;
    const TCP: u16 = 20 + 10 * SEGMENT;
    let mut frame = vec![0_u8; 14 + 40 + TCP as usize];
    frame[12..14].copy_from_slice(&0x86dd_u16.to_be_bytes());
    frame[14] = 0x60;
    frame[18..20].copy_from_slice(&TCP.to_be_bytes());
    frame[20..22].copy_from_slice(&[6, 64]);
    frame[22..24].copy_from_slice(&[0x20, 0x01]);
    frame[38..40].copy_from_slice(&[0x20, 0x01]);
    frame[54 + 12..54 + 14].copy_from_slice(&[0x50, 0x10]);
    // struct virtio_net_hdr: NEEDS_CSUM, GSO_TCPV6, and where headers and checksum lie.
    let mut header = vec![1, 4];
    for field in [14 + 40 + 20, SEGMENT, 14 + 40, 16] {
        header.extend(field.to_ne_bytes());
    }
    let socket = sys::packet_socket().unwrap();
    sys::set_option(
        socket.as_fd(),
        libc::SOL_PACKET,
        PACKET_VNET_HDR,
        &1_i32.to_ne_bytes(),
    )
    .unwrap();
    let link = sys::Link::named(device).unwrap();
    let pieces = [IoSlice::new(&header), IoSlice::new(&frame)];
    sys::send_frame(socket.as_fd(), link, 0x86dd, &pieces).unwrap();
}

#[test]
fn the_pair_cuts_super_packets_and_says_nothing_itself() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let before = stage.ip("-d link");
    let (pair, ensured) = inside(&stage.host, || SegmentPair::ensure("seg0", "seg1")).unwrap();
    assert_eq!(ensured, Ensured::Created);
    for (name, index) in [("seg0", pair.near()), ("seg1", pair.far())] {
        let link = stage.ip(&format!("-d link show {name}"));
        assert!(link.starts_with(&format!("{index}: {name}@")), "{link}");
        assert!(
            link.contains("NOARP") && link.contains("LOWER_UP"),
            "{link}"
        );
        assert!(
            link.contains("mtu 65535") && link.contains("addrgenmode none"),
            "{link}"
        );
        assert_eq!(
            stage
                .ip(&format!("address show {name}"))
                .matches("inet")
                .count(),
            0
        );
    }
    // A router solicitation or an MLD report would come within this time.
    thread::sleep(Duration::from_millis(1500));
    inside(&stage.host, || {
        assert_eq!((received("seg0"), received("seg1")), (0, 0));
        send_super_packet("seg0");
        assert_eq!(received("seg1"), 10);
    });
    assert!(inside(&stage.host, || SegmentPair::remove("seg0", "seg1")).unwrap());
    assert_eq!(stage.ip("-d link"), before);
    assert!(!inside(&stage.host, || SegmentPair::remove("seg0", "seg1")).unwrap());
}

#[test]
fn a_pair_that_is_there_is_kept_and_mended() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    let ensure = || inside(&stage.host, || SegmentPair::ensure("seg0", "seg1")).unwrap();
    let (first, _) = ensure();
    assert_eq!(ensure(), (first.clone(), Ensured::Unchanged));
    stage.ip("link set seg1 mtu 1500 down arp on");
    assert_eq!(ensure(), (first.clone(), Ensured::Repaired));
    let link = stage.ip("link show seg1");
    assert!(
        link.contains("NOARP") && link.contains("mtu 65535"),
        "{link}"
    );
    assert_eq!(ensure(), (first, Ensured::Unchanged));
    // The plan and the pair do not know of each other.
    inside(&stage.host, host::remove).unwrap();
    assert_eq!(ensure().1, Ensured::Unchanged);
}

#[test]
fn a_device_without_checksum_offload_is_known() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    inside(&stage.host, || {
        SegmentPair::ensure("seg0", "seg1").unwrap();
        // The pair's near end has lost its offloads, the far end has not.
        assert!(!host::offers_checksums("seg0").unwrap());
        assert!(host::offers_checksums("seg1").unwrap());
        assert!(host::offers_checksums("nowhere").is_err());
        SegmentPair::remove("seg0", "seg1").unwrap();
    });
}

#[test]
fn devices_of_others_are_left_alone() {
    if !require(&[]) {
        return;
    }
    let stage = Stage::new();
    stage.ip("link add seg0 type veth peer name seg1");
    stage.ip("link add seg2 type veth peer name seg3");
    stage.ip("link add br0 type bridge");
    let before = stage.ip("-d link");
    for (near, far) in [
        ("seg0", "seg1"),
        ("seg0", "seg3"),
        ("seg0", "new"),
        ("new", "seg1"),
        ("br0", "seg1"),
    ] {
        for result in [
            inside(&stage.host, || SegmentPair::ensure(near, far).map(|_| ())),
            inside(&stage.host, || SegmentPair::remove(near, far).map(|_| ())),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, Error::ForeignDevice { .. }),
                "{near} {far}: {error}"
            );
        }
    }
    assert_eq!(stage.ip("-d link"), before);
}
