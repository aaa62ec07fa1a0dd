//! What a client sees, whatever door it comes by.

use std::{borrow::Cow, pin::pin, time::Duration};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CompleteRequestMethod, CompleteRequestParams, CompleteResult,
        ErrorCode, ListPromptsRequestMethod, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
        ReadResourceResponse, ReadResourceResult, ResourceContents, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::shown;
use crate::tools::{self, Caller, Patience, ToolError, Tools, Unhurried};

/// Said to who asks before anybody knows who that is; the data plane's own number for the same.
const NOT_OPEN: ErrorCode = ErrorCode(1001);

/// The server. Copies are the same one.
#[derive(Clone)]
pub struct Mcp {
    tools: Tools,
}

/// Who asks, as the door has found out; nobody: the door does not know him. It travels with each request.
#[derive(Clone)]
pub(super) struct Asker(pub(super) Option<Caller>);

impl Mcp {
    /// A server that offers these tools.
    pub fn new(tools: Tools) -> Self {
        Self { tools }
    }

    async fn read(&self, caller: &Caller, uri: String) -> Result<ReadResourceResult, ErrorData> {
        let unknown = || ErrorData::resource_not_found(format!("there is no resource {uri:?}"), None);
        let (tool, arguments) = shown::reader(&uri).ok_or_else(unknown)?;
        match self.tools.call(caller, tool, &arguments.to_string(), &Unhurried).await {
            Ok(answer) => {
                let text = ResourceContents::text(answer.0, uri).with_mime_type(shown::READS);
                Ok(ReadResourceResult::new(vec![text]))
            }
            Err(error) => {
                let (why, data) = (error.to_string(), serde_json::json!({ "code": error.code() }));
                Err(match error {
                    ToolError::UnknownSwarm(_) => ErrorData::resource_not_found(why, Some(data)),
                    _ => ErrorData::internal_error(why, Some(data)),
                })
            }
        }
    }
}

impl ServerHandler for Mcp {
    fn get_info(&self) -> ServerConfig {
        shown::server()
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(shown::all().to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        shown::all().iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let CallToolRequestParams { name, arguments, .. } = request;
        if tools::find(&name).is_none() {
            let short: Cow<'_, str> = name.chars().take(80).collect();
            return Err(ErrorData::invalid_params(format!("there is no tool {short:?}"), None));
        }
        let caller = asker(&context)?;
        let arguments = Value::Object(arguments.unwrap_or_default()).to_string();
        let (words, mut said) = mpsc::channel(1);
        let patience = Words(words);
        let mut call = pin!(self.tools.call(&caller, &name, &arguments, &patience));
        let token = context.meta.get_progress_token();
        let telling = async {
            while let Some((waited, what)) = said.recv().await {
                if let Some(token) = &token {
                    let word = ProgressNotificationParam::new(token.clone(), Duration::as_secs_f64(&waited));
                    // Who can't be told of it still gets his answer.
                    let _ = context.peer.notify_progress(word.with_message(format!("waiting for {what}"))).await;
                }
            }
        };
        let answer = tokio::select! {
            answer = &mut call => answer,
            // The call holds the other end: this has no end of its own.
            () = telling => call.await,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
        };
        let shown = match &answer {
            Ok(answer) => shown::answered(answer.clone()),
            Err(error) => shown::refused(error),
        };
        Ok(shown.into())
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let caller = asker(&context)?;
        Ok(ListResourcesResult::with_all_items(shown::resources(&caller)))
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(shown::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = asker(&context)?;
        tokio::select! {
            read = self.read(&caller, request.uri) => Ok(read?.into()),
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
        }
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    async fn complete(
        &self,
        _request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
    }
}

/// Whom the door found out. By HTTP it travels with the parts of the request.
fn asker(context: &RequestContext<RoleServer>) -> Result<Caller, ErrorData> {
    let parts = context.extensions.get::<http::request::Parts>();
    let asker = context.extensions.get::<Asker>().or_else(|| parts?.extensions.get());
    asker.and_then(|Asker(caller)| caller.clone()).ok_or_else(|| {
        let allowed = "send hive/open first, or say in _meta who you are: dev.hivekeeper/token, dev.hivekeeper/agent, dev.hivekeeper/incarnation";
        ErrorData::new(NOT_OPEN, format!("nobody knows who asks; {allowed}"), None)
    })
}

/// Passes on that an answer takes its time; of words that nobody has taken yet the first is enough.
struct Words(mpsc::Sender<(Duration, String)>);

impl Patience for Words {
    fn waits(&self, waited: Duration, what: &str) {
        let _ = self.0.try_send((waited, what.to_owned()));
    }
}
