//! The ethtool ioctl, for two purposes: a device that offers no segmentation and no checksum
//! offload, so that the kernel does both in software before the frame leaves; and whether a device
//! is such a one.

use super::{check, zero};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of a feature's name in `ethtool_gstrings`.
const NAME_LEN: usize = 32;

/// Runs one ethtool command on `device`; `command` is the ethtool structure as 32-bit words.
fn ethtool(socket: BorrowedFd<'_>, device: &str, command: &mut [u32]) -> io::Result<()> {
    // SAFETY: ifreq is made of integers, and of a union of such and a pointer.
    let mut request: libc::ifreq = unsafe { zero() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: the request names a device (terminated: checked above) and points to a live
    // buffer, which each caller below has sized for what its command makes the kernel write.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })
        .map(drop)
}

/// Whether `device` puts checksums into what it sends. `socket`: any socket in the device's
/// namespace.
pub fn offers_checksums(socket: BorrowedFd<'_>, device: &str) -> io::Result<bool> {
    // struct ethtool_value { u32 cmd, data; }
    let mut value = [ETHTOOL_GTXCSUM, 0];
    ethtool(socket, device, &mut value)?;
    Ok(value[1] != 0)
}

/// Switches off what lets a frame leave `device` unsegmented or without its checksum.
/// `socket`: any socket in the device's namespace.
pub fn switch_off_offloads(socket: BorrowedFd<'_>, device: &str) -> io::Result<()> {
    // struct ethtool_sset_info { u32 cmd, reserved; u64 sset_mask; u32 data[1]; }
    let mut info = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0, 0];
    let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
    for (word, bytes) in info[2..4].iter_mut().zip(mask.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    ethtool(socket, device, &mut info)?;
    let count = info[4] as usize;

    // struct ethtool_gstrings { u32 cmd, string_set, len; u8 data[len][32]; }
    let mut strings = vec![0; 3 + count * NAME_LEN / 4];
    strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]]);
    ethtool(socket, device, &mut strings)?;
    let bytes: Vec<u8> = strings[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();

    // struct ethtool_sfeatures { u32 cmd, size; struct { u32 valid, requested; } features[]; }
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + 2 * blocks];
    features[..2].copy_from_slice(&[ETHTOOL_SFEATURES, blocks as u32]);
    for (bit, name) in bytes.chunks_exact(NAME_LEN).enumerate() {
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
        let name = &name[..end];
        let holds = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
        if name.starts_with(b"tx-") && (holds(b"segmentation") || holds(b"checksum")) {
            features[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
        }
    }
    match ethtool(socket, device, &mut features) {
        // Some of the named features are fixed (off) on this device.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}
