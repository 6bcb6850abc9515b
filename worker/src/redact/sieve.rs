//! Passes over text that holds no secret faster than an automaton can: it looks at one window in
//! several bytes and jumps as far as the last three bytes of the window allow.
//!
//! Every form has at least [`MIN_SECRET_BYTES`](super::MIN_SECRET_BYTES), so a window of the shortest
//! form's length that ends in three bytes which occur nowhere in the beginnings of the forms can
//! be left behind as a whole. What is left of candidates is compared by the automaton. It may say
//! that there might be a form where there is none; never the other way round.

/// Bytes at a window's end that decide how far to jump.
const BLOCK: usize = 3;

/// Bits of a block's place in the table: the table stays in the nearest cache.
const BITS: u32 = 14;

/// Longest window: jumps are kept in a byte, and longer windows gain nothing.
const MAX_WINDOW: usize = 64;

/// Jumps for one set of forms.
pub(super) struct Sieve {
    /// Length of the window; 0: there are no forms.
    window: usize,
    /// How far a window may move whose last bytes have this place; 0: a form may begin with it.
    jumps: Vec<u8>,
    /// Which beginnings of forms there are, by the place of their first bytes.
    begins: Vec<bool>,
}

impl Sieve {
    /// For these forms, each of at least [`BLOCK`] + 1 bytes.
    pub(super) fn new(forms: &[Vec<u8>]) -> Self {
        let shortest = forms.iter().map(Vec::len).min().unwrap_or(0);
        let window = shortest.min(MAX_WINDOW);
        debug_assert!(forms.is_empty() || window > BLOCK, "forms are longer");
        if window <= BLOCK {
            return Self {
                window: 0,
                jumps: Vec::new(),
                begins: Vec::new(),
            };
        }
        let mut jumps = vec![(window - BLOCK + 1) as u8; 1 << BITS];
        let mut begins = vec![false; 1 << BITS];
        for form in forms {
            begins[place(&form[..=BLOCK])] = true;
            for end in BLOCK..=window {
                let jump = &mut jumps[block(&form[end - BLOCK..end])];
                *jump = (*jump).min((window - end) as u8);
            }
        }
        Self {
            window,
            jumps,
            begins,
        }
    }

    /// The first place from `from` on at which a form may begin.
    pub(super) fn candidate(&self, text: &[u8], from: usize) -> Option<usize> {
        if self.window == 0 {
            return None;
        }
        let mut end = from + self.window;
        while let Some(last) = text.get(end - BLOCK..end) {
            let jump = self.jumps[block(last)];
            if jump == 0 {
                let start = end - self.window;
                if self.begins[place(&text[start..=start + BLOCK])] {
                    return Some(start);
                }
                end += 1;
            } else {
                end += usize::from(jump);
            }
        }
        None
    }
}

/// The place of three bytes.
fn block(bytes: &[u8]) -> usize {
    let [a, b, c] = [bytes[0], bytes[1], bytes[2]].map(u32::from);
    mixed(a | b << 8 | c << 16)
}

/// The place of the first four bytes of a form.
fn place(bytes: &[u8]) -> usize {
    mixed(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Multiplying moves what differs into the upper bits.
fn mixed(bytes: u32) -> usize {
    (bytes.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few letters, so that beginnings and ends of forms occur everywhere.
        #[test]
        fn no_form_is_passed_over(
            forms in prop::collection::vec(prop::collection::vec(0u8..3, 4..12), 1..6),
            before in prop::collection::vec(0u8..3, 0..40),
            after in prop::collection::vec(0u8..3, 0..40),
            pick in any::<prop::sample::Index>(),
        ) {
            let sieve = Sieve::new(&forms);
            let form = pick.get(&forms);
            let text = [before.as_slice(), form, &after].concat();
            let mut from = 0;
            let mut found = Vec::new();
            while let Some(at) = sieve.candidate(&text, from) {
                found.push(at);
                from = at + 1;
            }
            prop_assert!(found.contains(&before.len()), "{found:?}");
        }
    }

    #[test]
    fn nothing_to_look_for_is_nowhere() {
        assert_eq!(Sieve::new(&[]).candidate(b"some text", 0), None);
        let sieve = Sieve::new(&[b"abcdefgh".to_vec()]);
        assert_eq!(sieve.candidate(b"", 0), None);
        assert_eq!(sieve.candidate(b"abcdefg", 0), None);
        assert_eq!(sieve.candidate(b"xabcdefgh", 0), Some(1));
        assert_eq!(sieve.candidate(b"xabcdefgh", 5), None);
    }
}
