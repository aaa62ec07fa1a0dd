//! Our executable inside a container: each errand is one attached exec.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::timeout,
};

use super::engine::{Engine, Exec, ExecError, ExecOrder, ExecStderr, ExecStdout};
use crate::{
    model::LaunchId,
    runtime::{
        lead::{ANSWER_DEADLINE, Link, LinkError},
        orphans::{MARKER, Tree},
    },
    wire::channel::FromLauncher,
};

/// First words of something that is no launcher which are passed on: the engine says there why nothing was started.
const SAID_LEN_MAX: usize = 512;

/// How long a sweep inside may take: its own deadline is 5 s, and an exec a fraction of a second.
const SWEEP_ANSWER: Duration = Duration::from_secs(10);

/// The way into a container, as one incarnation of it has it: what was launched through one door is not to be looked for behind another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    /// The container's id.
    pub(super) container: String,
    /// Our executable in it.
    pub(super) launcher: String,
    /// Where its launchers keep their sockets and records.
    pub(super) run_dir: String,
    /// Who errands and agents run as; `None` is the container's own user.
    pub(super) user: Option<String>,
    /// When the container was started, where it may be started again; one of ours never is.
    pub(super) started_at: Option<SystemTime>,
}

/// A launcher, or whoever speaks for it.
pub(super) struct Visit {
    pub(super) link: Link,
    first_words: Arc<Mutex<Vec<u8>>>,
    stderr: ExecStderr,
}

impl Visit {
    /// The one frame that an errand answers with.
    async fn answer(&mut self, within: Duration) -> Result<FromLauncher, VisitError> {
        let answer = async {
            self.link.incoming.hello().await?;
            self.link.incoming.next().await
        };
        let answer = timeout(within, answer).await.unwrap_or(Err(LinkError::Silent));
        answer.map_err(|error| self.why(&error))
    }

    /// Why it is no launcher, as far as it can be told.
    fn why(&self, error: &LinkError) -> VisitError {
        let mut said = self.stderr.text();
        if said.trim().is_empty() && matches!(error, LinkError::Frame(_)) {
            // The engine's own words come where the launcher's would.
            said = String::from_utf8_lossy(&self.first_words.lock()).into_owned();
        }
        VisitError::Spoke(match said.trim() {
            "" => error.to_string(),
            said => format!("{error}; it said: {said}"),
        })
    }
}

/// Why an errand came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum VisitError {
    /// The exec itself.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// What was started is no launcher of ours, or was not started: in its own words or the engine's.
    #[error("{0}")]
    Spoke(String),
}

/// Starts a launcher, introduced and without an order.
pub(super) async fn launcher(engine: &Engine, door: &Door, launch_id: LaunchId) -> Result<Visit, VisitError> {
    let env = BTreeMap::from([(MARKER.to_owned(), launch_id.to_string())]);
    let mut visit = visit(engine, door, &["--stdio"], env).await?;
    match timeout(ANSWER_DEADLINE, visit.link.incoming.hello()).await.unwrap_or(Err(LinkError::Silent)) {
        Ok(()) => Ok(visit),
        Err(error) => Err(visit.why(&error)),
    }
}

/// A fresh channel to the launcher of a launch.
pub(super) async fn attach(engine: &Engine, door: &Door, launch_id: LaunchId) -> Result<Visit, VisitError> {
    visit(engine, door, &["--attach", &door.run_dir, &launch_id.to_string()], BTreeMap::new()).await
}

/// Ends what is left of a launch. The error says why it is not proven that nothing is.
pub(super) async fn sweep(engine: &Engine, door: &Door, tree: &Tree) -> Result<(), VisitError> {
    let leader = tree.leader.map(|leader| leader.pid.to_string());
    let mut words = vec!["--sweep", tree.launch_id.as_str()];
    words.extend(leader.as_deref());
    let mut visit = visit(engine, door, &words, BTreeMap::new()).await?;
    match visit.answer(SWEEP_ANSWER).await? {
        FromLauncher::Swept { left: 0, .. } => Ok(()),
        FromLauncher::Swept { left, .. } => Err(VisitError::Spoke(format!("{left} processes are still alive"))),
        other => Err(out_of_place(&other)),
    }
}

/// The launches that have a socket in a container.
pub(super) async fn list(engine: &Engine, door: &Door) -> Result<Vec<LaunchId>, VisitError> {
    let mut visit = visit(engine, door, &["--list", &door.run_dir], BTreeMap::new()).await?;
    match visit.answer(ANSWER_DEADLINE).await? {
        FromLauncher::Listed { launch_ids } => Ok(launch_ids.iter().filter_map(|id| id.parse().ok()).collect()),
        other => Err(out_of_place(&other)),
    }
}

/// Makes the run directory behind a door, in a container of others. That it answers proves that the launcher runs there, too.
pub(super) async fn settle(engine: &Engine, door: &Door) -> Result<(), VisitError> {
    let mut visit = visit(engine, door, &["--settle", &door.run_dir], BTreeMap::new()).await?;
    done(visit.answer(ANSWER_DEADLINE).await?)
}

/// Removes what is ours there, save what begins with one of the words of `keep`; without any, the directory itself.
pub(super) async fn clear(engine: &Engine, door: &Door, home: &str, keep: &[&str]) -> Result<(), VisitError> {
    let words = [&["--clear", home], keep].concat();
    let mut visit = visit(engine, door, &words, BTreeMap::new()).await?;
    done(visit.answer(SWEEP_ANSWER).await?)
}

fn done(frame: FromLauncher) -> Result<(), VisitError> {
    match frame {
        FromLauncher::Listed { .. } => Ok(()),
        FromLauncher::Refused { message, .. } => Err(VisitError::Spoke(message)),
        other => Err(out_of_place(&other)),
    }
}

async fn visit(
    engine: &Engine,
    door: &Door,
    words: &[&str],
    env: BTreeMap<String, String>,
) -> Result<Visit, VisitError> {
    let argv = [door.launcher.as_str(), "agent"].iter().chain(words).map(|word| (*word).to_owned()).collect();
    let order = ExecOrder { argv, env, user: door.user.clone() };
    let Exec { stdout, stdin, stderr, .. } = engine.exec(&door.container, &order).await?;
    let first_words = Arc::new(Mutex::new(Vec::new()));
    let heard = Heard { stdout, first_words: Arc::clone(&first_words) };
    Ok(Visit { link: Link::new(Box::new(heard), Box::new(stdin)), first_words, stderr })
}

fn out_of_place(frame: &FromLauncher) -> VisitError {
    VisitError::Spoke(match frame {
        FromLauncher::Refused { code, message } => format!("refused {code}: {message}"),
        _ => "an answer out of place".to_owned(),
    })
}

/// Keeps the first bytes that pass, for the case that they are no launcher's.
struct Heard {
    stdout: ExecStdout,
    first_words: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        let mut words = self.first_words.lock();
        let room = SAID_LEN_MAX - words.len();
        let new = &buf.filled()[before..];
        words.extend_from_slice(&new[..new.len().min(room)]);
        Poll::Ready(Ok(()))
    }
}
