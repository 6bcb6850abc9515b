//! `createPullRequest`: `true`, or what the pull request should be like.

use clawlink_shared::execution::PullRequestWish;
use serde_json::Value;

use super::fields::{Faults, Fields};
use super::repo;
use crate::github::{MAX_BODY, MAX_TITLE};

/// A character has at most so many bytes.
const BYTES: usize = 4;

/// The wish; absent if there is none.
pub(super) fn read(body: &mut Fields, faults: &mut Faults) -> Option<PullRequestWish> {
    const KEY: &str = "createPullRequest";
    match body.get(KEY) {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(PullRequestWish::default()),
        Some(Value::Object(_)) => {
            let mut wish = body.object(KEY, faults)?;
            let title = bounded(&mut wish, "title", MAX_TITLE, faults);
            if title
                .as_ref()
                .is_some_and(|title| title.trim().is_empty() || title.contains(char::is_control))
            {
                faults.add(wish.path("title"), "must be one line of visible text");
            }
            let read = PullRequestWish {
                title,
                body: bounded(&mut wish, "body", MAX_BODY, faults),
                base: repo::branch(&mut wish, "base", faults),
                draft: wish.flag("draft", faults).unwrap_or(false),
            };
            wish.finish(faults);
            Some(read)
        }
        Some(_) => {
            faults.add(KEY, "must be true, false or an object");
            None
        }
    }
}

/// A text of at most `max` characters.
fn bounded(
    wish: &mut Fields,
    key: &'static str,
    max: usize,
    faults: &mut Faults,
) -> Option<String> {
    let text = wish.text(key, max * BYTES, faults)?;
    if text.chars().count() > max {
        let message = format!("must not be longer than {max} characters");
        faults.add(wish.path(key), message);
        return None;
    }
    Some(text.to_owned())
}
