//! What the fuzz targets have in common: inputs that reach deep, and their seeds.
//!
//! An input is a head of fixed length and then bytes as they come. A head of zeros stands for
//! what works (a valid exit, tunnels that fit it, the frame's own Ethernet type), so that a
//! seed is zeros and a packet, and each changed byte leads away from there. What must hold is
//! the targets' to say.

mod input;
mod seed;

pub use input::{Call, Hosting, Shape, Split, frame, split};
pub use seed::{Kind, plant};
