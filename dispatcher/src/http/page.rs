//! Cursors of lists: where the next page begins, opaque to clients and without state here.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{ApiError, ApiResult};

/// Items of a page where the request says nothing.
pub const DEFAULT_LIMIT: i64 = 50;
/// Most items of a page.
pub const MAX_LIMIT: i64 = 200;

/// Where lists that are bare arrays name the next page.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// A place in a list that is ordered by time and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Microseconds since 1970, the precision of Postgres.
    micros: i64,
    /// Tells rows of the same moment apart.
    pub id: Uuid,
}

impl Cursor {
    /// The place of a row.
    pub fn at(time: OffsetDateTime, id: Uuid) -> Self {
        let micros = time.unix_timestamp_nanos() / 1000;
        Self {
            micros: i64::try_from(micros).unwrap_or(i64::MAX),
            id,
        }
    }

    /// The row's time.
    pub fn time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.micros) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// As clients get it.
    pub fn encode(self) -> String {
        let mut bytes = self.micros.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.id.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads one that a client sends back; 400 if it never was one.
    pub fn decode(text: &str) -> ApiResult<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let read = bytes.split_first_chunk::<8>().and_then(|(micros, id)| {
            Some(Self {
                micros: i64::from_be_bytes(*micros),
                id: Uuid::from_slice(id).ok()?,
            })
        });
        read.ok_or_else(|| ApiError::invalid("cursor is not one that this API gave"))
    }
}

/// The page size that a client asked for; 400 if it is out of bounds.
pub fn limit(asked: Option<i64>) -> ApiResult<i64> {
    limit_up_to(asked, DEFAULT_LIMIT, MAX_LIMIT)
}

/// The same where a list has a usual size and a bound of its own.
pub fn limit_up_to(asked: Option<i64>, usual: i64, most: i64) -> ApiResult<i64> {
    let limit = asked.unwrap_or(usual);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid(format!("limit must be from 1 to {most}")))
}

/// Cuts a list that was read with one row more than its page has; the last row of the page if
/// there is a next one, which begins after it.
pub fn cut<T>(rows: &mut Vec<T>, limit: i64) -> Option<&T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| has_more)
}

/// Headers that lead to the next page of a list that is a bare array: the cursor, and a `Link`
/// to the same request with it.
pub fn next(uri: &Uri, cursor: &str) -> HeaderMap {
    let mut query: String = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            !matches!(name, "" | "cursor" | "offset")
        })
        .map(|pair| format!("{pair}&"))
        .collect();
    query.push_str("cursor=");
    query.push_str(cursor);
    let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
    let mut headers = HeaderMap::new();
    for (name, value) in [(NEXT_CURSOR, cursor), (header::LINK, link.as_str())] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_keeps_the_filters() {
        let uri = "/x?limit=2&cursor=a&offset=3&type=b"
            .parse()
            .expect("a path");
        let headers = next(&uri, "c");
        assert_eq!(headers[NEXT_CURSOR], "c");
        let link = headers[header::LINK].to_str().expect("text");
        assert_eq!(link, "</x?limit=2&type=b&cursor=c>; rel=\"next\"");
    }

    #[test]
    fn cursors_read_back_and_others_are_refused() {
        let cursor = Cursor::at(OffsetDateTime::now_utc(), Uuid::new_v4());
        assert_eq!(Cursor::decode(&cursor.encode()).expect("valid"), cursor);
        for bad in ["", "x", "AAAA", "not base64!"] {
            assert!(Cursor::decode(bad).is_err(), "{bad}");
        }
    }
}
