//! The feed over HTTP: pages of JSON, or a stream that can be resumed.
//!
//! The ring holds the latest events; what it no longer holds comes from the journal, which keeps all kinds but `samples`. A reader that needs
//! the journal is told so by a `gap`: the numbers between which samples may be missing.

use std::{collections::VecDeque, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    dto,
    error::{Code, Problem},
    server::Deps,
    sse::{Frames, Source, Streams},
};
use crate::{
    control_plane::{Control, StoredEvent},
    events::{Feed, Gap, Subscription},
    model::{Event, Seq},
    view::{self, EventView},
};

/// Events on a page when no number is asked for.
pub(super) const PAGE_DEFAULT: usize = 100;
/// Events on a page at most; a `samples` event of a large hive alone is hundreds of kilobytes.
pub(super) const PAGE_MAX: usize = 1000;
/// Events that a stream takes from the journal at a time.
const JOURNAL_STEP: usize = 256;

/// Where the ring ended: it holds nothing between `after` and `first_kept`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gap)]
pub(super) struct GapView {
    after: u64,
    first_kept: u64,
    head: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(super) struct Page {
    #[schema(value_type = Vec<EventView<'static>>)]
    events: Vec<Box<RawValue>>,
    gap: Option<GapView>,
    head: u64,
    next_after: u64,
}

/// Events behind a number.
pub(super) async fn events(
    request: HttpRequest,
    deps: Data<Deps>,
    streams: Data<Streams>,
) -> Result<HttpResponse, Problem> {
    let query: dto::EventsQuery = dto::query(&request)?;
    let limit = dto::limit(query.limit, PAGE_DEFAULT, PAGE_MAX)?;
    let seen = dto::last_event_id(&request)?;
    if dto::wants_stream(&request, false) {
        // Who names no number is told what happens from now on.
        let after = seen.or(query.after).map_or_else(|| deps.feed.head(), Seq);
        return streams.respond(EventSource::new(&deps, after));
    }
    let after = Seq(query.after.unwrap_or(0));
    let page = page(&deps, after, limit).await?;
    Ok(HttpResponse::Ok().json(page))
}

async fn page(deps: &Deps, after: Seq, limit: usize) -> Result<Page, Problem> {
    let (events, gap) = match deps.feed.read(after, limit) {
        Ok(fresh) => (show_all(&fresh)?, None),
        // A number that the feed has not reached is of another data directory: nothing follows it.
        Err(gap) if gap.after > gap.head => (Vec::new(), Some(gap)),
        Err(gap) => {
            let stored = deps.control.events(after, limit).await?;
            let mut events: Vec<_> = before(stored, gap.first_kept).iter().map(show_stored).collect();
            if events.len() < limit {
                // If the ring has gone on meanwhile, the next page will say so.
                let behind = Seq(gap.first_kept.0 - 1);
                let fresh = deps.feed.read(behind, limit - events.len()).unwrap_or_default();
                events.extend(show_all(&fresh)?);
            }
            (events, Some(gap))
        }
    };
    let next_after = match (events.last(), &gap) {
        (Some(last), _) => last.0,
        (None, Some(gap)) if gap.after > gap.head => gap.head.0,
        (None, Some(gap)) => gap.first_kept.0 - 1,
        (None, None) => after.0,
    };
    Ok(Page {
        events: events.into_iter().map(|(_, event)| event).collect(),
        gap: gap.as_ref().map(gap_view),
        head: deps.feed.head().0,
        next_after,
    })
}

/// What of the journal's page the ring no longer holds.
fn before(mut stored: Vec<StoredEvent>, first_kept: Seq) -> Vec<StoredEvent> {
    stored.retain(|event| event.seq < first_kept);
    stored
}

fn show_stored(event: &StoredEvent) -> (u64, Box<RawValue>) {
    (event.seq.0, view::stored_event(&event.body))
}

fn show_all(events: &[Arc<Event>]) -> Result<Vec<(u64, Box<RawValue>)>, Problem> {
    let show = |event: &Arc<Event>| Ok((event.seq.0, serde_json::value::to_raw_value(&view::event(event))?));
    events.iter().map(show).collect::<Result<_, serde_json::Error>>().map_err(|error| {
        tracing::error!(%error, "an event could not be shown");
        Problem::new(Code::Internal, "an event could not be shown")
    })
}

fn gap_view(gap: &Gap) -> GapView {
    GapView { after: gap.after.0, first_kept: gap.first_kept.0, head: gap.head.0, error: None }
}

/// One stream's cursor.
struct EventSource {
    feed: Feed,
    control: Arc<dyn Control>,
    ring: Subscription,
    /// A gap that was met and is not announced yet.
    gap: Option<Gap>,
    /// Reading the journal: from behind this number up to the ring's first.
    journal: Option<(Seq, Seq)>,
    /// Stored events that did not fit into the chunk before.
    waiting: VecDeque<StoredEvent>,
}

impl EventSource {
    fn new(deps: &Deps, after: Seq) -> Self {
        let (feed, control) = (deps.feed.clone(), Arc::clone(&deps.control));
        Self { ring: feed.subscribe(after), feed, control, gap: None, journal: None, waiting: VecDeque::new() }
    }

