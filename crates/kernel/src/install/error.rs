//! Why an installation failed, in words that name the remedy.

use std::{io, path::PathBuf};

/// What went wrong. Unless it says otherwise, all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused, or may not be asked.
    #[error(transparent)]
    Kernel(#[from] crate::Error),
    /// Pins need a BPF file system.
    #[error(
        "{path} is not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or choose another \
         place by --pin"
    )]
    NotBpffs {
        /// Where pins should go.
        path: PathBuf,
    },
    /// Programs attach to cgroups of version 2 alone.
    #[error(
        "{path} is not a cgroup2 directory: mount cgroup2, or name a directory below its mount"
    )]
    NotCgroup2 {
        /// What was given.
        path: PathBuf,
    },
    /// The directory with the pins is there, and not of our making.
    #[error("{path} holds something else than an installation: choose another place by --pin")]
    ForeignPins {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such device in this network namespace.
    #[error("there is no device {name} in this network namespace")]
    NoDevice {
        /// Its name.
        name: String,
    },
    /// There is one already, for something else.
    #[error("already installed for {what} {installed}, not {wanted}: `dynencap down` first")]
    Other {
        /// `uplink`, `cgroup`, how many captured exits.
        what: &'static str,
        /// For which one.
        installed: String,
        /// Which one was asked for.
        wanted: String,
    },
    /// The installation's device and routes are those of another network namespace.
    #[error(
        "installed in another network namespace, for its device {uplink}: run this there \
         (`nsenter --net=…`; `ip netns exec` hides the BPF file system)"
    )]
    Namespace {
        /// Name of the uplink there.
        uplink: String,
    },
    /// A map of another build cannot serve this one.
    #[error(
        "the installed map {map} has another shape ({installed}) than this build's ({built}): \
         `dynencap down`, then `up`; sockets lose their exits by that"
    )]
    Shape {
        /// Its name.
        map: String,
        /// Type, key, value, entries of the one that is pinned.
        installed: String,
        /// The same of the object's.
        built: String,
    },
    /// The record beside the pins is not readable by this build.
    #[error("{path} was written by another version: use that version's `dynencap down`")]
    Record {
        /// The record.
        path: PathBuf,
    },
    /// What is to be recorded does not fit.
    #[error("the settings take {length} bytes, at most {max} can be recorded")]
    RecordLength {
        /// How long it is.
        length: usize,
        /// How long it may be.
        max: usize,
    },
    /// A file could not be made, read, or removed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Its error.
        source: io::Error,
    },
    /// Something could not be pinned.
    #[error("pinning {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// What aya says.
        #[source]
        source: aya::pin::PinError,
    },
    /// A program could not be attached to the cgroup.
    #[error("attaching program {program} to the cgroup")]
    Attach {
        /// Its name.
        program: &'static str,
        /// What `BPF_LINK_CREATE` said.
        source: io::Error,
    },
    /// A live program could not be replaced. Those replaced before have been put back.
    #[error("replacing the live program {program}")]
    Replace {
        /// Its name.
        program: &'static str,
        /// What `BPF_LINK_UPDATE` said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: names action and file.
    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Kernel(crate::Error::NotPermitted {
                action: "reaching the installation's pins",
                needs: "root",
            }),
            _ => Self::File {
                action,
                path,
                source,
            },
        }
    }
}
