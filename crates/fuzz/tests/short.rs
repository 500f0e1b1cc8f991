//! The short run of every target: its corpus as it is, and a fixed number of mutations of it.

use keelson_fuzz::mutate::Mutator;
use keelson_fuzz::{MEMORY_BYTES, Target};

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, MEMORY_BYTES);

/// Inputs made for each target.
const INPUTS: usize = 10_000;

/// One after the other, so that the memory limit is each one's own.
#[test]
fn nothing_breaks_a_reader() {
    // One target by name, while looking into it.
    let only = std::env::var("KEELSON_FUZZ_TARGET").ok();
    for target in keelson_fuzz::all().iter().filter(|t| only.as_ref().is_none_or(|only| only == t.name)) {
        let corpus = corpus(target);
        for input in &corpus {
            try_one(target, input);
        }
        let seed = 0x6b65_656c;
        let mut mutator = Mutator::new(&corpus, target.dictionary, seed);
        for _ in 0..INPUTS {
            try_one(target, &mutator.next_input());
        }
    }
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = target.corpus_dir();
    let entries =
        std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{} has no corpus in {}: {e}", target.name, dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has an empty corpus", target.name);
    paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn try_one(target: &Target, input: &[u8]) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    if outcome.is_err() {
        let path = target.corpus_dir().join(format!("crash-{}", input.len()));
        let _ = std::fs::write(&path, input);
        panic!("target {} fails on {} bytes, kept as {}", target.name, input.len(), path.display());
    }
}
