//! The engine as typed operations: the one place that knows bollard. No policy lives here, save what must never happen whoever asks: a privileged
//! container, an engine's socket within a container, an end put to a container that is not ours.
//!
//! Every call has a deadline of its own. Streams ([`Exec`], [`Events`], [`Engine::wait`]) have none and end when they are dropped.

mod client;
mod container;
mod error;
mod events;
mod exec;
mod image;
mod names;
mod network;
mod observed;
mod own;
mod parcel;
mod plan;
mod starts;
mod tar;
mod volume;

pub use client::Engine;
pub use container::{Created, Until};
pub use error::{
    CallError, ConnectError, ContainerError, CreateError, DeliverError, ExecError, NetworkError, PlanError, VolumeError,
};
pub use events::{ContainerEvent, Events, Happening, Incident};
pub use exec::{Exec, ExecEnd, ExecOrder, ExecStderr, ExecStdin, ExecStdout};
pub use image::Image;
pub use names::{Owner, label, resource_name};
pub use network::OurNetwork;
pub use observed::{ContainerState, Listed};
pub use own::OutsideError;
pub use parcel::Parcel;
pub use plan::{ContainerPlan, LAUNCHER_DIR, LAUNCHER_PATH, Limits, MountPlan, Network, RUN_DIR, hold_command};
pub use volume::LauncherVolume;
