//! One closed set of codes, mapped to HTTP in one place, and the problem documents (RFC 9457) that carry them.

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};

use crate::{control_plane::ControlError, tools::ToolError, view};

/// The closed set: each code with its word, its status, what it means and what to do about it.
macro_rules! codes {
    ($($code:ident $word:literal $status:ident $meaning:literal $advice:literal;)+) => {
        /// Why a request was refused. The word is stable; scripts may rely on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Code {
            $($code,)+
        }

        impl Code {
            pub(super) const ALL: &[Self] = &[$(Self::$code,)+];

            pub(super) fn status(self) -> StatusCode {
                match self {
                    $(Self::$code => StatusCode::$status,)+
                }
            }

            pub(super) fn word(self) -> &'static str {
                match self {
                    $(Self::$code => $word,)+
                }
            }

            /// What it means, in a sentence.
            pub(super) fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => $meaning,)+
                }
            }

            /// What whoever gets it can do.
            pub(super) fn advice(self) -> &'static str {
                match self {
                    $(Self::$code => $advice,)+
                }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" BAD_REQUEST
        "A header is missing, is there twice, or holds what it may not hold."
        "Mend the header that the detail names. Each request needs exactly one `Host`.";
    InvalidQuery "invalid_query" BAD_REQUEST
        "A parameter of the query is unknown, or its value is not allowed."
        "The detail names the parameter, what was found and what is allowed.";
    InvalidBody "invalid_body" BAD_REQUEST
        "The body is no JSON, or not the JSON that this route takes."
        "The detail names the key or the place.";
    Unauthorized "unauthorized" UNAUTHORIZED
        "No token was shown, and this daemon asks for one."
        "Send `Authorization: Bearer TOKEN`; the command line takes it from `HIVEKEEPER_API_TOKEN`.";
    InvalidToken "invalid_token" UNAUTHORIZED
        "The token is not one of this daemon's, has expired, or was revoked."
        "Ask whoever runs the daemon for another.";
    Forbidden "forbidden" FORBIDDEN
        "The token may look and not change anything."
        "Use a token of the scope `control`.";
    ReadOnly "read_only" FORBIDDEN
        "The tool changes something, and the token may look alone. Doors that call tools by name say it."
        "Use a token of the scope `control`.";
    OriginRefused "origin_refused" FORBIDDEN
        "A page of another origin sent the request."
        "Pages of other origins can't use the API. Put the page behind one of the daemon's own names, `[http] hosts`.";
    NotFound "not_found" NOT_FOUND
        "There is no such route, swarm, agent or operation."
        "`GET /api/v1/swarms` lists what there is; `GET /api/v1/openapi.json` lists the routes.";
    UnknownSwarm "unknown_swarm" NOT_FOUND
        "Work was asked for of a swarm that is not there."
        "`GET /api/v1/swarms` lists what there is.";
    UnknownTask "unknown_task" NOT_FOUND
        "The swarm has no such task, or no more: what has ended is forgotten in time."
        "`GET /api/v1/tasks` lists those that it has.";
    UnknownLock "unknown_lock" NOT_FOUND
        "The swarm has no such lock, or it has ended: it was given back, its lease was not renewed, or its holder has ended."
        "Acquire it anew. `GET /api/v1/locks` lists those that are held and waited for.";
    UnknownMessage "unknown_message" NOT_FOUND
        "There is no such message for this recipient, or it is acknowledged."
        "`GET /api/v1/messages` lists those that wait.";
    UnknownRecipient "unknown_recipient" NOT_FOUND
        "A message is to go to somebody whom the swarm does not have."
        "Write to an agent of the swarm, as `GET /api/v1/swarms` shows them.";
    UnknownTool "unknown_tool" NOT_FOUND
        "There is no tool of this name. Doors that call tools by name say it."
        "The list of tools names those that are.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED
        "The path is there, and does not take this method."
        "`Allow` names the methods that it takes.";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT
        "The body took too long to arrive."
        "Send it again, in one piece.";
    Conflict "conflict" CONFLICT
        "The command does not fit the present state."
        "The detail says why. Look at the swarm, then decide.";
    StaleToken "stale_token" CONFLICT
        "The fencing token is not, or no longer, good: the right that it stood for has ended, and may be somebody else's now."
        "Stop what rested on it, and write nothing more. Claim or lock anew.";
    WrongState "wrong_state" CONFLICT
        "A task can't be treated so where it stands."
        "The detail names its state and those that are allowed.";
    RequestNotOpen "request_not_open" CONFLICT
        "The message is no request, or one that can't be answered any more."
        "Send a message of its own.";
    Deadlock "deadlock" CONFLICT
        "Parties would wait for each other's locks for ever, and this attempt is the youngest of them."
        "Give back what you hold, and try again. Who takes his locks at once or in one order never gets here.";
    // Not 408 or 504: nothing is wrong with the way here, and clients and proxies repeat those by themselves.
    LockTimedOut "lock_timed_out" CONFLICT
        "The lock was not given within the time that was asked for: others hold it."
        "The detail names them. Ask again, and wait longer.";
    // Not 429: no pace of one client would help, something has to end first.
    WorkFull "work_full" CONFLICT
        "A bound of tasks, locks or messages is reached."
        "The detail names it. There is room once some of them have ended.";
    NotAlive "not_alive" CONFLICT
        "The incarnation in whose name this was asked does not live."
        "An agent's successor asks under its own number, which it finds in `HIVEKEEPER_INCARNATION`.";
    OpenToAll "open_to_all" CONFLICT
        "This daemon asks nobody for a token, so it makes none: whoever reaches it may do everything."
        "Put 16 or more random characters into a file, name it in `[http] token_file`, and restart the daemon; that first token makes others.";
    PreconditionFailed "precondition_failed" PRECONDITION_FAILED
        "`If-Match` names another version of the document than the present one: somebody was faster."
        "Read the document again, make the change anew, and send it with the new `ETag`.";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE
        "The body is larger than any that a route takes."
        "The detail names the most that is taken.";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE
        "The body was not announced as JSON."
        "Send `Content-Type: application/json`, with an empty body, too: a web form can't do that.";
    HostRefused "host_refused" MISDIRECTED_REQUEST
        "`Host` is none of the names under which the daemon knows itself."
        "Use the address that the daemon is bound to, or add the name to `[http] hosts`.";
    // The IETF's draft on Idempotency-Key names 422 for a key that comes back with another request.
    KeyReused "key_reused" UNPROCESSABLE_ENTITY
        "The key was used for another command, or for other work."
        "Make a new key for each; send an old one only to repeat the same.";
    InvalidDocument "invalid_document" UNPROCESSABLE_ENTITY
        "The swarm document is JSON, and means nothing here."
        "`errors` names every key, what was found there and what is allowed.";
    InvalidWork "invalid_work" UNPROCESSABLE_ENTITY
        "Something in the arguments of a tool can't be."
        "The detail names the argument, what was found and what is allowed.";
    DependencyCycle "dependency_cycle" UNPROCESSABLE_ENTITY
        "Tasks would wait for each other for ever."
        "The detail names the circle.";
    InvalidConfiguration "invalid_configuration" UNPROCESSABLE_ENTITY
        "The configuration file can't be taken as it stands; nothing was changed."
        "`errors` names every mistake; `hivekeeper check` shows them, too.";
    // The viewers' room says this one itself, as it does `too_many_viewers`, `out_of_descriptors` and `shutting_down`.
    UpgradeRequired "upgrade_required" UPGRADE_REQUIRED
        "The route is a WebSocket, and the request asks for none."
        "Use a WebSocket client, or `/sse/hybrid-health`.";
    RateLimited "rate_limited" TOO_MANY_REQUESTS
        "More requests came from this token or this address than is allowed."
        "Wait as long as `Retry-After` says. `[http]` holds the limits.";
    Internal "internal" INTERNAL_SERVER_ERROR
        "The daemon failed. This is a defect."
        "The daemon's log has the cause. Please report it.";
    Unsupported "unsupported" NOT_IMPLEMENTED
        "The runtime of this swarm, or this version, can't do it."
        "The detail says what it can't do.";
    JournalUnavailable "journal_unavailable" SERVICE_UNAVAILABLE
        "The journal can't keep the command, so it was not accepted."
        "Look at the disk of the data directory; `hivekeeper doctor` does. Then send it again.";
    MaybeDone "maybe_done" SERVICE_UNAVAILABLE
        "The journal did not answer in time, so this may have been done or not."
        "Look before you repeat it, or repeat it with the same key.";
    Unavailable "unavailable" SERVICE_UNAVAILABLE
        "The daemon is on its way up or out, or too much is under way."
        "Send it again after `Retry-After`.";
    TooManyStreams "too_many_streams" SERVICE_UNAVAILABLE
        "Too many event streams are open."
        "Close some, or read pages.";
    TooManyViewers "too_many_viewers" SERVICE_UNAVAILABLE
        "All places for viewers of the health are taken."
        "Close some.";
    OutOfDescriptors "out_of_descriptors" SERVICE_UNAVAILABLE
        "The daemon may open no more files, so it can take no more viewers."
        "Raise its limit of open files.";
    ShuttingDown "shutting_down" SERVICE_UNAVAILABLE
        "The daemon is on its way out, and takes no new viewers and no work."
        "Come back when it is up again.";
}

