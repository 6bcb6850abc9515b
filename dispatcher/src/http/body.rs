//! Fields of bodies beyond what serde knows: absent or null, ids as digits, faults collected.

use clawlink_shared::problem::FieldFault;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::error::{ApiError, ApiResult};

/// A field of a partial update: absent leaves it, null clears it. Needs
/// `#[serde(default, deserialize_with = "patched")]`.
pub type Patched<T> = Option<Option<T>>;

/// Reads a field that is there: its null is `Some(None)`.
pub fn patched<'de, T, D>(field: D) -> Result<Patched<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(field).map(Some)
}

/// A body that was read as JSON before, for its fingerprint.
pub fn read<T: DeserializeOwned>(body: serde_json::Value) -> ApiResult<T> {
    serde_json::from_value(body)
        .map_err(|error| ApiError::invalid(format!("the body is not as expected: {error}")))
}

/// An id as a number or, as some clients send it, as digits in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LooseId(pub i64);

impl<'de> Deserialize<'de> for LooseId {
    fn deserialize<D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an id is a whole number")]
        enum Shape {
            Number(i64),
            Digits(String),
        }
        match Shape::deserialize(field)? {
            Shape::Number(id) => Ok(Self(id)),
            Shape::Digits(text) => text
                .trim()
                .parse()
                .map(Self)
                .map_err(|_| serde::de::Error::custom("an id is a whole number")),
        }
    }
}

/// A moment: RFC 3339, or a date alone, which means its beginning in UTC. Written with
/// milliseconds by [`crate::executions::timestamp`].
pub fn moment(text: &str) -> Option<OffsetDateTime> {
    let text = text.trim();
    let day = format_description!("[year]-[month]-[day]");
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .or_else(|| Some(time::Date::parse(text, day).ok()?.midnight().assume_utc()))
        .and_then(|moment| moment.checked_to_offset(time::UtcOffset::UTC))
        .filter(|moment| (1..=9999).contains(&moment.year()))
}

/// Reads an optional moment. Needs `#[serde(default, deserialize_with = "maybe_moment")]`.
pub fn maybe_moment<'de, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<OffsetDateTime>, D::Error> {
    let Some(text) = Option::<String>::deserialize(field)? else {
        return Ok(None);
    };
    let wrong = || serde::de::Error::custom("a moment is like 2026-11-20T10:00:00.000Z, or a date");
    moment(&text).map(Some).ok_or_else(wrong)
}

/// Faults of a body so far, named in one answer.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldFault>);

impl Faults {
    /// Adds one.
    pub fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldFault {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// Text of at most `max` characters that Postgres can hold.
    pub fn text(&mut self, field: &str, text: Option<&str>, max: usize) {
        let Some(text) = text else { return };
        if text.contains('\0') {
            self.add(field, "must not contain NUL");
        }
        if text.chars().count() > max {
            self.add(field, format!("must have at most {max} characters"));
        }
    }

    /// The same for text that must say something.
    pub fn name(&mut self, field: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.add(field, "must not be empty");
        }
        self.text(field, Some(text), max);
    }

    /// Reads a moment.
    pub fn moment(&mut self, field: &str, text: &str) -> Option<OffsetDateTime> {
        let read = moment(text);
        if read.is_none() {
            self.add(
                field,
                "must be a moment such as 2026-11-20T10:00:00.000Z, or a date",
            );
        }
        read
    }

    /// 400 with all of them, if there are any.
    pub fn refuse(self) -> ApiResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid_fields(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "patched")]
        text: Patched<String>,
        id: Option<LooseId>,
    }

    #[test]
    fn absent_null_and_value_are_told_apart() {
        for (text, expected) in [
            ("{}", None),
            (r#"{"text":null}"#, Some(None)),
            (r#"{"text":"a"}"#, Some(Some("a".to_owned()))),
        ] {
            let body: Body = serde_json::from_str(text).expect("a body");
            assert_eq!(body.text, expected);
        }
    }

    #[test]
    fn ids_are_numbers_or_digits() {
        for (text, expected) in [
            (r#"{"id":7}"#, Some(7)),
            (r#"{"id":"7"}"#, Some(7)),
            (r#"{"id":null}"#, None),
        ] {
            let body: Body = serde_json::from_str(text).expect("a body");
            assert_eq!(body.id.map(|id| id.0), expected);
        }
        for bad in [r#"{"id":"x"}"#, r#"{"id":1.5}"#, r#"{"id":[]}"#] {
            assert!(serde_json::from_str::<Body>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_or_dates() {
        let date = moment("2026-11-20").expect("a date");
        assert_eq!(moment("2026-11-20T01:00:00+01:00"), Some(date));
        for bad in [
            "",
            "tomorrow",
            "2026-13-01",
            "0000-01-01",
            "9999-12-31T23:00:00-02:00",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
