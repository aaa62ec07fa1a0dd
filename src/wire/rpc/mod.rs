//! JSON-RPC 2.0 as the data plane speaks it: one message a line, borrowed from the line, ids echoed as they came.

mod answer;
mod code;
mod message;
mod params;
mod told;

#[cfg(test)]
pub(crate) use answer::tests::written;
pub use answer::{
    Limits, Opened, write_error, write_line, write_request, write_result, write_text, write_tool_error, write_waits,
};
pub use code::{Code, TOOL_CODES, tool_code};
pub use message::{DEPTH_MAX, ID_BYTES_MAX, Id, METHODS, Message, OwnId, parse};
pub use params::{
    BadParams, Batch, Capabilities, EventKind, Heartbeat, Item, Log, Metric, Open, Text, Usage, Version, object,
};
pub use told::{Told, told};
