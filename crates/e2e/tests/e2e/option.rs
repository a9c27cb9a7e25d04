//! Options on real sockets of nobody's.

use crate::Test;
use dynencap_e2e::agent::Job;

pub(crate) const JOBS: &[Job] = &[];
pub(crate) const TESTS: &[Test] = &[];
