//! Configuration: layers in, one checked [`Config`] out, or every problem at once.
//!
//! The layers are the compiled-in `config.toml`, the user's file, `HIVEKEEPER__TABLE__KEY` variables and flags. Each becomes a [`tree`] whose
//! nodes know where they stand; [`read`] turns nodes into values, [`draft`] lays the layers over one another, [`swarm`] reads swarm documents,
//! [`source`] MCP servers, [`notify`] who is told, [`home`] where swarms run ([`container`] and [`mounts`] know the words of containers, [`engine`] the sockets, [`secret`] what `env` holds) and [`check`] looks at what only
//! the whole can tell.

mod api;
mod changed;
mod check;
mod container;
mod data_plane;
mod draft;
mod engine;
mod fields;
mod home;
mod load;
mod mounts;
mod notify;
mod problem;
mod read;
mod secret;
mod settings;
mod source;
mod suggest;
mod swarm;
mod tls;
mod tree;

pub use api::Documents;
pub use load::{COMPILED_IN, FILE_NAME, FlagValue, LoadArgs, Loader, read_file, resolve_path};
pub use problem::{ConfigErrors, Place, Problem};
pub use settings::{
    Config, CoordinationConfig, DataPlaneConfig, DiskConfig, DockerConfig, HistoryConfig, HiveConfig, HttpConfig,
    JournalConfig, LogConfig, LogFormat, LogLevel, RuntimeConfig, Token,
};
pub use suggest::nearest;