/// A refusal: a code, a sentence for people, and the methods that would have been allowed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Problem {
    code: Code,
    detail: String,
    allow: Option<String>,
    retry_after_s: Option<u64>,
    errors: Vec<view::Mistake>,
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), allow: None, retry_after_s: None, errors: Vec::new() }
    }

    pub(super) fn method_not_allowed(allow: String) -> Self {
        let refusal = Self::new(Code::MethodNotAllowed, format!("allowed here: {allow}"));
        Self { allow: Some(allow), ..refusal }
    }

    /// A refusal that knows when the way is clear.
    pub(super) fn retry_after(code: Code, detail: impl Into<String>, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..Self::new(code, detail) }
    }

    /// A refusal of something in which all of this is wrong.
    pub(super) fn mistakes(code: Code, detail: impl Into<String>, errors: Vec<view::Mistake>) -> Self {
        Self { errors, ..Self::new(code, detail) }
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// What an error of the framework, or a bare status of another room, becomes: the nearest of our codes, none of its text.
    pub(super) fn foreign(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            404 => Code::NotFound,
            405 => Code::MethodNotAllowed,
            408 => Code::RequestTimeout,
            413 => Code::BodyTooLarge,
            415 => Code::UnsupportedMediaType,
            503 => Code::Unavailable,
            400..=499 => Code::InvalidRequest,
            _ => Code::Internal,
        };
        Self::new(code, "the request could not be served")
    }

    /// The document for the request of this path.
    pub(super) fn response(&self, instance: Option<&str>) -> HttpResponse {
        let status = self.code.status();
        let mut response = HttpResponse::build(status);
        response.insert_header((header::CONTENT_TYPE, view::PROBLEM_JSON));
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
        }
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self.code {
            Code::Unauthorized => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"hivekeeper\""));
            }
            Code::InvalidToken => {
                let challenge = "Bearer realm=\"hivekeeper\", error=\"invalid_token\"";
                response.insert_header((header::WWW_AUTHENTICATE, challenge));
            }
            // The daemon can't know when the way is clear; a second is long enough not to hammer it.
            Code::Unavailable
            | Code::JournalUnavailable
            | Code::MaybeDone
            | Code::ShuttingDown
            | Code::TooManyStreams => {
                response.insert_header((header::RETRY_AFTER, "1"));
            }
            _ => {}
        }
        let shown = view::problem(status.as_u16(), self.code.word(), &self.detail, instance).with(&self.errors);
        response.body(serde_json::to_string(&shown).unwrap_or_default())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.response(None)
    }
}

impl From<ToolError> for Problem {
    fn from(error: ToolError) -> Self {
        let code = Code::ALL.iter().copied().find(|code| code.word() == error.code());
        Self::new(code.unwrap_or(Code::Internal), error.to_string())
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::NotFound { .. } => Code::NotFound,
            ControlError::Conflict { .. } => Code::Conflict,
            ControlError::OpenToAll => Code::OpenToAll,
            ControlError::Unsupported { .. } => Code::Unsupported,
            ControlError::Outdated { .. } => Code::PreconditionFailed,
            ControlError::KeyReused => Code::KeyReused,
            ControlError::Journal { .. } => Code::JournalUnavailable,
            ControlError::Unavailable { .. } => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
