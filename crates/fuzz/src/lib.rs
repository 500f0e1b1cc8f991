//! Fuzz targets for everything that reads what strangers send. A target is a function over bytes that panics when it finds a
//! fault: a panic of the code itself, an accepted object that cannot be read back, a result out of all proportion.
//!
//! - Short, in `make test`: `tests/short.rs` gives each target its corpus and a fixed number of mutations of it.
//! - Long, on demand: `make fuzz FUZZ_TARGET=json SECONDS=600` builds with coverage and runs libFuzzer on what its earlier
//!   runs have found (`target/fuzz/found`) and on `corpus/<target>`. An input that fails is left in the latter, as
//!   `crash-…`: from then on the short run sees it. Give it a name that says what it shows, and commit it.
//!
//! Both run under an allocator with a limit: a small input that wants more memory than [`MEMORY_BYTES`] ends the process.

#![forbid(unsafe_code)]

pub mod mutate;
mod targets;

use std::path::PathBuf;

pub use targets::all;

/// What one process may have allocated at any time.
pub const MEMORY_BYTES: usize = 512 << 20;

/// Something that reads strangers' bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Panics when the bytes uncover a fault.
    pub run: fn(&[u8]),
    /// Tokens that mean something to the reader.
    pub dictionary: &'static [&'static str],
}

impl Target {
    /// The one called `name`.
    pub fn named(name: &str) -> Option<Self> {
        all().iter().find(|target| target.name == name).copied()
    }

    /// Where its corpus is kept.
    pub fn corpus_dir(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "corpus", self.name].iter().collect()
    }
}
