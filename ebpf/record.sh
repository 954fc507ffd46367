# shellcheck shell=bash
# What was built from what: sourced by build.sh, which writes the record, and by check.sh, which
# compares it with the files. Needs nothing but coreutils.

# The directory of the kernel programs and the one above it, to which the record's paths are relative.
ebpf_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly ebpf_dir
readonly project_dir=${ebpf_dir%/*}
readonly object=$ebpf_dir/holdfast.bpf.o
readonly record=$ebpf_dir/holdfast.bpf.toml

# Everything the object's bytes depend on, apart from the compiler and the linker.
list_sources() (
    cd "$project_dir"
    {
        find ebpf/src -type f -name '*.rs'
        printf '%s\n' \
            ebpf/Cargo.toml ebpf/Cargo.lock ebpf/build.sh ebpf/record.sh ebpf/toolchain.sh \
            protocol/src/kernel.rs protocol/src/kernel/rules.rs protocol/src/lib.rs
    } | LC_ALL=C sort
)

# The record's lines for the sources as they are now: "path" = "sha256".
source_lines() {
    local path
    list_sources | while read -r path; do
        printf '"%s" = "%s"\n' "$path" "$(sha256_of "$project_dir/$path")"
    done
}

sha256_of() {
    sha256sum -- "$1" | cut -d ' ' -f 1
}

# The value of a key of the record.
recorded() {
    sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$record"
}

# The record's lines for the sources as they were when the object was built.
recorded_source_lines() {
    sed -n '/^\[sources\]$/,$p' "$record" | tail -n +2
}

die() {
    printf 'ebpf: %s\n' "$@" >&2
    exit 1
}
