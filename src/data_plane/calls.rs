//! Calls of tools that a session has made and that have no answer yet. The connection owns them: when it ends, nobody waits for them any more, and what
//! was decided stands.

use std::{future::pending, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use tokio::sync::mpsc;

use super::limits::CALLS_MAX;
use crate::{
    model::Party,
    tools::{Answer, Caller, Patience, ToolError, Tools},
    wire::rpc::OwnId,
};

/// What a session asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// To be echoed.
    pub(super) id: OwnId,
    /// Which tool.
    pub(super) tool: &'static str,
    /// The text of its arguments.
    pub(super) arguments: String,
}

/// What is to be told to whoever has asked.
#[derive(Debug)]
pub(super) enum Word {
    /// The end of a call.
    Answer(OwnId, Result<Answer, ToolError>),
    /// It takes its time.
    Waits(OwnId, Duration, String),
}

/// Those of one connection. One that asks for nothing has none of it.
#[derive(Default)]
pub(super) struct Calls(Option<Box<Open>>);

struct Open {
    calls: FuturesUnordered<BoxFuture<'static, Word>>,
    waiting: mpsc::Sender<Word>,
    waits: mpsc::Receiver<Word>,
}

impl Calls {
    /// Begins a call.
    pub(super) fn begin(&mut self, tools: &Tools, by: Party, Ask { id, tool, arguments }: Ask) {
        let open = self.0.get_or_insert_with(|| {
            let (waiting, waits) = mpsc::channel(CALLS_MAX);
            Box::new(Open { calls: FuturesUnordered::new(), waiting, waits })
        });
        let (tools, patience) = (tools.clone(), Waiting { id: id.clone(), words: open.waiting.clone() });
        let call = async move {
            let answer = tools.call(&Caller::Agent(by), tool, &arguments, &patience).await;
            Word::Answer(id, answer)
        };
        open.calls.push(call.boxed());
    }

    /// The next that is to be told; waits for ever while nothing was asked for. May be dropped at any time: nothing is lost.
    pub(super) async fn next(&mut self) -> Word {
        let Some(open) = &mut self.0 else { return pending().await };
        let word = tokio::select! {
            biased;
            Some(word) = open.waits.recv() => word,
            Some(word) = open.calls.next() => word,
            else => pending().await,
        };
        if open.calls.is_empty() {
            self.0 = None;
        }
        word
    }
}

struct Waiting {
    id: OwnId,
    words: mpsc::Sender<Word>,
}

impl Patience for Waiting {
    fn waits(&self, waited: Duration, what: &str) {
        // Where the last ones were not taken yet, this one says nothing new.
        let _ = self.words.try_send(Word::Waits(self.id.clone(), waited, what.to_owned()));
    }
}
