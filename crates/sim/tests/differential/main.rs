//! Property tests over the engines: random hosts, option calls and packets, built straight
//! into batches. Model, vm and kernel must make the same of them, and each engine by itself
//! must keep the promises of the data path. Traces and scenarios are left to other tests.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod host;
#[cfg(test)]
mod icmp;
#[cfg(test)]
mod invariant;
#[cfg(test)]
mod packet;
#[cfg(test)]
mod reflect;
#[cfg(test)]
mod run;
#[cfg(test)]
mod shape;
#[cfg(test)]
mod step;
#[cfg(test)]
mod tunnel;
