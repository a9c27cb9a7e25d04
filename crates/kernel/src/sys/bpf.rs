//! `bpf(2)` for links: what aya does for TCX alone, or not at all.

use super::check_long;
use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// What the kernel tells of a link (`struct bpf_link_info`), as far as it is asked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfLink {
    /// The program that runs there now.
    pub program: u32,
    /// Interface index (TCX) or id of the cgroup; 0: the device or cgroup is gone, and the link
    /// does nothing any more.
    pub target: u64,
}

/// Attributes of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: RawFd,
    file_flags: u32,
}

/// Attaches `program` to a cgroup2 directory, beside those of others. `attach_type` is that of
/// `enum bpf_attach_type`. The link detaches it when its last descriptor and pin are gone.
pub fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: RawFd,
        target_fd: RawFd,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes {
        prog_fd: program.as_raw_fd(),
        target_fd: cgroup.as_raw_fd(),
        attach_type,
        // With links the kernel always lets other programs stay, and refuses the flag.
        flags: 0,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` for this command; the kernel
    // checks what the descriptors, open while they are borrowed, refer to.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })?;
    owned(fd)
}

/// Pins a link, program or map.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = terminated(path)?;
    let attributes = Pin {
        pathname: path.as_ptr() as u64,
        bpf_fd: object.as_raw_fd(),
        file_flags: 0,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` for this command, the path a
    // terminated string, and both live through the call.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_PIN,
            &raw const attributes,
            size_of::<Pin>(),
        )
    })
    .map(drop)
}

/// Opens what is pinned at `path`: a link, program or map.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = terminated(path)?;
    let attributes = Pin {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` for this command, the path a
    // terminated string, and both live through the call.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const attributes,
            size_of::<Pin>(),
        )
    })?;
    owned(fd)
}

/// Lets `link` run `program` from now on, without a moment in which it runs none.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: RawFd,
        new_prog_fd: RawFd,
        flags: u32,
        old_prog_fd: u32,
    }
    let attributes = Attributes {
        link_fd: link.as_raw_fd(),
        new_prog_fd: program.as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` for this command; the kernel
    // checks what the descriptors, open while they are borrowed, refer to.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_UPDATE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// What `link`, one of TCX or of a cgroup, is attached to.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<BpfLink> {
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    #[repr(C)]
    struct Attributes {
        bpf_fd: RawFd,
        info_len: u32,
        info: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        // An interface index in the first word, or a cgroup's id in both.
        target: [u32; 2],
        attach_type: u32,
        rest: [u32; 9],
    }
    let mut info = Info::default();
    let attributes = Attributes {
        bpf_fd: link.as_raw_fd(),
        info_len: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the structure is the beginning of `union bpf_attr` for this command, and the
    // kernel writes at most `info_len` bytes, the size of the live structure behind `info`.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })?;
    let [first, second] = info.target;
    let target = if info.kind == BPF_LINK_TYPE_CGROUP {
        let bytes = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
        bytes
            .try_into()
            .map_or(0, |bytes: [u8; 8]| u64::from_ne_bytes(bytes))
    } else {
        u64::from(first)
    };
    Ok(BpfLink {
        program: info.program,
        target,
    })
}

fn terminated(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// What `BPF_OBJ_GET` or `BPF_LINK_CREATE` returned.
fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
