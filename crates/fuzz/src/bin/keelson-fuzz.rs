//! The long run: libFuzzer drives the target that `KEELSON_FUZZ_TARGET` names. `tools/fuzz` builds and starts it.

#![no_main]
#![allow(unsafe_code, reason = "the macro exports the function that libFuzzer calls")]

use std::sync::LazyLock;

use keelson_fuzz::{MEMORY_BYTES, Target};

#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, MEMORY_BYTES);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("KEELSON_FUZZ_TARGET").unwrap_or_default();
    Target::named(&name).unwrap_or_else(|| {
        let names: Vec<&str> = keelson_fuzz::all().iter().map(|target| target.name).collect();
        eprintln!("KEELSON_FUZZ_TARGET={name:?} is none of {}", names.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
