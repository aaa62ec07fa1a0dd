//! An agent's captured output: pages of JSON, or a stream that follows it.

use std::{sync::Arc, time::SystemTime};

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use tokio::sync::watch;

use super::{
    dto,
    error::{Code, Problem},
    server::Deps,
    sse::{Frames, Source, Streams},
};
use crate::{
    control_plane::{Control, LogPage, LogQuery},
    model::AgentId,
};

/// Lines on a page when no number is asked for.
pub(super) const PAGE_DEFAULT: usize = 1000;
/// Lines on a page at most, and the longest `tail`.
pub(super) const PAGE_MAX: usize = 5000;
/// Lines that a stream reads at a time.
const FOLLOW_STEP: usize = 256;

/// Lines were dropped from the log's old end before this reader came to them.
#[derive(Serialize)]
struct GapView {
    after: u64,
    first_kept: u64,
}

#[derive(Serialize)]
struct EndView {
    reason: String,
}

/// Lines of an agent. Without `after`, `since` and `tail` they are the last ones.
pub(super) async fn logs(
    request: HttpRequest,
    deps: Data<Deps>,
    streams: Data<Streams>,
) -> Result<HttpResponse, Problem> {
    let agent = dto::agent_id(&request)?;
    let query: dto::LogsQuery = dto::query(&request)?;
    let limit = dto::limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let tail = dto::bounded("tail", query.tail, PAGE_MAX)?;
    let since = query.since.map(|text| dto::since(&text, SystemTime::now())).transpose()?;
    let follow = dto::wants_stream(&request, query.follow);
    let seen = dto::last_event_id(&request)?;
    let after = if follow { seen.or(query.after) } else { query.after };
    let unbounded = after.is_none() && since.is_none() && tail.is_none();
    let tail = if unbounded { Some(limit) } else { tail };
    if !follow {
        let page =
            deps.control.logs(agent, LogQuery { after, since, tail, limit: limit.max(tail.unwrap_or(0)) }).await?;
        return Ok(HttpResponse::Ok().json(dto::log_page(&page)));
    }
    let growth = deps
        .control
        .log_growth(&agent)
        .ok_or_else(|| Problem::new(Code::NotFound, format!("agent {agent} not found")))?;
    let control = Arc::clone(&deps.control);
    let first = LogQuery { after, since, tail, limit: FOLLOW_STEP.max(tail.unwrap_or(0)) };
    streams.respond(LogSource { control, agent, growth, first: Some(first), cursor: after, page: None, ended: false })
}

/// One stream's cursor.
struct LogSource {
    control: Arc<dyn Control>,
    agent: AgentId,
    growth: watch::Receiver<u64>,
    /// The query to begin with, until it was answered.
    first: Option<LogQuery>,
    /// The last number that was sent, or where the client stood.
    cursor: Option<u64>,
    /// Lines that were read and not sent yet, and how many of them were.
    page: Option<(LogPage, usize)>,
    ended: bool,
}

impl LogSource {
    fn query(&self) -> LogQuery {
        self.first.clone().unwrap_or(LogQuery { after: self.cursor, limit: FOLLOW_STEP, ..LogQuery::default() })
    }

    /// Takes a page over; tells whether lines are missing before it.
    fn take(&mut self, page: LogPage) -> Option<Frames> {
        let first = self.first.take().is_some();
        let missed = self.cursor.filter(|cursor| page.first_kept > cursor.saturating_add(1));
        let gap = missed.map(|after| {
            let mut frames = Frames::default();
            self.cursor = Some(page.first_kept - 1);
            frames.push(None, "gap", &GapView { after, first_kept: page.first_kept });
            frames
        });
        if first && page.lines.is_empty() {
            self.cursor = Some(self.cursor.unwrap_or(0).max(page.last));
        }
        self.page = Some((page, 0)).filter(|(page, _)| !page.lines.is_empty());
        gap
    }

    fn page_frames(&mut self) -> Option<Frames> {
        let (page, sent) = self.page.as_mut()?;
        let mut frames = Frames::default();
        while let Some(line) = page.lines.get(*sent) {
            frames.push(Some(line.number), "line", &dto::log_line(line));
            self.cursor = Some(line.number);
            *sent += 1;
            if frames.is_full() {
                break;
            }
        }
        if *sent == page.lines.len() {
            self.page = None;
        }
        Some(frames).filter(|frames| !frames.is_empty())
    }

    fn end(&mut self, reason: String) -> Frames {
        self.ended = true;
        let mut frames = Frames::default();
        frames.push(None, "end", &EndView { reason });
        frames
    }
}

impl Source for LogSource {
    async fn next(&mut self) -> Option<Frames> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(frames) = self.page_frames() {
                return Some(frames);
            }
            // Marked as seen before the log is read: what is written in between wakes the next wait.
            self.growth.borrow_and_update();
            let page = match self.control.logs(self.agent.clone(), self.query()).await {
                Ok(page) => page,
                Err(error) => return Some(self.end(error.to_string())),
            };
            if let Some(gap) = self.take(page) {
                return Some(gap);
            }
            if self.page.is_none() && self.growth.changed().await.is_err() {
                return Some(self.end(format!("agent {} is no longer part of the hive", self.agent)));
            }
        }
    }
}
