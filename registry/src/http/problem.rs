//! Turns errors into problem documents (RFC 9457), and reads bodies within limits.

use crate::service::error::ServiceError;
use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    body::BoxBody,
    dev::Payload,
    http::{StatusCode, header},
    web::BytesMut,
};
use futures_util::{StreamExt, future::LocalBoxFuture};
use serde::de::DeserializeOwned;
use std::{fmt, time::Duration};
use wire::{
    errors::Chain,
    registry::{BODY_LIMIT, Problem},
};

/// Time within which the body of a request must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The problem document with which a request is rejected.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Problem);

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.title, self.0.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut answer = HttpResponse::build(self.status_code());
        if self.0.status == StatusCode::PAYLOAD_TOO_LARGE
            || self.0.status == StatusCode::REQUEST_TIMEOUT
        {
            // The remaining bytes of the body are not read, so the connection cannot be used again.
            answer.insert_header((header::CONNECTION, "close"));
        }
        answer.content_type("application/problem+json").body(body)
    }
}

pub(crate) fn api_error(
    status: StatusCode,
    title: &str,
    detail: String,
    field: Option<&str>,
) -> ApiError {
    ApiError(Problem {
        kind: "about:blank".into(),
        title: title.into(),
        status: status.as_u16(),
        detail,
        field: field.map(str::to_owned),
    })
}

/// Logs an error that is the registry's own failure, as its caller only gets 500.
fn log_failure(error: &ServiceError) {
    if let ServiceError::Failed(cause) = error {
        tracing::error!(
            error = %Chain(cause.as_ref()),
            "a request failed; its caller gets 500, and nothing of it is stored"
        );
    }
}

/// Returns the status of an error, its title, and the field of the request that it concerns.
fn summary(error: &ServiceError) -> (StatusCode, &'static str, Option<&'static str>) {
    use ServiceError as E;
    match error {
        E::Version { .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown version",
            Some("version"),
        ),
        E::TokenRejected => (StatusCode::FORBIDDEN, "token rejected", Some("token")),
        E::TooManyFailedClaims => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many failed claims",
            None,
        ),
        E::TooManyFromNetwork => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many from this network",
            None,
        ),
        E::TooOften { .. } => (StatusCode::TOO_MANY_REQUESTS, "too many requests", None),
        E::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", None),
        E::Request(_) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "certificate request rejected",
            Some("csr"),
        ),
        E::KeyRejected | E::KeyChangedAfterExpiry => {
            (StatusCode::CONFLICT, "key rejected", Some("csr"))
        }
        E::NoPrefixLeft => (StatusCode::INSUFFICIENT_STORAGE, "no prefix left", None),
        E::PrefixTaken => (StatusCode::CONFLICT, "prefix taken", Some("prefix")),
        E::NameTaken => (StatusCode::CONFLICT, "name taken", Some("name")),
        E::NoCertificate => (StatusCode::UNAUTHORIZED, "certificate needed", None),
        E::NotAMember => (StatusCode::FORBIDDEN, "certificate rejected", None),
        E::TooEarly => (StatusCode::CONFLICT, "too early", None),
        E::UnknownNode { .. } => (StatusCode::NOT_FOUND, "no such node", Some("node")),
        E::UnknownInvitation { .. } => (
            StatusCode::NOT_FOUND,
            "no such invitation",
            Some("invitation"),
        ),
        E::Value { field, .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "out of range",
            Some(field),
        ),
        E::CaCertificate { .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "CA certificate rejected",
            Some("certificate"),
        ),
        E::Step { .. } => (StatusCode::CONFLICT, "step out of order", Some("step")),
        E::NodesNotReady { .. } => (StatusCode::CONFLICT, "nodes not ready", None),
        E::Failed(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the registry failed",
            None,
        ),
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        log_failure(&error);
        let (status, title, field) = summary(&error);
        api_error(status, title, error.to_string(), field)
    }
}

/// A body of at most [`BODY_LIMIT`] bytes that arrived within [`BODY_TIMEOUT`]; its content type is ignored.
pub(crate) struct Body(Result<BytesMut, ApiError>);

