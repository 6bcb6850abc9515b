//! A limit in a request's body: an amount, null for any amount, or not said at all.

use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Deserializer};

use crate::usage::money::Micros;

/// What is said of one limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Amount {
    /// Nothing.
    #[default]
    Nothing,
    /// US dollars; `None`: any amount.
    Said(Option<f64>),
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self::Said)
    }
}

impl Amount {
    /// The limit, where something must be said; what is wrong joins the faults.
    pub(crate) fn read(self, field: &str, faults: &mut Vec<FieldFault>) -> Option<Micros> {
        let (read, message) = match self {
            Self::Nothing => (None, "is required; null means any amount"),
            Self::Said(None) => return None,
            Self::Said(Some(dollars)) => (
                Micros::from_dollars(dollars),
                "must be a number of US dollars, not negative",
            ),
        };
        if read.is_none() {
            faults.push(FieldFault {
                field: field.to_owned(),
                message: message.to_owned(),
            });
        }
        read
    }
}
