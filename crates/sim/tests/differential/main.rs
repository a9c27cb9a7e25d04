//! Property tests over the engines: random hosts, option calls and packets, built straight
//! into batches. Model, vm and kernel must make the same of them, and each engine by itself
//! must keep the promises of the data path. Traces and scenarios are left to other tests.

mod agreement;
mod chain;
mod host;
mod invariant;
mod packet;
mod run;
mod shape;
mod step;
mod tunnel;
