//! `bpf_skb_adjust_room`, rule by rule in the order of Linux 6.18, with its errnos.

use crate::skb::{Encapsulation, GsoKind, Skb, Tunnel};

/// `BPF_F_ADJ_ROOM_FIXED_GSO`.
pub(crate) const FIXED_GSO: u64 = 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L3_IPV4`.
pub(crate) const ENCAP_L3_IPV4: u64 = 1 << 1;
/// `BPF_F_ADJ_ROOM_ENCAP_L3_IPV6`.
pub(crate) const ENCAP_L3_IPV6: u64 = 1 << 2;
/// `BPF_F_ADJ_ROOM_ENCAP_L4_GRE`.
pub(crate) const ENCAP_L4_GRE: u64 = 1 << 3;
/// `BPF_F_ADJ_ROOM_ENCAP_L4_UDP`.
pub(crate) const ENCAP_L4_UDP: u64 = 1 << 4;
/// `BPF_F_ADJ_ROOM_NO_CSUM_RESET`.
pub(crate) const NO_CSUM_RESET: u64 = 1 << 5;
/// `BPF_F_ADJ_ROOM_ENCAP_L2_ETH`.
pub(crate) const ENCAP_L2_ETH: u64 = 1 << 6;
/// `BPF_F_ADJ_ROOM_DECAP_L3_IPV4`.
pub(crate) const DECAP_L3_IPV4: u64 = 1 << 7;
/// `BPF_F_ADJ_ROOM_DECAP_L3_IPV6`.
pub(crate) const DECAP_L3_IPV6: u64 = 1 << 8;
const L2_SHIFT: u32 = 56;
const L2_MASK: u64 = 0xff << L2_SHIFT;

const ENCAP_L3: u64 = ENCAP_L3_IPV4 | ENCAP_L3_IPV6;
const DECAP_L3: u64 = DECAP_L3_IPV4 | DECAP_L3_IPV6;
const KNOWN: u64 = FIXED_GSO
    | ENCAP_L3
    | ENCAP_L4_GRE
    | ENCAP_L4_UDP
    | NO_CSUM_RESET
    | ENCAP_L2_ETH
    | DECAP_L3
    | L2_MASK;

/// `BPF_ADJ_ROOM_NET`: behind the network header.
pub(crate) const MODE_NET: u32 = 0;
/// `BPF_ADJ_ROOM_MAC`: behind the link-layer header.
pub(crate) const MODE_MAC: u32 = 1;

pub(crate) const EFAULT: i32 = 14;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENOMEM: i32 = 12;
pub(crate) const EALREADY: i32 = 114;
pub(crate) const ENOTSUPP: i32 = 524;

pub(crate) const ETH_P_IP: u16 = 0x0800;
pub(crate) const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_TEB: u16 = 0x6558;

/// `BPF_SKB_MAX_LEN`, which is `SKB_MAX_ALLOC`: four pages less `skb_shared_info`, with pages
/// of 4 KiB and cache lines of 64 bytes.
pub(crate) const MAX_LEN: usize = 16_384 - 320;

/// Grows or shrinks the frame; the error is an errno.
pub(crate) fn adjust(skb: &mut Skb, difference: i32, mode: u32, flags: u64) -> Result<(), i32> {
    if flags & !KNOWN != 0 {
        return Err(EINVAL);
    }
    let amount = difference.unsigned_abs() as usize;
    if amount > 0xfff {
        return Err(EFAULT);
    }
    let base_len = match skb.protocol {
        ETH_P_IP => 20,
        ETH_P_IPV6 => 40,
        _ => return Err(ENOTSUPP),
    };
    let offset = match mode {
        MODE_NET => skb.network_offset() + base_len,
        MODE_MAC => skb.network_offset(),
        _ => return Err(ENOTSUPP),
    };
    let shrinks = difference < 0;
    let min_len = match flags & DECAP_L3 {
        0 => base_len,
        _ if !shrinks => return Err(EINVAL),
        DECAP_L3_IPV4 => 20,
        DECAP_L3_IPV6 => 40,
        _ => return Err(EINVAL),
    };
    if shrinks {
        let len = skb.len().saturating_sub(skb.network_offset());
        if amount >= len || len - amount < min_len {
            return Err(ENOTSUPP);
        }
        shrink(skb, offset, amount, flags)
    } else {
        if skb.len() + amount > MAX_LEN && !skb.is_gso() {
            return Err(ENOTSUPP);
        }
        grow(skb, offset, amount, flags)
    }
}

/// A datagram's boundaries are the application's: its `gso_size` must not move.
fn check_gso(skb: &Skb, flags: u64) -> Result<(), i32> {
    let is_udp = skb.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
    if skb.is_gso() && is_udp && flags & FIXED_GSO == 0 {
        return Err(ENOTSUPP);
    }
    Ok(())
}

fn grow(skb: &mut Skb, offset: usize, amount: usize, flags: u64) -> Result<(), i32> {
    check_gso(skb, flags)?;
    let inner_link_len = (flags >> L2_SHIFT) as usize;
    let encapsulates = flags & ENCAP_L3 != 0;
    if encapsulates {
        if flags & ENCAP_L3 == ENCAP_L3 {
            return Err(EINVAL);
        }
        if flags & ENCAP_L4_GRE != 0 && flags & ENCAP_L4_UDP != 0 {
            return Err(EINVAL);
        }
        if flags & ENCAP_L2_ETH != 0 && inner_link_len < 14 {
            return Err(EINVAL);
        }
        if skb.encapsulation.is_some() {
            return Err(EALREADY);
        }
        if inner_link_len > amount {
            return Err(EINVAL);
        }
    }
    if offset > skb.len() {
        return Err(ENOMEM);
    }
    skb.pull(offset);
    skb.grow(offset, amount);
    if encapsulates {
        skb.encapsulation = Some(Encapsulation {
            tunnel: tunnel(flags),
            inner_network: skb.network_offset() + amount,
            inner_protocol: match flags & ENCAP_L2_ETH {
                0 => skb.protocol,
                _ => ETH_P_TEB,
            },
        });
        let (protocol, header_len) = match flags & ENCAP_L3 {
            ENCAP_L3_IPV6 => (ETH_P_IPV6, 40),
            _ => (ETH_P_IP, 20),
        };
        skb.protocol = protocol;
        if flags & (ENCAP_L4_UDP | ENCAP_L4_GRE) != 0 {
            skb.transport = Some(skb.network_offset() + header_len);
        }
    }
    change_gso_size(skb, flags, |size| size.wrapping_sub(amount as u16));
    Ok(())
}

fn tunnel(flags: u64) -> Tunnel {
    if flags & ENCAP_L4_UDP != 0 {
        Tunnel::Udp
    } else if flags & ENCAP_L4_GRE != 0 {
        Tunnel::Gre
    } else if flags & ENCAP_L3_IPV6 != 0 {
        Tunnel::Ipip6
    } else {
        Tunnel::Ipip4
    }
}

fn shrink(skb: &mut Skb, offset: usize, amount: usize, flags: u64) -> Result<(), i32> {
    if flags & !(FIXED_GSO | DECAP_L3 | NO_CSUM_RESET) != 0 {
        return Err(EINVAL);
    }
    check_gso(skb, flags)?;
    skb.pull(offset + amount).ok_or(ENOMEM)?;
    skb.shrink(offset, amount);
    match flags & DECAP_L3 {
        DECAP_L3_IPV6 => skb.protocol = ETH_P_IPV6,
        DECAP_L3_IPV4 => skb.protocol = ETH_P_IP,
        _ => {}
    }
    change_gso_size(skb, flags, |size| size.wrapping_add(amount as u16));
    Ok(())
}

fn change_gso_size(skb: &mut Skb, flags: u64, change: impl Fn(u16) -> u16) {
    if flags & FIXED_GSO == 0
        && let Some(gso) = skb.gso.as_mut().filter(|gso| gso.size > 0)
    {
        gso.size = change(gso.size);
    }
}