impl Body {
    /// Parses the body as JSON; an error names the field that it concerns.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let bytes = self.0?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let text = error.to_string();
            // For a missing or unknown field, serde's message contains its name in backquotes, and no value.
            let named = text
                .split_once("field `")
                .and_then(|(_, tail)| tail.split_once('`'));
            let end = offset(&bytes, error.line(), error.column());
            let field = match named {
                Some((name, _)) => printable_name(name.as_bytes()),
                None => last_key(bytes.get(..end).unwrap_or(&bytes)),
            };
            let detail = format!("line {} column {}", error.line(), error.column());
            api_error(
                StatusCode::BAD_REQUEST,
                "not the document expected",
                detail,
                field.as_deref(),
            )
        })
    }
}

/// Converts the line and column of an error to an offset in bytes.
fn offset(bytes: &[u8], line: usize, column: usize) -> usize {
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    let begin = std::iter::once(0)
        .chain(ends)
        .nth(line.saturating_sub(1))
        .unwrap_or(0);
    begin.saturating_add(column).min(bytes.len())
}

/// Longest name of a field that an error repeats, in bytes.
const NAME_LIMIT: usize = 40;

/// Returns a name if it can be the name of a field; other bytes that a caller sent are not repeated.
fn printable_name(name: &[u8]) -> Option<String> {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let is_printable = (1..=NAME_LIMIT).contains(&name.len()) && name.iter().all(good);
    is_printable.then(|| String::from_utf8_lossy(name).into_owned())
}

/// Returns the field of the outermost object in whose value this beginning of a JSON document stops.
fn last_key(begin: &[u8]) -> Option<String> {
    let (mut depth, mut last, mut key) = (0usize, None, None);
    let mut bytes = begin.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let mut text = Vec::new();
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    text.push(byte);
                    text.extend(if byte == b'\\' { bytes.next() } else { None });
                }
                last = Some(text);
            }
            b':' if depth == 1 => key = last.take(),
            _ => {}
        }
    }
    printable_name(&key?)
}

async fn read_body(mut payload: Payload) -> Result<BytesMut, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(part) = payload.next().await {
        let part = part.map_err(|error| {
            api_error(
                StatusCode::BAD_REQUEST,
                "broken body",
                error.to_string(),
                None,
            )
        })?;
        if bytes.len() + part.len() > BODY_LIMIT {
            let detail = format!("at most {BODY_LIMIT} bytes");
            return Err(api_error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body too long",
                detail,
                None,
            ));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

impl FromRequest for Body {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move {
            let timed_out = |_| {
                let detail = format!(
                    "the body did not arrive within {} s",
                    BODY_TIMEOUT.as_secs()
                );
                Err(api_error(
                    StatusCode::REQUEST_TIMEOUT,
                    "too slow",
                    detail,
                    None,
                ))
            };
            Ok(Self(
                tokio::time::timeout(BODY_TIMEOUT, read_body(payload))
                    .await
                    .unwrap_or_else(timed_out),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(begin: &str, expected: Option<&str>) {
        assert_eq!(last_key(begin.as_bytes()).as_deref(), expected, "{begin}");
    }

    #[test]
    fn an_error_is_attributed_to_the_field_in_which_it_occurred() {
        check(r#"{"version":"#, Some("version"));
        check(r#"{"version":1,"endpoints":["a","b""#, Some("endpoints"));
        check(r#"{"a":{"b":1},"c":"#, Some("c"));
        check(r#"{"a":"x\":\"y","b":nu"#, Some("b"));
        check(r#"{"a":{"b":1"#, Some("a"));
        for nothing in ["", "[", "[1", "{", "\"", "{\"\\", "null", "{\"<b>\":"] {
            check(nothing, None);
        }
    }

    #[test]
    fn a_line_and_a_column_are_converted_to_an_offset() {
        assert_eq!(offset(b"ab\ncd", 2, 1), 4);
        assert_eq!(offset(b"ab", 1, 9), 2);
        assert_eq!(offset(b"", 0, 0), 0);
    }
}
