#!/usr/bin/env bash
# Fuzzes the decoders, one after the other.
#
#     fuzz/run.sh              each of them
#     fuzz/run.sh packet body  these
#
# FUZZ_SECONDS=60         how long each
# FUZZ_SANITIZER=none     or address: Holdfast's decoders have no unsafe code, so the sanitizer looks
#                         after the crates they use, and makes everything some ten times slower
set -euo pipefail

fuzz_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly fuzz_dir
readonly seconds=${FUZZ_SECONDS:-60}
readonly sanitizer=${FUZZ_SANITIZER:-none}
# What a run finds of interest is kept here for the next one; corpus/ has what is kept for good.
readonly found_dir=$fuzz_dir/target/found
# Longest input, in bytes. Nothing a decoder decides depends on more, and short inputs are fast.
readonly max_bytes=4096

fail() {
    printf 'fuzz: %s\n' "$@" >&2
    exit 1
}

require() {
    command -v rustup >/dev/null || fail "no rustup, which is how a nightly compiler is found." \
        "Install it from https://rustup.rs"
    rustup run nightly rustc --version >/dev/null 2>&1 ||
        fail "the fuzzers need a nightly compiler." \
            "Install one: rustup toolchain install nightly --profile minimal"
    command -v c++ >/dev/null || fail "no C++ compiler, which libFuzzer is built with." \
        "Install one: apt-get install g++"
    if ! cargo fuzz --version >/dev/null 2>&1; then
        printf 'fuzz: installing cargo-fuzz\n'
        cargo install --quiet --locked cargo-fuzz ||
            fail "could not install it. Try: cargo install --locked cargo-fuzz"
    fi
}

fuzz() {
    local name=$1 log=$fuzz_dir/target/$1.log
    mkdir -p "$found_dir/$name" "$fuzz_dir/artifacts/$name"
    cargo +nightly fuzz run --fuzz-dir "$fuzz_dir" --features fuzzer --sanitizer "$sanitizer" \
        "$name" "$found_dir/$name" "$fuzz_dir/corpus/$name" -- \
        -max_total_time="$seconds" -max_len="$max_bytes" -print_final_stats=1 >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        fail "$name found something, see above and $log." \
            "Add the input to fuzz/corpus/$name with the fix: the tests run it from then on."
    }
    printf '%-15s %s\n' "$name" "$(grep -aE '^#[0-9]+\sDONE' "$log" | sed -E 's/^#([0-9]+)\s+DONE/\1 inputs,/')"
}

require
mkdir -p "$fuzz_dir/target"
if [ "$#" -eq 0 ]; then
    for path in "$fuzz_dir"/fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$path" .rs)"
    done
fi
for name in "$@"; do
    fuzz "$name"
done
