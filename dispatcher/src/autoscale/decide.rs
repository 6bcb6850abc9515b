//! How many workers there should be. Pure: figures in, a number and its reason out.

use std::time::Duration;

/// What is to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Fewest and most workers.
    pub workers: (u64, u64),
    /// Fewest and most idle workers.
    pub idle: (u64, u64),
    /// An execution that waited this long asks for a worker.
    pub patience: Duration,
    /// How long there must have been too many before some are taken away.
    pub down_after: Duration,
}

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// How many workers are wanted by now; some of them may still be starting.
    pub workers: u64,
    /// Workers that wait for work.
    pub idle: u64,
    /// Executions that a worker holds.
    pub busy: u64,
    /// Executions that wait for nothing but a worker.
    pub short: u64,
    /// How long the oldest of them has waited.
    pub waited: Duration,
    /// For how long more than the most have been idle.
    pub surplus_for: Duration,
    /// How long ago the number was changed.
    pub unchanged_for: Duration,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The new number of workers.
    pub to: u64,
    /// For people.
    pub why: String,
}

/// The change that is due, if one is.
pub fn decide(bounds: &Bounds, seen: &Seen) -> Option<Move> {
    let (fewest, most) = bounds.workers;
    let step = |to: u64, why: String| (to != seen.workers).then_some(Move { to, why });
    // Lowering the most is the operator's wish; those that are busy finish.
    if seen.workers > most {
        return step(most, format!("there may be {most} workers"));
    }
    let is_short = seen.short > 0 && seen.waited >= bounds.patience;
    let short = if is_short { seen.short } else { 0 };
    let wanted = (seen.busy + short + bounds.idle.0).max(fewest);
    if wanted > seen.workers {
        let why = if wanted == fewest {
            format!("there must be {fewest} workers")
        } else if is_short {
            format!(
                "{} executions wait for a worker, the oldest for {} s",
                seen.short,
                seen.waited.as_secs()
            )
        } else {
            format!(
                "{} of {} workers are busy; {} should be idle",
                seen.busy, seen.workers, bounds.idle.0
            )
        };
        return step(wanted.min(most), why);
    }
    let surplus = seen.idle.saturating_sub(bounds.idle.1);
    let is_calm = seen.surplus_for >= bounds.down_after && seen.unchanged_for >= bounds.down_after;
    if surplus == 0 || seen.short > 0 || !is_calm {
        return None;
    }
    // Half at a time: Swarm chooses, and may choose busy ones, which then finish.
    let fewer = seen.workers - surplus.div_ceil(2).min(seen.workers);
    let least = (seen.busy + bounds.idle.0).max(fewest);
    if fewer.max(least) >= seen.workers {
        return None;
    }
    step(
        fewer.max(least),
        format!(
            "{} workers have been idle for {} s; {} are enough",
            seen.idle,
            seen.surplus_for.as_secs(),
            bounds.idle.1
        ),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        workers: (2, 10),
        idle: (1, 3),
        patience: Duration::from_secs(2),
        down_after: Duration::from_secs(60),
    };

    fn seen(workers: u64, idle: u64, busy: u64, short: u64) -> Seen {
        Seen {
            workers,
            idle,
            busy,
            short,
            waited: Duration::from_secs(5),
            surplus_for: Duration::from_secs(90),
            unchanged_for: Duration::from_secs(90),
        }
    }

    fn to(seen: &Seen) -> Option<u64> {
        decide(&BOUNDS, seen).map(|step| step.to)
    }

    #[test]
    fn the_pool_grows_by_what_waits_and_what_should_be_idle() {
        assert_eq!(to(&seen(2, 2, 0, 0)), None, "as it should be");
        assert_eq!(to(&seen(2, 0, 2, 0)), Some(3), "one should be idle");
        assert_eq!(to(&seen(2, 0, 2, 4)), Some(7), "four wait");
        assert_eq!(to(&seen(2, 0, 2, 40)), Some(10), "the most");
        assert_eq!(to(&seen(7, 0, 2, 4)), None, "five are starting");
        let patient = Seen {
            waited: Duration::from_millis(100),
            ..seen(3, 0, 2, 4)
        };
        assert_eq!(to(&patient), None, "they have hardly waited");
    }

    #[test]
    fn the_pool_shrinks_by_half_of_the_surplus_after_a_while() {
        assert_eq!(to(&seen(10, 9, 1, 0)), Some(7));
        assert_eq!(to(&seen(7, 6, 1, 0)), Some(5));
        assert_eq!(to(&seen(4, 3, 1, 0)), None, "three may be idle");
        let early = Seen {
            surplus_for: Duration::from_secs(10),
            ..seen(10, 9, 1, 0)
        };
        assert_eq!(to(&early), None);
        let waiting = seen(10, 9, 1, 1);
        assert_eq!(to(&waiting), None, "somebody waits");
    }

    #[test]
    fn the_bounds_are_kept_even_if_somebody_else_scaled() {
        assert_eq!(to(&seen(0, 0, 0, 0)), Some(2));
        assert_eq!(to(&seen(30, 30, 0, 0)), Some(10));
    }

    proptest! {
        #[test]
        fn a_change_is_within_bounds_and_has_a_reason(
            workers in 0u64..40, idle in 0u64..40, busy in 0u64..40, short in 0u64..100,
            waited in 0u64..20, surplus in 0u64..120, unchanged in 0u64..120,
        ) {
            let now = Seen {
                waited: Duration::from_secs(waited),
                surplus_for: Duration::from_secs(surplus),
                unchanged_for: Duration::from_secs(unchanged),
                ..seen(workers, idle, busy, short)
            };
            if let Some(step) = decide(&BOUNDS, &now) {
                prop_assert!((2..=10).contains(&step.to), "{step:?}");
                prop_assert!(step.to != workers && !step.why.is_empty());
                let is_down = step.to < workers;
                if is_down && workers <= 10 {
                    prop_assert!(short == 0, "somebody waits: {step:?}");
                    prop_assert!(step.to >= (busy + 1).min(workers), "busy ones: {step:?}");
                    prop_assert!(surplus >= 60 && unchanged >= 60, "too soon: {step:?}");
                }
                // The new workers are starting: the same figures ask for nothing more.
                if !is_down {
                    let next = Seen { workers: step.to, ..now };
                    let again = decide(&BOUNDS, &next);
                    prop_assert!(again.is_none_or(|again| again.to < step.to), "{step:?}");
                }
            }
        }
    }
}
