//! What can go wrong between this process and its kernel, in words that name the remedy.
//! A frame's own fate (a drop with its reason) is no error: it stands in the counters.

use std::{fmt, io};

/// Why the kernel engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kernel does not offer something that is needed.
    #[error("this kernel lacks {feature} (Linux {since} has it)")]
    Unsupported {
        /// What is missing.
        feature: &'static str,
        /// The first kernel release that has it.
        since: &'static str,
    },
    /// The process may not do it.
    #[error("not permitted: {action}: needs {needs}")]
    NotPermitted {
        /// What was tried.
        action: &'static str,
        /// The capability or setting that would allow it.
        needs: &'static str,
    },
    /// The kernel's verifier refused a program.
    #[error("the verifier refused program {program}:\n{}", Tail(log))]
    Verifier {
        /// The program's name in the object.
        program: &'static str,
        /// The whole log; the message shows its end alone.
        log: String,
        /// What `BPF_PROG_LOAD` returned.
        source: io::Error,
    },
    /// The object lacks a program or map, or has it with another shape.
    #[error("the BPF object has no {kind} {name} of the expected type")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name, see `dynencap_abi::object`.
        name: &'static str,
    },
    /// The object could not be parsed, or its maps not be created.
    #[error("loading the BPF object")]
    Object {
        /// What aya says.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// A program could not be attached.
    #[error("attaching program {program}")]
    Attach {
        /// The program's name.
        program: &'static str,
        /// What aya says.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map could not be read or written.
    #[error("accessing map {map}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What aya says.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A system call failed.
    #[error("{call}")]
    Syscall {
        /// The call, or the file that was accessed.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("netlink: {request}")]
    Netlink {
        /// What was asked for.
        request: &'static str,
        /// The kernel's answer.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// No cgroup2 hierarchy that this process is in is visible.
    #[error("no cgroup2 hierarchy: {reason}")]
    Cgroup {
        /// What was looked for and not found.
        reason: &'static str,
    },
    /// No flow of that id is open.
    #[error("flow {flow} is not open")]
    UnknownFlow {
        /// The id's number.
        flow: u32,
    },
    /// The kernel did not take a frame, or lost it while it prepared it for the wire.
    /// With `ENOMEM` the egress program has seen and counted it (software GSO failed
    /// behind it); with every other errno it has not.
    #[error("the kernel refused a frame of {length} bytes (errno {errno})")]
    Refused {
        /// Bytes from the IP header on.
        length: usize,
        /// `EMSGSIZE`, `EINVAL`, `ENOMEM`, …
        errno: i32,
    },
    /// A super-packet of more segments than the kernel queues between two devices: some
    /// would be lost. Nothing was sent.
    #[error("a super-packet of {segments} segments, where the kernel queues {limit} frames")]
    TooManySegments {
        /// How many it would become.
        segments: usize,
        /// `net.core.netdev_max_backlog`, less what the lab itself needs.
        limit: usize,
    },
    /// Frames were lost where the lab must not lose any: what was captured is incomplete.
    #[error("{frames} frames were lost {place}: the replay is not to be trusted")]
    Lost {
        /// How many.
        frames: u64,
        /// Where.
        place: &'static str,
    },
    /// A sentinel frame did not come back in time.
    #[error("the barrier's frame did not arrive {place}")]
    Barrier {
        /// The capture that waited.
        place: &'static str,
    },
    /// A frame was longer than the capture's buffer.
    #[error("a captured frame of {length} bytes was cut")]
    Cut {
        /// Its length.
        length: usize,
    },
    /// A stop was asked for, see [`crate::Interrupt`].
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err`: names the call that failed.
    pub(crate) fn syscall(call: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Syscall { call, source }
    }
}

/// The end of a verifier log: its last lines hold the instruction, the registers and the
/// complaint.
struct Tail<'a>(&'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LINES: usize = 12;
        let lines: Vec<&str> = self.0.lines().filter(|line| !line.is_empty()).collect();
        let skipped = lines.len().saturating_sub(LINES);
        if skipped > 0 {
            writeln!(f, "… ({skipped} lines before)")?;
        }
        for line in lines.iter().skip(skipped) {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_error_shows_the_end_of_its_log_and_keeps_all_of_it() {
        let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
        let error = Error::Verifier {
            program: "egress",
            log,
            source: io::Error::from_raw_os_error(libc::EACCES),
        };
        let text = error.to_string();
        assert!(text.contains("line 99") && text.contains("88 lines before"));
        assert!(!text.contains("line 10\n"));
        assert!(matches!(error, Error::Verifier { log, .. } if log.contains("line 10\n")));
    }
}
