//! Mutations for the short runs, where no coverage guides them: what tends to break readers, applied to inputs that they
//! accept.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Mutations applied to one input, at most.
const MAX_STEPS: usize = 6;
/// Longest input made.
const MAX_BYTES: usize = 64 << 10;
/// Bytes that readers treat specially.
const SPECIAL: &[u8] =
    &[0, 1, 0x1b, 0x1f, b'"', b'\\', b'{', b'[', b'&', b'*', b'-', b'9', 0x7f, 0x80, 0xc0, 0xed, 0xf5, 0xff];

/// An endless, repeatable source of inputs.
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    dictionary: &'a [&'a str],
    random: StdRng,
}

impl<'a> Mutator<'a> {
    /// The same seed makes the same inputs. `corpus` must not be empty.
    pub fn new(corpus: &'a [Vec<u8>], dictionary: &'a [&'a str], seed: u64) -> Self {
        Self { corpus, dictionary, random: StdRng::seed_from_u64(seed) }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.any().to_vec();
        for _ in 0..self.random.random_range(1..=MAX_STEPS) {
            self.step(&mut input);
            input.truncate(MAX_BYTES);
        }
        input
    }

    fn any(&mut self) -> &'a [u8] {
        &self.corpus[self.random.random_range(0..self.corpus.len())]
    }

    /// A place in the input, or its end.
    fn at(&mut self, input: &[u8]) -> usize {
        self.random.random_range(0..=input.len())
    }

    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let (a, b) = (self.at(input), self.at(input));
        a.min(b)..a.max(b)
    }

    fn step(&mut self, input: &mut Vec<u8>) {
        match self.random.random_range(0..9) {
            0 if !input.is_empty() => {
                let at = self.random.random_range(0..input.len());
                input[at] ^= 1 << self.random.random_range(0..8);
            }
            1 if !input.is_empty() => {
                let at = self.random.random_range(0..input.len());
                input[at] = SPECIAL[self.random.random_range(0..SPECIAL.len())];
            }
            2 => {
                let range = self.range(input);
                input.drain(range);
            }
            3 => {
                // The same again, many times: depth, and long lists.
                let range = self.range(input);
                let times = self.random.random_range(1..=64_usize);
                let room = MAX_BYTES.saturating_sub(input.len());
                let piece = input[range.clone()].to_vec();
                let times = times.min(room / piece.len().max(1));
                input.splice(range.end..range.end, piece.repeat(times));
            }
            4 => {
                let other = self.any();
                let (from, at) = (self.range(other), self.at(input));
                input.splice(at..at, other[from].to_vec());
            }
            5 if !self.dictionary.is_empty() => {
                let token = self.dictionary[self.random.random_range(0..self.dictionary.len())];
                let at = self.at(input);
                input.splice(at..at, token.bytes());
            }
            6 => {
                let at = self.at(input);
                let digits = "9".repeat(self.random.random_range(1..=400));
                input.splice(at..at, digits.bytes());
            }
            7 => {
                let at = self.at(input);
                input.truncate(at);
            }
            _ => {
                let at = self.at(input);
                let byte = SPECIAL[self.random.random_range(0..SPECIAL.len())];
                let times = self.random.random_range(1..=300_usize);
                input.splice(at..at, std::iter::repeat_n(byte, times));
            }
        }
    }
}
