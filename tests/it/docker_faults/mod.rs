//! Faults of swarms in containers, against a real engine and the whole daemon. Each case has a hive of its own and ends with nothing left of it: no
//! container, no network, no process.

mod beside;
mod busybox;
mod containers;
mod daemons;
mod deaths;
mod engines;
mod floods;
mod freezes;
mod groups;
mod harness;
mod links;
mod orphans;
mod proxy;
mod second;
mod secrets;
mod sessions;
mod spares;
mod starts;
mod steps;
mod trees;
