//! Our tools, health and tasks in MCP's words.

use std::sync::{Arc, LazyLock};

use rmcp::model::{
    CallToolResult, ContentBlock, Implementation, JsonObject, Resource, ResourceTemplate, ServerCapabilities,
    ServerConfig, Tool, ToolAnnotations,
};
use serde_json::{Value, json};

use crate::{
    model::SwarmName,
    tools::{self, Answer, Caller, Effect, ToolError},
};

/// What a model reads before it uses the tools.
const INSTRUCTIONS: &str = "\
Agents of one swarm share work here. Nothing is done twice and nothing is lost when an agent dies, if everybody keeps to this:\n\
1. task_claim gives you ready tasks, each with a fencing token, `claim.fence`. Show it in every later call on that task.\n\
2. A claim and a lock are leases: renew them with task_renew and lock_renew before they end, unless your heartbeat does it.\n\
3. Before you write to a file or a directory, lock its path with lock_acquire; release it when you have written.\n\
4. End each task with task_complete and its result, with task_fail and the reason, or with task_release if another should do it.\n\
5. message_receive brings what others wrote to you; message_ack each message once you have dealt with it, or it comes again.\n\
6. After a restart ask task_held what your predecessor held.\n\
A refusal says its `code` and why. `stale_token` means that the work is no longer yours: stop it and claim anew.";

const JSON: &str = "application/json";
const HEALTH: &str = "hive://health";
const SWARMS: &str = "hive://swarms/";
const TASKS: &str = "/tasks";

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| tools::all().map(tool).collect());

/// What the server says of itself.
pub(super) fn server() -> ServerConfig {
    let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
    let server = Implementation::new("hivekeeper", env!("CARGO_PKG_VERSION")).with_title("Hivekeeper");
    ServerConfig::new(capabilities).with_server_info(server).with_instructions(INSTRUCTIONS)
}

/// Every tool.
pub(super) fn all() -> &'static [Tool] {
    &TOOLS
}

fn tool(tool: &tools::Tool) -> Tool {
    let hints = match tool.effect {
        Effect::Reads => ToolAnnotations::new().read_only(true),
        Effect::Adds => ToolAnnotations::new().read_only(false).destructive(false).idempotent(false),
        Effect::AddsOnce => ToolAnnotations::new().read_only(false).destructive(false).idempotent(true),
        Effect::Ends => ToolAnnotations::new().read_only(false).destructive(true),
    };
    Tool::new(tool.name, tool.about, object((tool.arguments)()))
        .with_title(tool.title)
        .with_raw_output_schema(object((tool.answer)()))
        .with_annotations(hints.open_world(false))
}

fn object(schema: Value) -> Arc<JsonObject> {
    let Value::Object(schema) = schema else { return Arc::default() };
    Arc::new(schema)
}

/// The answer of a tool, as structured content and as the same text.
pub(super) fn answered(Answer(text): Answer) -> CallToolResult {
    let structured = serde_json::from_str(&text).ok();
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = structured;
    result
}

/// A refusal, which the model is to read. It is text alone: structured content would have to be what the schema of the answer says.
pub(super) fn refused(error: &ToolError) -> CallToolResult {
    let text = json!({ "code": error.code(), "message": error.to_string() }).to_string();
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// What can be read without a tool.
pub(super) fn resources(caller: &Caller) -> Vec<Resource> {
    let health = Resource::new(HEALTH, "health")
        .with_title("Health")
        .with_description("The health document of the hive.")
        .with_mime_type(JSON);
    let tasks = match caller {
        Caller::Agent(party) => Some(
            Resource::new(format!("{SWARMS}{}{TASKS}", party.id.swarm), "tasks")
                .with_title("Tasks")
                .with_description("The tasks of your swarm, and which waits for which.")
                .with_mime_type(JSON),
        ),
        Caller::Client { .. } => None,
    };
    [health].into_iter().chain(tasks).collect()
}

/// The same for any swarm.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let tasks = ResourceTemplate::new(format!("{SWARMS}{{swarm}}{TASKS}"), "swarm tasks")
        .with_title("Tasks of a swarm")
        .with_description("The tasks of a swarm, and which waits for which.")
        .with_mime_type(JSON);
    vec![tasks]
}

/// The tool that reads a resource, and its arguments; `None`: there is no such resource.
pub(super) fn reader(uri: &str) -> Option<(&'static str, Value)> {
    if uri == HEALTH {
        return Some(("health", json!({})));
    }
    let swarm: SwarmName = uri.strip_prefix(SWARMS)?.strip_suffix(TASKS)?.parse().ok()?;
    Some(("task_graph", json!({ "swarm": swarm.to_string() })))
}

/// The media type of what [`reader`] reads.
pub(super) const READS: &str = JSON;
