#!/usr/bin/env bash
# Fails when the compiled kernel object is not the one its sources were last built into. Needs no
# compiler.
#
#     ebpf/check.sh            compares the record with the files
#     ebpf/check.sh --rebuild  also builds again and compares the bytes, if the compiler and the
#                              linker of the record are installed; fails if they are not
set -euo pipefail
# shellcheck source=record.sh
source "$(dirname "${BASH_SOURCE[0]}")/record.sh"

readonly remedy="make ebpf builds the object again"

check_record() {
    local file differences
    for file in "$object" "$record"; do
        [[ -f $file ]] || die "${file#"$project_dir"/} is missing; $remedy"
    done
    [[ $(sha256_of "$object") == "$(recorded object_sha256)" ]] ||
        die "holdfast.bpf.o is not the object that holdfast.bpf.toml describes; $remedy"
    if ! differences=$(diff <(recorded_source_lines) <(source_lines)); then
        die "holdfast.bpf.o was not built from these sources; $remedy. Changed since:" \
            "$(sed -n 's/^[<>] "\(.*\)" = .*/    \1/p' <<<"$differences" | sort -u)"
    fi
    [[ $(source_lines | sha256sum | cut -d ' ' -f 1) == "$(recorded sources_sha256)" ]] ||
        die "holdfast.bpf.toml contradicts itself; $remedy"
}

check_rebuild() {
    # shellcheck source=toolchain.sh
    source "$ebpf_dir/toolchain.sh"
    find_compiler || die "no compiler for $bpf_target to build again with; see ebpf/README.md"
    find_linker || die "no bpf-linker $bpf_linker_version to build again with; see ebpf/README.md"
    [[ $(compiler_version) == "$(recorded compiler)" && $(linker_version) == "$(recorded linker)" ]] ||
        die "holdfast.bpf.o was built with $(recorded compiler) and $(recorded linker);" \
            "here are $(compiler_version) and $(linker_version)"
    rebuilt=$(mktemp -d)
    trap 'rm -rf "$rebuilt"' EXIT
    "$ebpf_dir/build.sh" "$rebuilt"
    cmp "$object" "$rebuilt/holdfast.bpf.o" ||
        die "building again makes other bytes than holdfast.bpf.o; $remedy"
}

check_record
case ${1:-} in
    '') ;;
    --rebuild) check_rebuild ;;
    *) die "unknown argument '$1'; it can be --rebuild" ;;
esac
printf 'ebpf: holdfast.bpf.o agrees with its sources\n'
