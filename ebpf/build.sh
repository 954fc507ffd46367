#!/usr/bin/env bash
# Compiles the kernel programs: writes holdfast.bpf.o and, in holdfast.bpf.toml, what it was built
# from and with. The bytes depend on nothing else, so they are the same wherever the tree lies.
#
#     ebpf/build.sh            into this directory
#     ebpf/build.sh DIRECTORY  the object alone, elsewhere: to compare it
set -euo pipefail
# shellcheck source=record.sh
source "$(dirname "${BASH_SOURCE[0]}")/record.sh"
# shellcheck source=toolchain.sh
source "$ebpf_dir/toolchain.sh"

compile() {
    local target_dir=$ebpf_dir/target/$toolchain
    local options=(--locked --release --bin holdfast-bpf --target "$bpf_target"
        --target-dir "$target_dir" -Z trim-paths)
    if [[ $toolchain == nightly ]]; then
        options+=(-Z build-std=core)
    fi
    # Trimmed paths still name the directory Cargo unpacks a registry into, which is not the same
    # everywhere. It exists once the dependencies are fetched.
    "${cargo[@]}" fetch --quiet --locked --manifest-path "$ebpf_dir/Cargo.toml" \
        --target "$bpf_target" --target "$("${rustc[@]}" -vV | sed -n 's/^host: //p')"
    local flags=("-Clinker=$linker")
    # Likewise the version in the name it gives the other package of this tree.
    flags+=("--remap-path-prefix=$project_dir/protocol=protocol")
    local unpacked
    for unpacked in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
        flags+=("--remap-path-prefix=${unpacked%/}=registry")
    done
    # BTF is what lets every loader read the maps' definitions.
    flags+=(-Clink-arg=--btf)
    # Calls to memcpy and the like have no meaning in the kernel: compile them as loops.
    flags+=(-Clink-arg=--disable-memory-builtins)
    # v3: atomic operations and 32-bit registers (Linux 5.12).
    flags+=(-Ctarget-cpu=v3)
    flags+=(-Cdebuginfo=2)

    # RUSTC_BOOTSTRAP lets a stable compiler take the unstable options above. The encoded form of
    # the flags keeps directories with spaces whole.
    (
        cd "$ebpf_dir"
        export RUSTC=${rustc[0]} RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_TRIM_PATHS=all
        CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
        export CARGO_ENCODED_RUSTFLAGS
        "${cargo[@]}" build "${options[@]}"
    )
    local built=$target_dir/$bpf_target/release/holdfast-bpf
    # What is not exported has a mangled name, in which a number stands for this package and for where it was built.
    local renames=() name
    while read -r name; do
        renames+=("--redefine-sym=$name=$(sed 's/Cs[0-9A-Za-z]*_/C/' <<<"$name")")
    done < <("$llvm_dir/bin/llvm-nm" --format=just-symbols "$built" | grep '^_R')
    # Drops the DWARF sections and keeps .BTF and .BTF.ext.
    "$llvm_dir/bin/llvm-objcopy" --strip-debug "${renames[@]}" "$built" "$1"
}

write_record() {
    cat >"$record" <<EOF
# What holdfast.bpf.o was built from and with. Written by build.sh, compared by check.sh.
object_sha256 = "$(sha256_of "$object")"
sources_sha256 = "$(source_lines | sha256sum | cut -d ' ' -f 1)"
compiler = "$(compiler_version)"
linker = "$(linker_version)"

[sources]
$(source_lines)
EOF
}

require_toolchain
if [[ $# -gt 0 ]]; then
    compile "$1/holdfast.bpf.o"
else
    compile "$object"
    write_record
    printf 'ebpf: built %s\n' "${object#"$project_dir"/}"
fi
