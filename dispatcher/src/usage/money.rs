//! Money: whole millionths of a US dollar, so that sums are exact.

use serde::{Serialize, Serializer};

/// Micro-dollars in a dollar.
const PER_DOLLAR: f64 = 1_000_000.0;

/// An amount of money in millionths of a US dollar. In JSON it is dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub i64);

impl Micros {
    /// The nearest amount; `None` for what is no amount of money.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let micros = (dollars * PER_DOLLAR).round();
        let is_amount = micros.is_finite() && micros >= 0.0;
        // Saturates: more than nine billions of dollars is as much as any.
        is_amount.then_some(Self(micros as i64))
    }

    /// In dollars: the number with the fewest digits that reads back as this amount.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / PER_DOLLAR
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.dollars())
    }
}

impl std::fmt::Display for Micros {
    /// `$1.20`, with as many more digits as it has.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let micros = self.0.unsigned_abs();
        let digits = format!("{:06}", micros % 1_000_000);
        let kept = digits.trim_end_matches('0').len().max(2);
        write!(f, "{sign}${}.{}", micros / 1_000_000, &digits[..kept])
    }
}

#[cfg(test)]
mod tests {
    use super::Micros;

    #[test]
    fn amounts_read_as_people_write_them() {
        for (dollars, micros, text) in [
            (0.000_675, 675, "$0.000675"),
            (1.2, 1_200_000, "$1.20"),
            (0.1 + 0.2, 300_000, "$0.30"),
            (0.0, 0, "$0.00"),
        ] {
            let amount = Micros::from_dollars(dollars).expect("an amount");
            assert_eq!(amount, Micros(micros));
            assert_eq!(amount.to_string(), text);
        }
        assert_eq!(
            serde_json::to_string(&Micros(675)).expect("a number"),
            "0.000675"
        );
        for no_amount in [-0.01, f64::NAN, f64::INFINITY] {
            assert_eq!(Micros::from_dollars(no_amount), None);
        }
    }
}
