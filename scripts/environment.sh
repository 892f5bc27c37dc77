# Sourced by scripts/run and scripts/test: makes the virtual environment .venv in the checkout, once for each pyproject.toml.
#
#   environment run     pybpf and what it needs to run
#   environment test    and what its tests need, Debian packages included
#   environment docs    what scripts/build-docs needs

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf 'scripts: %s\n' "$*" >&2; }

# Installs the Debian packages among the arguments that are not there.
debian_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "please install: ${missing[*]}"
        return 1
    fi
    say "installing ${missing[*]}"
    (
        flock 9 # two scripts at once: apt-get would refuse the second
        apt-get update -qq >&2 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    ) 9>"${TMPDIR:-/tmp}/pybpf-packages.lock"
}

# The newest Python from 3.11 on that can make a virtual environment; Debian's own is preferred: it is the quickest.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

environment() {
    local kind=$1 python stamp
    stamp=$venv/.$kind-$(cksum <"$root/pyproject.toml" | cut -d' ' -f1)
    [ -e "$stamp" ] && return 0
    if [ ! -x "$venv/bin/python" ]; then
        python=$(find_python) || { debian_packages python3 python3-venv && python=$(find_python); } || {
            say "a Python from 3.11 on with venv is needed (Debian: apt-get install python3-venv)"
            return 1
        }
        say "making $venv with $python"
        "$python" -m venv "$venv" || return 1
    fi
    say "installing pybpf and what it needs into $venv"
    "$venv/bin/python" -m pip install -q --upgrade 'pip>=25.1' || return 1
    case $kind in
    run) "$venv/bin/python" -m pip install -q -e "$root" || return 1 ;;
    test) "$venv/bin/python" -m pip install -q -e "$root[numpy,net]" --group "$root/pyproject.toml:dev" || return 1 ;;
    docs) "$venv/bin/python" -m pip install -q --group "$root/pyproject.toml:docs" || return 1 ;;
    esac
    rm -f "$venv/.$kind-"*
    touch "$stamp"
}

# Tracepoints by name are found in tracefs, pins and tokens live in a bpf file system: a bare machine mounts neither.
mount_kernel_filesystems() {
    [ "$(id -u)" -eq 0 ] || return 0
    mountpoint -q /sys/kernel/tracing 2>/dev/null || [ -e /sys/kernel/tracing/events ] ||
        mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
    mountpoint -q /sys/fs/bpf 2>/dev/null || mount -t bpf bpf /sys/fs/bpf 2>/dev/null || true
}
