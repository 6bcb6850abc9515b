//! The model's own limits: too many requests, or a usage limit that is reached.
//!
//! Agents repeat refused calls for some seconds by themselves. When one gives up, what it says
//! tells how long the limit lasts, in many words; this is where they are understood. A limit that
//! is over soon is waited for, and then the conversation goes on where it stopped; a longer one
//! ends the run, which can be resumed. What must never happen: a wait without end.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};

/// Beyond what the model said, for clocks that differ.
const SLACK: Duration = Duration::from_secs(1);

/// Bounds of the first wait where nothing is known; each further one is twice as long.
const FIRST_WAIT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

/// First waits that fit into the longest time.
const FIRST_PARTS: u32 = 60;

/// Longest time that is believed; a date further away is none.
const LONGEST: Duration = Duration::from_secs(60 * 60 * 24 * 31);

/// What a run still waits for limits.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    next: Duration,
}

impl Patience {
    /// Waits for so long in all.
    pub fn new(bound: Duration) -> Self {
        Self {
            left: bound,
            next: (bound / FIRST_PARTS).clamp(FIRST_WAIT[0], FIRST_WAIT[1]),
        }
    }

    /// How long to wait after a refusal in these words; `None` if it is not worth it.
    pub fn after(&mut self, words: &str, now: OffsetDateTime) -> Option<Duration> {
        // A limit that is said to be over, and is not, is as good as unknown.
        let wait = match reset_in(words, now).filter(|reset| !reset.is_zero()) {
            Some(reset) => reset + SLACK,
            None => self.next,
        };
        self.left = self.left.checked_sub(wait)?;
        self.next = wait.max(self.next).saturating_mul(2);
        Some(wait)
    }
}

/// When a limit is over, as far as the words say: a moment, or a time from now.
pub fn reset_in(words: &str, now: OffsetDateTime) -> Option<Duration> {
    let at = stamp(words).or_else(|| epoch(words));
    let wait = match at {
        Some(at) => Duration::try_from(at - now).unwrap_or(Duration::ZERO),
        None => from_now(words).or_else(|| time_of_day(words, now))?,
    };
    (wait <= LONGEST).then_some(wait)
}

/// `2026-11-20T15:00:00Z`, anywhere.
fn stamp(words: &str) -> Option<OffsetDateTime> {
    let clean = |word: &str| {
        word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
            .to_owned()
    };
    words
        .split_whitespace()
        .find_map(|word| OffsetDateTime::parse(&clean(word), &Rfc3339).ok())
}

/// `…|1763650800`: seconds or milliseconds since 1970.
fn epoch(words: &str) -> Option<OffsetDateTime> {
    words.split('|').skip(1).find_map(|part| {
        let digits = leading_digits(part);
        let number: i64 = digits.parse().ok()?;
        let seconds = match digits.len() {
            10 => number,
            13 => number / 1000,
            _ => return None,
        };
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    })
}

/// `try again in 20s`, `retry after 1.5 seconds`, `in 6m0s`, `in 2 hours`.
fn from_now(words: &str) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    let lead = [
        "again in ",
        "retry in ",
        "retry after ",
        "retry-after: ",
        "reset after ",
        "resets in ",
    ];
    let mut rest = lead
        .iter()
        .find_map(|lead| words.find(lead).map(|at| &words[at + lead.len()..]))?;
    let mut sum = 0.0;
    let mut parts = 0;
    loop {
        let length = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let Ok(number) = rest[..length].trim_end_matches('.').parse::<f64>() else {
            break;
        };
        rest = rest[length..].trim_start();
        let length = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_alphabetic())
                .len();
        let factor = match &rest[..length] {
            "ms" | "milliseconds" => 0.001,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => 1.0,
        };
        sum += number * factor;
        parts += 1;
        rest = rest[length..].trim_start_matches([' ', ',']);
    }
    (parts > 0)
        .then(|| Duration::try_from_secs_f64(sum).ok())
        .flatten()
}

/// `resets 3pm (UTC)`, `resets at 3:30 am (UTC)`: the next one.
fn time_of_day(words: &str, now: OffsetDateTime) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    let rest = &words[words.find("resets ")? + "resets ".len()..];
    let rest = rest.trim_start_matches("at ");
    let (clock, _) = rest.split_once("(utc)")?;
    let clock = clock.trim();
    let (digits, offset) = match (clock.strip_suffix("am"), clock.strip_suffix("pm")) {
        (Some(digits), _) => (digits, 0),
        (_, Some(digits)) => (digits, 12),
        _ => return None,
    };
    let (hour, minute) = digits
        .trim()
        .split_once(':')
        .unwrap_or((digits.trim(), "0"));
    let hour: u8 = hour.parse().ok().filter(|hour| (1..=12).contains(hour))?;
    let time = Time::from_hms(hour % 12 + offset, minute.parse().ok()?, 0).ok()?;
    let today = now.replace_time(time);
    let next = if today > now {
        today
    } else {
        today + time::Duration::DAY
    };
    Duration::try_from(next - now).ok()
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit());
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> OffsetDateTime {
        OffsetDateTime::parse("2026-11-20T12:00:00Z", &Rfc3339).expect("a moment")
    }

    #[test]
    fn the_words_of_many_programs_are_understood() {
        let epoch = noon().unix_timestamp() + 90;
        for (words, seconds) in [
            (format!("Claude AI usage limit reached|{epoch}"), Some(90.0)),
            (format!("limit|{epoch}000 said somebody"), Some(90.0)),
            (
                "the limit is over at 2026-11-20T12:01:00Z.".into(),
                Some(60.0),
            ),
            ("over since 2026-11-20T11:00:00Z".into(), Some(0.0)),
            (
                "Rate limit reached. Please try again in 20s. Visit".into(),
                Some(20.0),
            ),
            ("try again in 1.5 seconds".into(), Some(1.5)),
            ("Try again in 6m0s.".into(), Some(360.0)),
            ("try again in 250ms".into(), Some(0.25)),
            ("retry after 2 hours, 3 minutes".into(), Some(7380.0)),
            (
                "You've hit your limit · resets 3pm (UTC)".into(),
                Some(10_800.0),
            ),
            ("resets at 11:30 am (UTC)".into(), Some(84_600.0)),
            ("resets 12am (UTC)".into(), Some(43_200.0)),
            ("resets 3pm (Europe/Berlin)".into(), None),
            ("resets 25pm (UTC)".into(), None),
            ("API Error: Request rejected (429)".into(), None),
            ("try again in a while".into(), None),
            ("try again in 99999999999999999999 days".into(), None),
            ("x|17".into(), None),
        ] {
            let wait = reset_in(&words, noon()).map(|wait| wait.as_secs_f64());
            assert_eq!(wait, seconds, "{words}");
        }
    }

    #[test]
    fn patience_ends() {
        let mut patience = Patience::new(Duration::from_secs(900));
        let seconds = |wait: Option<Duration>| wait.map(|wait| wait.as_secs());
        for expected in [
            Some(15),
            Some(30),
            Some(60),
            Some(120),
            Some(240),
            None,
            None,
        ] {
            assert_eq!(seconds(patience.after("no idea", noon())), expected);
        }
        let mut patience = Patience::new(Duration::from_secs(100));
        assert_eq!(
            seconds(patience.after("try again in 60s", noon())),
            Some(61)
        );
        assert_eq!(patience.after("try again in 60s", noon()), None);
        let mut none = Patience::new(Duration::ZERO);
        assert_eq!(none.after("no idea", noon()), None);
    }
}
