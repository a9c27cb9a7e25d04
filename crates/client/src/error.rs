//! Why a socket did not take an exit: one variant for each errno of docs/datapath.md §1.

use dynencap_abi::option;
use std::io;

/// Why a call at dynencap's level failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `ENOPROTOOPT`: no program answers for the cgroup of this process.
    #[error(
        "dynencap is not installed here: no program answers for this process's cgroup \
         (`dynencap up`, or move the process below the cgroup that it was installed for)"
    )]
    NotInstalled,
    /// `EPERM`: the policy of this process's cgroup.
    #[error("the policy of this process's cgroup does not allow it")]
    Denied,
    /// `EAFNOSUPPORT`: neither IPv4 nor IPv6.
    #[error("not an IP socket")]
    NotIp,
    /// `EOPNOTSUPP`: a raw socket, an MPTCP socket, or one of a family without such options.
    #[error("sockets of this kind (raw, MPTCP, not IP) cannot have an exit")]
    Unsupported,
    /// `EINVAL`: an address that is no unicast address, say.
    #[error("the value cannot be an exit")]
    Invalid,
    /// `ENOMEM`.
    #[error("no memory for the socket's exit")]
    NoMemory,
    /// What the kernel gave back is none of the forms that docs/datapath.md has.
    #[error("the kernel answered with {length} bytes, which is no exit")]
    Answer {
        /// Length in bytes of the value.
        length: usize,
    },
    /// Any other errno: `EBADF`, `ENOTSOCK`, ….
    #[error("setsockopt or getsockopt")]
    Other(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(option::ENOPROTOOPT) => Self::NotInstalled,
            Some(option::EPERM) => Self::Denied,
            Some(option::EAFNOSUPPORT) => Self::NotIp,
            Some(option::EOPNOTSUPP) => Self::Unsupported,
            Some(option::EINVAL) => Self::Invalid,
            Some(option::ENOMEM) => Self::NoMemory,
            _ => Self::Other(error),
        }
    }
}

/// So that callers whose functions return [`io::Error`] can use `?`; the errno survives.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let errno = match error {
            Error::NotInstalled => option::ENOPROTOOPT,
            Error::Denied => option::EPERM,
            Error::NotIp => option::EAFNOSUPPORT,
            Error::Unsupported => option::EOPNOTSUPP,
            Error::Invalid => option::EINVAL,
            Error::NoMemory => option::ENOMEM,
            Error::Answer { .. } => return Self::new(io::ErrorKind::InvalidData, error),
            Error::Other(error) => return error,
        };
        Self::from_raw_os_error(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_survives_the_way_there_and_back() {
        for errno in [1, 12, 22, 92, 95, 97, 9, 88] {
            let typed = Error::from(io::Error::from_raw_os_error(errno));
            assert_eq!(matches!(typed, Error::Other(_)), [9, 88].contains(&errno));
            assert_eq!(io::Error::from(typed).raw_os_error(), Some(errno));
        }
    }
}
