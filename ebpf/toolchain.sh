# shellcheck shell=bash
# A compiler and a linker for the BPF target: sourced by build.sh and check.sh, after record.sh.
#
# Two compilers will do, tried in this order:
#
#   debian   Debian's rustc-web in /usr/bin, with the package that holds `core` for this target
#   nightly  rustup's nightly with rust-src, which compiles `core` along
#
# HOLDFAST_BPF_TOOLCHAIN=debian or =nightly insists on one of them. Different compilers make
# different bytes, so the record names the one that was used.

readonly bpf_target=bpfel-unknown-none
readonly bpf_linker_version=0.13.0
# The LLVM that both compilers are built with; the linker reads their bitcode with the same one.
readonly llvm_major=22
readonly llvm_dir=/usr/lib/llvm-$llvm_major
readonly tools_dir=$ebpf_dir/target/tools
readonly debian_packages="rustc-web cargo-web libstd-rust-web-dev-bpf llvm-$llvm_major-dev"

# Sets `toolchain`, `cargo` and `rustc` (arrays: a command and its arguments), or fails.
find_compiler() {
    case ${HOLDFAST_BPF_TOOLCHAIN:-any} in
        debian) use_debian ;;
        nightly) use_nightly ;;
        any) use_debian || use_nightly ;;
        *) die "HOLDFAST_BPF_TOOLCHAIN is '$HOLDFAST_BPF_TOOLCHAIN'; it can be debian or nightly" ;;
    esac
}

use_debian() {
    [[ -x /usr/bin/rustc && -x /usr/bin/cargo ]] || return 1
    local libraries
    libraries=$(/usr/bin/rustc --print target-libdir --target "$bpf_target" 2>/dev/null) || return 1
    compgen -G "$libraries/libcore-*.rlib" >/dev/null || return 1
    toolchain=debian
    cargo=(/usr/bin/cargo)
    rustc=(/usr/bin/rustc)
}

use_nightly() {
    command -v rustup >/dev/null || return 1
    local sysroot
    sysroot=$(rustup run nightly rustc --print sysroot 2>/dev/null) || return 1
    [[ -d $sysroot/lib/rustlib/src/rust/library ]] || return 1
    toolchain=nightly
    cargo=("$sysroot/bin/cargo")
    rustc=("$sysroot/bin/rustc")
}

# Sets `linker`, or fails. Another version of it would make other bytes.
find_linker() {
    local candidate
    for candidate in "$tools_dir/bin/bpf-linker" "$(command -v bpf-linker || true)"; do
        if [[ -x $candidate && $("$candidate" --version) == "bpf-linker $bpf_linker_version" ]]; then
            linker=$candidate
            return
        fi
    done
    return 1
}

# Finds both, and installs what is missing.
require_toolchain() {
    if ! find_compiler || [[ ! -x $llvm_dir/bin/llvm-objcopy ]]; then
        install_packages
        find_compiler || die "there is still no compiler for $bpf_target after installing" \
            "$debian_packages; another way: rustup toolchain install nightly -c rust-src"
    fi
    find_linker || install_linker
}

install_packages() {
    local install="apt-get install --no-install-recommends -y $debian_packages"
    if [[ $(id -u) != 0 ]] || ! apt-cache show rustc-web >/dev/null 2>&1; then
        die "no compiler for $bpf_target, or no $llvm_dir. On Debian 12, run as root:" "    $install" \
            "Elsewhere: rustup toolchain install nightly -c rust-src, and LLVM $llvm_major in $llvm_dir"
    fi
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends -y $debian_packages
}

install_linker() {
    printf 'ebpf: building bpf-linker %s in %s\n' "$bpf_linker_version" "$tools_dir" >&2
    # Compiled by whatever Cargo comes first: unlike the programs, it is not part of the object.
    LIBRARY_PATH=$llvm_dir/lib LLVM_PREFIX=$llvm_dir LLVM_SYS_221_PREFIX=$llvm_dir \
        cargo install bpf-linker --version "$bpf_linker_version" --locked --quiet \
        --no-default-features --features "llvm-$llvm_major" --root "$tools_dir"
    find_linker || die "bpf-linker was installed in $tools_dir, but does not run"
}

# What the record says of the compiler, and of the linker.
compiler_version() {
    local llvm
    llvm=$("${rustc[@]}" -vV | sed -n 's/^LLVM version: //p')
    printf '%s, LLVM %s\n' "$("${rustc[@]}" --version)" "$llvm"
}

linker_version() {
    "$linker" --version
}
