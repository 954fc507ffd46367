//! How the release binary is linked: small, because it stays resident for months.

/// Cargo 1.95 forgets `strip` of a profile for a package whose `opt-level` the profile overrides, as
/// it does for this one: it strips debug information only, and leaves 380 KB of symbols.
const STRIP: &str = "-Wl,--strip-all";

/// Relocations as a bitmap: 50 KB less for the dynamic linker to read, all of which would stay
/// resident. glibc knows them from 2.36 on, which is Debian 12's.
const PACK_RELOCATIONS: &str = "-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        for argument in [STRIP, PACK_RELOCATIONS] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
