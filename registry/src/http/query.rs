//! Reads numbers from the query of a call; an error names the parameter.

use crate::http::problem::{ApiError, api_error};
use actix_web::{HttpRequest, http::StatusCode, web::Query};

/// Returns the parameter `name` of a query; `None` if it is absent.
///
/// # Errors
/// The parameter is not an integer from 0 to `max`, or occurs twice.
pub(crate) fn number(request: &HttpRequest, name: &str, max: u64) -> Result<Option<u64>, ApiError> {
    let bad = |detail: String| {
        api_error(
            StatusCode::BAD_REQUEST,
            "query not understood",
            detail,
            Some(name),
        )
    };
    let all = Query::<Vec<(String, String)>>::from_query(request.query_string());
    let all = all.map_err(|error| bad(error.to_string()))?.into_inner();
    let mut values = all
        .into_iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value);
    let number = values
        .next()
        .map(|text| text.parse().ok().filter(|number| *number <= max));
    match (number, values.next()) {
        (None, None) => Ok(None),
        (Some(Some(number)), None) => Ok(Some(number)),
        (_, Some(_)) => Err(bad(format!("{name} occurs twice"))),
        (Some(None), None) => Err(bad(format!("{name} is not a whole number from 0 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    /// `None` means that the query is rejected.
    #[track_caller]
    fn check(query: &str, expected: Option<Option<u64>>) {
        let request = TestRequest::with_uri(&format!("/?{query}")).to_http_request();
        let read = number(&request, "count", 64);
        assert_eq!(read.as_ref().ok().copied(), expected, "{query}");
        if let Err(ApiError(problem)) = read {
            assert_eq!(
                (problem.status, problem.field.as_deref()),
                (400, Some("count"))
            );
        }
    }

    #[test]
    fn a_number_is_accepted_within_its_range_only() {
        for (query, expected) in [
            ("", Some(None)),
            ("other=x", Some(None)),
            ("count=0", Some(Some(0))),
            ("a=1&count=64", Some(Some(64))),
            ("count=65", None),
            ("count=-1", None),
            ("count=1.5", None),
            ("count=", None),
            ("count", None),
            ("count=99999999999999999999999", None),
            ("count=1&count=2", None),
        ] {
            check(query, expected);
        }
    }
}
