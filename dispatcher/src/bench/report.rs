//! What was measured, as a table and as JSON: one list of figures, each beside its targets.
//!
//! A figure that could not be measured stays in the list and says why: a report never looks
//! complete when it is not.

use std::fmt::Write;

use serde::Serialize;

use super::stats::Samples;

/// A whole run.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The install that was measured.
    pub url: String,
    /// Version of this program.
    pub version: &'static str,
    /// Processors of the machine that ran the bench.
    pub processors: usize,
    /// What a reader must know to judge the figures.
    pub notes: Vec<String>,
    /// In the order in which they were measured.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// Stable, for programs: `line_to_client`.
    pub name: String,
    /// For people.
    pub what: String,
    /// Of every number in it.
    pub unit: Unit,
    /// How often it was measured.
    pub count: u64,
    /// How often that failed.
    pub errors: u64,
    /// The result.
    #[serde(flatten)]
    pub reading: Reading,
    /// What it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// What it includes or leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Units of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Per second.
    #[serde(rename = "/s")]
    PerSecond,
    /// 2^20 bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// 2^10 bytes.
    #[serde(rename = "KiB")]
    Kibibytes,
    /// Things.
    #[serde(rename = "count")]
    Count,
    /// One figure divided by another.
    #[serde(rename = "ratio")]
    Ratio,
}

/// A figure's result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
pub enum Reading {
    /// Not measured.
    Skipped {
        /// Why.
        skipped: String,
    },
    /// One number.
    Value {
        /// The number.
        value: f64,
    },
    /// Many durations.
    #[expect(missing_docs, reason = "the names say it")]
    Percentiles {
        p50: f64,
        p95: f64,
        p99: f64,
        max: f64,
    },
}

/// Which number of a figure a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Stat {
    Value,
    P50,
    P95,
    P99,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Of which number.
    pub stat: Stat,
    /// The most it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// The least it may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Whether it is.
    pub verdict: Verdict,
}

/// How a figure stands to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Reached.
    Ok,
    /// Not reached.
    Missed,
    /// Not measured.
    Unknown,
}

impl Figure {
    /// A number.
    pub fn value(name: &str, what: &str, unit: Unit, count: u64, value: f64) -> Self {
        Self::new(name, what, unit, count, Reading::Value { value })
    }

    /// Durations.
    pub fn durations(name: &str, what: &str, samples: &Samples) -> Self {
        let reading = samples.percentiles().map_or_else(
            || Reading::Skipped {
                skipped: "nothing was measured".to_owned(),
            },
            |of| Reading::Percentiles {
                p50: of.p50,
                p95: of.p95,
                p99: of.p99,
                max: of.max,
            },
        );
        Self::new(name, what, Unit::Millis, samples.count(), reading)
    }

    /// A figure that was not measured.
    pub fn skipped(name: &str, why: impl Into<String>) -> Self {
        let skipped = why.into();
        Self::new(name, name, Unit::Count, 0, Reading::Skipped { skipped })
    }

    fn new(name: &str, what: &str, unit: Unit, count: u64, reading: Reading) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            unit,
            count,
            errors: 0,
            reading,
            targets: Vec::new(),
            note: None,
        }
    }

    /// Sets how often measuring failed.
    pub fn errors(mut self, errors: u64) -> Self {
        self.errors = errors;
        self
    }

    /// Says what it includes or leaves out.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// It should be at most this.
    pub fn at_most(self, stat: Stat, bound: f64) -> Self {
        self.target(stat, Some(bound), None)
    }

    /// It should be at least this.
    pub fn at_least(self, stat: Stat, bound: f64) -> Self {
        self.target(stat, None, Some(bound))
    }

    /// The number that a target is about.
    pub fn read(&self, stat: Stat) -> Option<f64> {
        match (&self.reading, stat) {
            (Reading::Value { value }, Stat::Value) => Some(*value),
            (Reading::Percentiles { p50, .. }, Stat::P50) => Some(*p50),
            (Reading::Percentiles { p95, .. }, Stat::P95) => Some(*p95),
            (Reading::Percentiles { p99, .. }, Stat::P99) => Some(*p99),
            _ => None,
        }
    }

    fn target(mut self, stat: Stat, at_most: Option<f64>, at_least: Option<f64>) -> Self {
        let verdict = match self.read(stat) {
            None => Verdict::Unknown,
            Some(number)
                if at_most.is_none_or(|most| number <= most)
                    && at_least.is_none_or(|least| number >= least) =>
            {
                Verdict::Ok
            }
            Some(_) => Verdict::Missed,
        };
        self.targets.push(Target {
            stat,
            at_most,
            at_least,
            verdict,
        });
        self
    }
}

