//! One closed set of codes, mapped to HTTP in one place, and the problem documents (RFC 9457) that carry them.

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};

use crate::{control_plane::ControlError, view};

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
    OriginRefused "origin_refused" FORBIDDEN
        "A page of another origin sent the request."
        "Pages of other origins can't use the API. Put the page behind one of the daemon's own names, `[http] hosts`.";
    NotFound "not_found" NOT_FOUND
        "There is no such route, swarm, agent or operation."
        "`GET /api/v1/swarms` lists what there is; `GET /api/v1/openapi.json` lists the routes.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED
        "The path is there, and does not take this method."
        "`Allow` names the methods that it takes.";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT
        "The body took too long to arrive."
        "Send it again, in one piece.";
    Conflict "conflict" CONFLICT
        "The command does not fit the present state."
        "The detail says why. Look at the swarm, then decide.";
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
        "The `Idempotency-Key` was used for another command."
        "Make a new key for each command; send an old one only to repeat the same command.";
    InvalidDocument "invalid_document" UNPROCESSABLE_ENTITY
        "The swarm document is JSON, and means nothing here."
        "`errors` names every key, what was found there and what is allowed.";
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
        "The daemon is on its way out, and takes no new viewers."
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
            Code::Unavailable | Code::JournalUnavailable | Code::TooManyStreams => {
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
