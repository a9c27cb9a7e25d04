//! What can go wrong while measuring.

use std::io;

/// Why a measurement was not made, or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own programs, namespaces, cgroups.
    #[error(transparent)]
    Kernel(#[from] dynencap_kernel::Error),
    /// The reference's programs.
    #[error("reference program {name}: {source}")]
    Reference {
        /// Which program or map.
        name: String,
        /// aya's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A system call or file.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A command of the operating system failed.
    #[error("{command}: {said}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// A variant does not do what it is measured for.
    #[error("{variant}: {what}")]
    Wrong {
        /// Which one.
        variant: String,
        /// What was seen.
        what: String,
    },
}

impl Error {
    /// For `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` of aya's errors.
    pub fn reference<E>(name: &str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let name = name.to_owned();
        move |source| Self::Reference {
            name,
            source: Box::new(source),
        }
    }
}