impl Report {
    /// The value or the median of a figure, if it was measured.
    pub fn number(&self, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.name == name)?;
        figure.read(Stat::Value).or_else(|| figure.read(Stat::P50))
    }

    /// Adds how two figures stand to one another, if both were measured.
    pub fn ratio(&mut self, name: &str, what: &str, above: &str, below: &str) {
        if let (Some(above), Some(below)) = (self.number(above), self.number(below))
            && below > 0.0
        {
            self.figures
                .push(Figure::value(name, what, Unit::Ratio, 1, above / below));
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// As a table.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "clawlink {} at {}, {} processors\n\n",
            self.version, self.url, self.processors
        );
        let width = self.figures.iter().map(|figure| figure.what.len()).max();
        let width = width.unwrap_or(0).max(4);
        let mut line = |cells: [&str; 9]| {
            let [what, count, errors, value, p50, p95, p99, unit, target] = cells;
            let row = format!(
                "{what:<width$} {count:>7} {errors:>6} {value:>10} {p50:>9} {p95:>9} {p99:>9} {unit:<6} {target}"
            );
            let _infallible = writeln!(text, "{}", row.trim_end());
        };
        line([
            "what", "count", "errors", "value", "p50", "p95", "p99", "unit", "target",
        ]);
        for figure in &self.figures {
            let shown = |stat| figure.read(stat).map(number).unwrap_or_default();
            let (count, errors) = (figure.count.to_string(), figure.errors.to_string());
            let unit = unit_name(figure.unit);
            let targets: Vec<_> = figure.targets.iter().map(target).collect();
            match &figure.reading {
                Reading::Skipped { skipped } => {
                    line([&figure.what, "-", &errors, "-", "", "", "", "", skipped]);
                }
                Reading::Value { .. } | Reading::Percentiles { .. } => line([
                    &figure.what,
                    &count,
                    &errors,
                    &shown(Stat::Value),
                    &shown(Stat::P50),
                    &shown(Stat::P95),
                    &shown(Stat::P99),
                    unit,
                    &targets.join(", "),
                ]),
            }
        }
        let notes = self.figures.iter().filter_map(|figure| {
            let note = figure.note.as_ref()?;
            Some(format!("{}: {note}", figure.what))
        });
        text.push('\n');
        for note in self.notes.iter().cloned().chain(notes) {
            let _infallible = writeln!(text, "- {note}");
        }
        text
    }
}

fn target(target: &Target) -> String {
    let stat = match target.stat {
        Stat::Value => "",
        Stat::P50 => "p50 ",
        Stat::P95 => "p95 ",
        Stat::P99 => "p99 ",
    };
    let verdict = match target.verdict {
        Verdict::Ok => "ok",
        Verdict::Missed => "MISSED",
        Verdict::Unknown => "unknown",
    };
    let bound = match (target.at_most, target.at_least) {
        (Some(most), _) => format!("≤ {}", number(most)),
        (None, Some(least)) => format!("≥ {}", number(least)),
        (None, None) => String::new(),
    };
    format!("{stat}{bound} {verdict}")
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Millis => "ms",
        Unit::PerSecond => "/s",
        Unit::Mebibytes => "MiB",
        Unit::Kibibytes => "KiB",
        Unit::Count | Unit::Ratio => "",
    }
}

/// Three digits where they matter.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}
