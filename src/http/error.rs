//! One closed set of codes, mapped to HTTP in one place, and the problem documents (RFC 9457) that carry them.

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};
use serde::Serialize;

use crate::control_plane::ControlError;

/// Why a request was refused. The word is stable; scripts may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    InvalidRequest,
    InvalidQuery,
    InvalidBody,
    Unauthorized,
    InvalidToken,
    OriginRefused,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    BodyTooLarge,
    UnsupportedMediaType,
    HostRefused,
    KeyReused,
    Internal,
    Unsupported,
    JournalUnavailable,
    Unavailable,
    TooManyStreams,
}

impl Code {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::InvalidQuery | Self::InvalidBody => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::OriginRefused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::HostRefused => StatusCode::MISDIRECTED_REQUEST,
            // The IETF's draft on Idempotency-Key names 422 for a key that comes back with another request.
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::JournalUnavailable | Self::Unavailable | Self::TooManyStreams => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidQuery => "invalid_query",
            Self::InvalidBody => "invalid_body",
            Self::Unauthorized => "unauthorized",
            Self::InvalidToken => "invalid_token",
            Self::OriginRefused => "origin_refused",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::HostRefused => "host_refused",
            Self::KeyReused => "key_reused",
            Self::Internal => "internal",
            Self::Unsupported => "unsupported",
            Self::JournalUnavailable => "journal_unavailable",
            Self::Unavailable => "unavailable",
            Self::TooManyStreams => "too_many_streams",
        }
    }
}

/// A refusal: a code, a sentence for people, and the methods that would have been allowed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Problem {
    code: Code,
    detail: String,
    allow: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: Option<&'a str>,
    code: &'static str,
}

/// The media type of RFC 9457.
const PROBLEM_JSON: &str = "application/problem+json";

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), allow: None }
    }

    pub(super) fn method_not_allowed(allow: String) -> Self {
        let refusal = Self::new(Code::MethodNotAllowed, format!("allowed here: {allow}"));
        Self { allow: Some(allow), ..refusal }
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
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        if let Some(allow) = &self.allow {
            response.insert_header((header::ALLOW, allow.as_str()));
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
        let document = Document {
            // RFC 9457, 4.2.1: with `about:blank` the title is the status's own phrase; `code` tells problems apart.
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code.word(),
        };
        response.body(serde_json::to_string(&document).unwrap_or_default())
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
            ControlError::Unsupported { .. } => Code::Unsupported,
            ControlError::KeyReused => Code::KeyReused,
            ControlError::Journal { .. } => Code::JournalUnavailable,
            ControlError::Unavailable { .. } => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
