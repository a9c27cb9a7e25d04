//! `dynencap`: what an operator types.

fn main() {}
