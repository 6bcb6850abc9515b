//! Places on a board as text: between any two there is room for another, and comparing bytes
//! compares places.
//!
//! A rank is a fraction in base 62 without its leading `0.` and without trailing zeros. The ends
//! of a board grow by one in the fifth digit, so that only insertions between make ranks longer;
//! neighbours are spread anew before they become longer than [`MAX_RANK`].

/// The digits in the order of their bytes.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Digits that count whole steps at the ends.
const HEAD: usize = 5;
/// Longest rank that is handed out without spreading the neighbours.
pub(super) const MAX_RANK: usize = 24;

fn value(digit: u8) -> usize {
    let found = DIGITS.iter().position(|known| *known == digit);
    found.unwrap_or(0)
}

/// A rank between two neighbours; `None` is the board's end.
pub(super) fn between(low: Option<&str>, high: Option<&str>) -> String {
    match (low, high) {
        (None, None) => text(&[DIGITS.len() / 2]),
        (Some(low), None) => step(low, 1).unwrap_or_else(|| middle(low, None)),
        (None, Some(high)) => step(high, -1).unwrap_or_else(|| middle("", Some(high))),
        (Some(low), Some(high)) => middle(low, Some(high)),
    }
}

/// So many ranks in order between two neighbours, evenly.
pub(super) fn spread(low: Option<&str>, high: Option<&str>, count: usize) -> Vec<String> {
    let mut ranks = Vec::with_capacity(count);
    match (low, high) {
        (Some(low), Some(high)) => halve(low, high, count, &mut ranks),
        (None, Some(high)) => {
            let mut next = high.to_owned();
            for _ in 0..count {
                next = between(None, Some(&next));
                ranks.push(next.clone());
            }
            ranks.reverse();
        }
        (_, None) => {
            let mut last = low.map(str::to_owned);
            for _ in 0..count {
                let next = between(last.as_deref(), None);
                ranks.push(next.clone());
                last = Some(next);
            }
        }
    }
    ranks
}

fn halve(low: &str, high: &str, count: usize, ranks: &mut Vec<String>) {
    if count == 0 {
        return;
    }
    let mid = middle(low, Some(high));
    let before = (count - 1) / 2;
    halve(low, &mid, before, ranks);
    ranks.push(mid.clone());
    halve(&mid, high, count - 1 - before, ranks);
}

/// The next whole step up or down; `None` at the end of all steps.
fn step(rank: &str, by: i64) -> Option<String> {
    let base = DIGITS.len() as i64;
    let digits = rank.bytes().chain(std::iter::repeat(DIGITS[0]));
    let head = digits
        .take(HEAD)
        .fold(0, |head, digit| head * base + value(digit) as i64);
    let mut next = head + by;
    // Zero would be the empty rank.
    if next <= 0 || next >= base.pow(HEAD as u32) {
        return None;
    }
    let mut digits = [0; HEAD];
    for digit in digits.iter_mut().rev() {
        *digit = (next % base) as usize;
        next /= base;
    }
    Some(text(&digits))
}

/// A short rank between two, by their first digits that differ.
fn middle(low: &str, high: Option<&str>) -> String {
    let low: Vec<usize> = low.bytes().map(value).collect();
    let high: Option<Vec<usize>> = high.map(|high| high.bytes().map(value).collect());
    let mut digits = Vec::new();
    let mut bounded = high.as_deref();
    for place in 0.. {
        let least = low.get(place).copied().unwrap_or(0);
        let most = match bounded {
            Some(high) => high.get(place).copied().unwrap_or(0),
            None => DIGITS.len(),
        };
        if most > least + 1 {
            digits.push((least + most) / 2);
            break;
        }
        digits.push(least);
        // Once below the upper neighbour, only the lower one bounds what follows.
        if most > least {
            bounded = None;
        }
    }
    text(&digits)
}

fn text(digits: &[usize]) -> String {
    let digits: String = digits.iter().map(|digit| DIGITS[*digit] as char).collect();
    digits.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(ranks: &[String]) {
        for pair in ranks.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        for rank in ranks {
            assert!(!rank.is_empty() && !rank.ends_with('0'), "{rank}");
        }
    }

    proptest! {
        #[test]
        fn insertions_anywhere_keep_the_order(places in prop::collection::vec(0usize..1000, 1..300)) {
            let mut ranks: Vec<String> = Vec::new();
            for place in places {
                let at = place % (ranks.len() + 1);
                let low = at.checked_sub(1).map(|low| ranks[low].as_str());
                let rank = between(low, ranks.get(at).map(String::as_str));
                ranks.insert(at, rank);
            }
            check(&ranks);
        }
    }

    #[test]
    fn the_ends_do_not_grow_longer() {
        let mut last = between(None, None);
        let mut first = last.clone();
        for _ in 0..10_000 {
            last = between(Some(&last), None);
            first = between(None, Some(&first));
        }
        assert!(last.len() <= HEAD && first.len() <= HEAD);
        check(&[first, last]);
    }

    #[test]
    fn the_last_step_is_followed_by_fractions() {
        let mut ranks = vec!["zzzzz".to_owned()];
        for _ in 0..100 {
            ranks.push(between(ranks.last().map(String::as_str), None));
        }
        check(&ranks);
        let mut ranks = vec!["00001".to_owned()];
        for _ in 0..100 {
            ranks.insert(0, between(None, Some(&ranks[0])));
        }
        check(&ranks);
    }

    #[test]
    fn many_fit_into_a_narrow_gap() {
        for (low, high) in [
            (None, None),
            (Some("V"), None),
            (None, Some("1")),
            (Some("V"), Some("V01")),
        ] {
            let mut ranks = spread(low, high, 1000);
            assert!(ranks.iter().all(|rank| rank.len() <= 8));
            ranks.splice(0..0, low.map(str::to_owned));
            ranks.extend(high.map(str::to_owned));
            assert!(ranks.len() >= 1000);
            check(&ranks);
        }
    }
}
