//! One call of `setsockopt` or `getsockopt` as the cgroup hook sees it, its three ways out, and
//! the checks that both options hooks make first.

use crate::{map, socket::Socket};
use aya_ebpf::{
    bindings::bpf_sockopt, helpers::generated::bpf_set_retval, programs::SockoptContext,
};
use dynencap_abi::{
    Config,
    option::{
        AF_INET, AF_INET6, AF_PACKET, EAFNOSUPPORT, ENCAP_GW, ENCAP_INFO, ENCAP_REFLECT, ENCAP_UDP,
        ENOPROTOOPT, EOPNOTSUPP, EPERM, IPPROTO_MPTCP, SOCK_RAW, SOL_DYNENCAP,
    },
};

/// The hook's buffer holds a page at most; longer values must be handed on unread.
const LONGEST_VALUE: i32 = 4096;

/// An option of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Gateway,
    Udp,
    Reflect,
    /// Can only be read.
    Info,
}

/// Why a call is refused.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// By policy.
    Denied,
    /// With this errno, a positive number, for anything else.
    Errno(i32),
}

impl Refusal {
    #[inline(always)]
    fn errno(self) -> i32 {
        match self {
            Self::Denied => EPERM,
            Self::Errno(errno) => errno,
        }
    }
}

pub(crate) struct Call {
    context: *mut bpf_sockopt,
}

impl Call {
    #[inline(always)]
    pub(crate) fn new(context: &SockoptContext) -> Self {
        Self {
            context: context.sockopt,
        }
    }

    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        // SAFETY: the hook's context; the verifier checks each access.
        unsafe { (*self.context).level == SOL_DYNENCAP }
    }

    /// Length of the caller's value (or buffer, in `getsockopt`).
    #[inline(always)]
    pub(crate) fn length(&self) -> i32 {
        // SAFETY: as in `is_ours`.
        unsafe { (*self.context).optlen }
    }

    /// Check 1 of docs/datapath.md §1, for calls that read.
    #[inline(always)]
    pub(crate) fn name(&self) -> Result<Name, Refusal> {
        // SAFETY: as in `is_ours`.
        match unsafe { (*self.context).optname } {
            ENCAP_GW => Ok(Name::Gateway),
            ENCAP_UDP => Ok(Name::Udp),
            ENCAP_REFLECT => Ok(Name::Reflect),
            ENCAP_INFO => Ok(Name::Info),
            _ => Err(Refusal::Errno(ENOPROTOOPT)),
        }
    }

    /// Checks 2 and 3.
    #[inline(always)]
    pub(crate) fn socket(&self) -> Result<Socket, Refusal> {
        // SAFETY: as in `is_ours`.
        let Some(socket) = Socket::new(unsafe { (*self.context).__bindgen_anon_1.sk }) else {
            return Err(Refusal::Errno(EAFNOSUPPORT));
        };
        let lab = map::config().is_some_and(|config| config.has(Config::ALLOW_PACKET_SOCKETS));
        match socket.family() {
            AF_PACKET if lab => {}
            AF_INET | AF_INET6 => {
                if socket.kind() == SOCK_RAW && !lab || socket.protocol() == IPPROTO_MPTCP {
                    return Err(Refusal::Errno(EOPNOTSUPP));
                }
            }
            _ => return Err(Refusal::Errno(EAFNOSUPPORT)),
        }
        Ok(socket)
    }

    /// Reads part of the value. `optval_end` is the buffer's end, which lies beyond the value
    /// when that is short: callers compare `length` as well.
    #[inline(always)]
    pub(crate) fn value<T: Copy>(&self, offset: usize) -> Option<T> {
        // SAFETY: the bytes lie below `optval_end`, and T is plain data.
        unsafe {
            let value = (*self.context)
                .__bindgen_anon_2
                .optval
                .cast::<u8>()
                .add(offset);
            let end = (*self.context).__bindgen_anon_3.optval_end.cast::<u8>();
            if value.add(size_of::<T>()) > end {
                return None;
            }
            Some(value.cast::<T>().read_unaligned())
        }
    }

    /// Writes part of the answer.
    #[inline(always)]
    pub(crate) fn set_value<T: Copy>(&self, offset: usize, bytes: T) -> Option<()> {
        // SAFETY: the bytes lie below `optval_end`.
        unsafe {
            let value = (*self.context)
                .__bindgen_anon_2
                .optval
                .cast::<u8>()
                .add(offset);
            let end = (*self.context).__bindgen_anon_3.optval_end.cast::<u8>();
            if value.add(size_of::<T>()) > end {
                return None;
            }
            value.cast::<T>().write_unaligned(bytes);
        }
        Some(())
    }

    /// The option is not ours: kernel and other programs see it as it came.
    #[inline(always)]
    pub(crate) fn pass(&self) -> i32 {
        if self.length() > LONGEST_VALUE {
            // SAFETY: as in `is_ours`. Left alone, a longer value fails with EFAULT; 0 says
            // "use the caller's own buffer".
            unsafe { (*self.context).optlen = 0 };
        }
        1
    }

    /// `setsockopt` was done here: the kernel's own handler does not run.
    #[inline(always)]
    pub(crate) fn consume(&self) -> i32 {
        // SAFETY: as in `is_ours`.
        unsafe { (*self.context).optlen = -1 };
        1
    }

    /// `getsockopt` was answered here with that many bytes; the kernel's handler, which runs
    /// first and does not know the option, had failed.
    #[inline(always)]
    pub(crate) fn answer(&self, length: u32) -> i32 {
        // SAFETY: as in `is_ours`.
        unsafe {
            (*self.context).optlen = length as i32;
            (*self.context).retval = 0;
        }
        1
    }

    #[inline(always)]
    pub(crate) fn refuse(&self, refusal: Refusal) -> i32 {
        // SAFETY: takes any errno. Returning 0 alone would mean EPERM.
        unsafe { bpf_set_retval(-refusal.errno()) };
        0
    }
}