    fn announce(&mut self, gap: &Gap) -> Frames {
        let mut frames = Frames::default();
        frames.push(None, "gap", &gap_view(gap));
        if gap.after <= gap.head {
            self.journal = Some((gap.after, gap.first_kept));
        }
        frames
    }

    fn waiting_frames(&mut self) -> Frames {
        let mut frames = Frames::default();
        while let Some(event) = self.waiting.pop_front() {
            frames.push(Some(event.seq.0), &event.kind, &view::stored_event(&event.body));
            if frames.is_full() {
                break;
            }
        }
        frames
    }

    /// A step through the journal. `None` when it ended and the ring goes on.
    async fn journal_frames(&mut self, after: Seq, first_kept: Seq) -> Option<Frames> {
        let read = self.control.events(after, JOURNAL_STEP).await;
        let (stored, failure) = match read {
            Ok(stored) => (before(stored, first_kept), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        match stored.last() {
            Some(last) => self.journal = Some((last.seq, first_kept)),
            None => {
                self.journal = None;
                self.ring = self.feed.subscribe(Seq(first_kept.0 - 1));
            }
        }
        self.waiting.extend(stored);
        failure.map(|error| {
            let mut frames = Frames::default();
            let head = self.feed.head().0;
            frames.push(None, "gap", &GapView { after: after.0, first_kept: first_kept.0, head, error: Some(error) });
            frames
        })
    }

    /// What the ring holds already, behind a first event.
    fn ring_frames(&mut self, first: &Event) -> Frames {
        let mut frames = Frames::default();
        push(&mut frames, first);
        while !frames.is_full() {
            match self.ring.try_next() {
                Ok(Some(event)) => push(&mut frames, &event),
                Ok(None) => break,
                Err(gap) => {
                    self.gap = Some(gap);
                    break;
                }
            }
        }
        frames
    }
}

fn push(frames: &mut Frames, event: &Event) {
    frames.push(Some(event.seq.0), event.kind.word(), &view::event(event));
}

impl Source for EventSource {
    async fn next(&mut self) -> Option<Frames> {
        loop {
            if let Some(gap) = self.gap.take() {
                return Some(self.announce(&gap));
            }
            if !self.waiting.is_empty() {
                return Some(self.waiting_frames());
            }
            if let Some((after, first_kept)) = self.journal {
                if let Some(frames) = self.journal_frames(after, first_kept).await {
                    return Some(frames);
                }
                continue;
            }
            match self.ring.next().await {
                Ok(event) => return Some(self.ring_frames(&event)),
                Err(gap) => self.gap = Some(gap),
            }
        }
    }
}
