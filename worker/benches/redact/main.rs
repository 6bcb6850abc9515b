//! How fast text without secrets is looked through on one core, with fifty secrets known.
//!
//! `cargo bench -p clawlink-worker --bench redact` (`-- --mib 256` for more). Texts are of the
//! kinds that agents print; the slowest of them must meet the target. Events are measured too: they
//! are JSON, of which each string is decoded first.

use std::hint::black_box;
use std::time::Instant;

use clap::Parser;
use clawlink_shared::secret::Secret;
use clawlink_worker::redact::Redactor;
use serde_json::value::RawValue;

/// Bytes per second of text.
const TARGET: f64 = 1e9;
/// Secrets that are known.
const SECRETS: u64 = 50;
/// Text is looked through in pieces of this size, as it comes.
const PIECE: usize = 64 * 1024;

#[derive(Parser)]
struct Args {
    /// Text of each kind, in MiB.
    #[arg(long, default_value_t = 64)]
    mib: usize,
    /// Rounds; the fastest counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let redactor = Redactor::new(&secrets());
    let bytes = args.mib * 1024 * 1024;
    let mut slowest = f64::INFINITY;
    for (kind, text) in [
        ("prose", repeated(PROSE, bytes)),
        ("compiler", repeated(COMPILER, bytes)),
        ("base64", noise(bytes)),
    ] {
        let rate = fastest(&args, text.len(), || {
            for piece in text.as_bytes().chunks(PIECE) {
                assert!(!redactor.is_hit(black_box(piece)));
            }
        });
        show(kind, rate);
        slowest = slowest.min(rate);
    }
    let line = serde_json::to_string(&COMPILER.repeat(4)).expect("a text is JSON");
    let event = RawValue::from_string(format!("{{\"text\":{line}}}")).expect("JSON");
    let count = bytes / event.get().len();
    let rate = fastest(&args, count * event.get().len(), || {
        for _ in 0..count {
            black_box(redactor.redact_json(black_box(&event)));
        }
    });
    show("events", rate);
    verdict(slowest);
}

/// Bytes per second of the fastest round.
fn fastest(args: &Args, bytes: usize, work: impl Fn()) -> f64 {
    let rounds = (0..args.rounds.max(1)).map(|_| {
        let begun = Instant::now();
        work();
        bytes as f64 / begun.elapsed().as_secs_f64()
    });
    rounds.fold(0.0, f64::max)
}

/// Tokens, passwords with signs, and a few short ones.
fn secrets() -> Vec<Secret> {
    let mut random = Random(7);
    let secret = |n: u64| {
        let (length, letters) = match n % 10 {
            0 => (10, &LETTERS[..62]),
            1 => (24, LETTERS),
            _ => (40, &LETTERS[..62]),
        };
        let text: String = (0..length).map(|_| random.one_of(letters)).collect();
        Secret::new(text)
    };
    (0..SECRETS).map(secret).collect()
}

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!/+&\"?=";

const PROSE: &str = "I will look at the failing test first, then at the function that it calls. \
The error says that the index is out of bounds, which can only happen when the list is empty. \
Let me add a check for that, and a test that would have found it.\n";

const COMPILER: &str = "error[E0308]: mismatched types\n  --> src/store/lease.rs:217:31\n    |\n\
217 |     let held = locked::look(&mut db, id, hash).await?;\n    |                               \
^^^^^^^ expected `&mut PgConnection`, found `&mut PoolConnection<Postgres>`\n\
\u{1b}[0m\u{1b}[1m{\"level\":\"info\",\"ts\":1763650800.123,\"caller\":\"api/server.go:88\",\
\"msg\":\"GET /api/v1/items?limit=50&cursor=eyJpZCI6MTIzfQ 200 3.2ms\"}\n";

fn repeated(text: &str, bytes: usize) -> String {
    text.repeat(bytes / text.len() + 1)
}

/// What looks like one long secret.
fn noise(bytes: usize) -> String {
    let mut random = Random(11);
    (0..bytes).map(|_| random.one_of(&LETTERS[..62])).collect()
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn one_of(&mut self, letters: &[u8]) -> char {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        char::from(letters[(self.0 % letters.len() as u64) as usize])
    }
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn show(kind: &str, rate: f64) {
    println!("{kind:>9}: {:6.2} GB/s", rate / 1e9);
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn verdict(slowest: f64) {
    let verdict = if slowest >= TARGET { "ok" } else { "MISSED" };
    let (slowest, target) = (slowest / 1e9, TARGET / 1e9);
    println!("  slowest: {slowest:6.2} GB/s (target: at least {target:.0} GB/s) {verdict}");
}
