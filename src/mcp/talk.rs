//! MCP on a connection of lines: whoever owns the connection hands lines in, with who asks, and takes lines out.

use std::{collections::HashMap, io, sync::Arc};

use rmcp::{
    RoleServer,
    model::{
        ClientJsonRpcMessage, ClientNotification, GetExtensions as _, GetMeta as _, JsonRpcMessage, RequestId,
        ServerJsonRpcMessage,
    },
    serve_server,
    transport::Transport,
};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
};

use super::handler::{Asker, Mcp};
use crate::{
    model::{AgentId, Party},
    tools::Caller,
};

/// Requests of one connection that may be without an answer. A model calls some tools at once and waits for one lock or message; this is several times
/// that.
const REQUESTS_MAX: usize = 32;
/// Lines either way that wait to be taken.
const LINES_MAX: usize = 16;

/// Where a request says who asks. The names are of our own domain, as MCP wants it of whoever adds to `_meta`.
const TOKEN: &str = "dev.hivekeeper/token";
const AGENT: &str = "dev.hivekeeper/agent";
const INCARNATION: &str = "dev.hivekeeper/incarnation";

/// Whether a method is one of MCP's.
pub fn speaks(method: &str) -> bool {
    const WHOLE: [&str; 3] = ["initialize", "ping", "server/discover"];
    const ROOMS: [&str; 8] =
        ["completion/", "logging/", "notifications/", "prompts/", "resources/", "subscriptions/", "tasks/", "tools/"];
    WHOLE.contains(&method) || ROOMS.iter().any(|room| method.starts_with(room))
}

/// Who a request says that it comes from; nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The incarnation's secret.
    pub token: String,
    /// The agent.
    pub agent: AgentId,
    /// Which start of it.
    pub incarnation: u64,
}

/// Why a line was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Deaf {
    /// It is JSON and no message of MCP.
    #[error("it is no message of MCP")]
    Malformed,
    /// Too many requests of this connection have no answer yet.
    #[error("{REQUESTS_MAX} requests of this connection have no answer yet")]
    Busy,
    /// The conversation is over.
    #[error("the conversation is over")]
    Over,
}

/// One conversation. Dropping it ends it, and every call that is under way.
pub struct Talk {
    lines: mpsc::Sender<(ClientJsonRpcMessage, Option<Place>)>,
    answers: mpsc::Receiver<(Vec<u8>, Option<Place>)>,
    places: Arc<Semaphore>,
    begun: bool,
    served: JoinHandle<()>,
}

/// The place of one request among those that have no answer. Given back when the owner of the connection has taken the answer and the call has ended.
type Place = Arc<OwnedSemaphorePermit>;

impl Talk {
    /// A conversation on the runtime that this is called on.
    pub fn new(mcp: Mcp) -> Self {
        let (lines, heard) = mpsc::channel(LINES_MAX + REQUESTS_MAX);
        let (said, answers) = mpsc::channel(LINES_MAX);
        let line = Line { heard, said, open: HashMap::new() };
        let served = tokio::spawn(async move {
            // What went wrong is the client's to know, and it has been told.
            if let Ok(running) = serve_server(mcp, line).await {
                let _ = running.waiting().await;
            }
        });
        Self { lines, answers, places: Arc::new(Semaphore::new(REQUESTS_MAX)), begun: false, served }
    }

    /// Takes one line. Who asks is whom the session serves, unless the request itself says and can prove it: `prove` judges that.
    ///
    /// # Errors
    /// Why it was not taken; nobody has answered it then.
    pub fn hear(
        &mut self,
        line: &[u8],
        session: Option<Party>,
        prove: impl FnOnce(&Claimed) -> bool,
    ) -> Result<(), Deaf> {
        let mut message: ClientJsonRpcMessage = serde_json::from_slice(line).map_err(|_| Deaf::Malformed)?;
        let place = match &mut message {
            JsonRpcMessage::Request(request) => {
                let place = Arc::new(Arc::clone(&self.places).try_acquire_owned().map_err(|_| Deaf::Busy)?);
                // The secret goes no further than here.
                let said = &mut request.request.get_meta_mut().0.0;
                let claimed = claimed([said.remove(TOKEN), said.remove(AGENT), said.remove(INCARNATION)]);
                let party = match claimed {
                    Said::Nothing => session,
                    Said::Claims(claimed) => {
                        prove(&claimed).then_some(Party { id: claimed.agent, incarnation: Some(claimed.incarnation) })
                    }
                    Said::Nonsense => None,
                };
                let extensions = request.request.extensions_mut();
                extensions.insert(Asker(party.map(Caller::Agent)));
                extensions.insert(Arc::clone(&place));
                self.begun = true;
                Some(place)
            }
            // Of what a client tells only this concerns us, and only of requests that were made.
            JsonRpcMessage::Notification(told)
                if self.begun && matches!(told.notification, ClientNotification::CancelledNotification(_)) =>
            {
                None
            }
            // We ask nothing, so nothing is answered to us.
            _ => return Ok(()),
        };
        self.lines.try_send((message, place)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Deaf::Busy,
            mpsc::error::TrySendError::Closed(_) => Deaf::Over,
        })
    }

    /// The next line for the client, its end included; `None` when the conversation is over. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.answers.recv().await.map(|(line, _)| line)
    }

    /// Whether a request has no answer yet.
    pub fn waits(&self) -> bool {
        self.places.available_permits() < REQUESTS_MAX
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// What a request says of its sender.
enum Said {
    Nothing,
    Claims(Claimed),
    /// Something, and not all that is needed.
    Nonsense,
}

fn claimed(said: [Option<Value>; 3]) -> Said {
    let [Some(token), Some(agent), Some(incarnation)] = said else {
        return if said == [None, None, None] { Said::Nothing } else { Said::Nonsense };
    };
    // In an environment the incarnation is text.
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    match (token, agent.as_str().and_then(|agent| agent.parse().ok()), number(&incarnation)) {
        (Value::String(token), Some(agent), Some(incarnation)) => Said::Claims(Claimed { token, agent, incarnation }),
        _ => Said::Nonsense,
    }
}

/// rmcp's end.
struct Line {
    heard: mpsc::Receiver<(ClientJsonRpcMessage, Option<Place>)>,
    said: mpsc::Sender<(Vec<u8>, Option<Place>)>,
    /// Places of requests without an answer.
    open: HashMap<RequestId, Place>,
}

impl Transport<RoleServer> for Line {
    type Error = io::Error;

    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(&response.id),
            JsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        let place = answered.and_then(|id| self.open.remove(id));
        let said = self.said.clone();
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            said.send((line, place)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        let (message, place) = self.heard.recv().await?;
        match (&message, place) {
            (JsonRpcMessage::Request(request), Some(place)) => {
                self.open.insert(request.id.clone(), place);
            }
            (JsonRpcMessage::Notification(told), _) => {
                if let ClientNotification::CancelledNotification(cancelled) = &told.notification
                    && let Some(id) = &cancelled.params.request_id
                {
                    self.open.remove(id);
                }
            }
            _ => {}
        }
        Some(message)
    }

    async fn close(&mut self) -> io::Result<()> {
        self.heard.close();
        Ok(())
    }
}
