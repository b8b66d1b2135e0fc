# Finds or installs what the checks need. Sourced by scripts/test and scripts/bench.
#
# Python packages and node_modules live outside the checkout, in a folder named after the hash of their lock file, so
# that a fresh clone finds them and a changed lock file makes new ones.
# shellcheck shell=bash

NIGHTBUS_TEST_TOOLS="${NIGHTBUS_TEST_TOOLS:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/nightbus/tools}"
NEXTEST_VERSION=0.9.143

# ensure_tools KIND…
ensure_tools() {
    local kind
    for kind in "$@"; do
        "ensure_$kind" || {
            echo "missing: $kind (see above; CONTRIBUTING.md lists what is needed)" >&2
            return 1
        }
    done
}

ensure_rust() {
    command -v cargo >/dev/null || {
        echo "cargo is not installed; rustup installs the version of rust-toolchain.toml" >&2
        return 1
    }
    cargo --version && cargo fmt --version && cargo clippy --version
}

# A C compiler for SQLite, zstd, mimalloc and aws-lc.
ensure_native() {
    local missing=()
    command -v cc >/dev/null && command -v c++ >/dev/null || missing+=(gcc g++ libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v git >/dev/null || missing+=(git)
    [ "${#missing[@]}" -eq 0 ] || apt_install "${missing[@]}"
}

ensure_curl() { command -v curl >/dev/null || apt_install curl; }

ensure_nextest() {
    cargo nextest --version 2>/dev/null | head -n 1 | grep . ||
        cargo install --locked "cargo-nextest@$NEXTEST_VERSION"
}

# Sets VENV and CARGO_DENY.
ensure_python() {
    # Debian splits `venv` off.
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv || return 1
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "Python 3.10 or newer is needed, this is $(python3 --version)" >&2
        return 1
    }
    local requirements=(tests/sdk/python/requirements.txt scripts/requirements-tools.txt)
    VENV="$NIGHTBUS_TEST_TOOLS/python-$(fingerprint "$(python3 --version)" "${requirements[@]}")"
    if [ ! -e "$VENV/complete" ]; then
        rm -rf "$VENV"
        mkdir -p "$NIGHTBUS_TEST_TOOLS"
        python3 -m venv "$VENV" &&
            "$VENV/bin/pip" install --quiet --disable-pip-version-check -r "${requirements[0]}" &&
            "$VENV/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "${requirements[1]}" &&
            touch "$VENV/complete" || return 1
    fi
    CARGO_DENY="$(command -v cargo-deny || echo "$VENV/bin/cargo-deny")"
    "$VENV/bin/python" -c 'import openai, sys; print("Python", sys.version.split()[0], "openai", openai.__version__)' &&
        "$CARGO_DENY" --version
}

# Puts node_modules beside the Node suite.
ensure_node() {
    node_modules tests/sdk/node &&
        echo "Node $(node --version) openai $(node -p "require('./tests/sdk/node/node_modules/openai/package.json').version")"
}

# A browser, and node_modules beside its suite.
ensure_browser() {
    command -v chromium >/dev/null || apt_install chromium fonts-dejavu-core || return 1
    node_modules tests/browser && chromium --version
}

# node_modules SUITE: a link in the suite's folder to the packages of its lock file.
node_modules() {
    command -v npm >/dev/null || apt_install nodejs npm || return 1
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || {
        echo "Node 20 or newer is needed, this is $(node --version)" >&2
        return 1
    }
    local suite="$1" modules
    modules="$NIGHTBUS_TEST_TOOLS/node-$(fingerprint "$(node --version)" "$suite/package-lock.json")"
    if [ ! -e "$modules/complete" ]; then
        rm -rf "$modules"
        mkdir -p "$modules"
        cp "$suite/package.json" "$suite/package-lock.json" "$modules/" &&
            (cd "$modules" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) &&
            touch "$modules/complete" || return 1
    fi
    ln -sfn "$modules/node_modules" "$suite/node_modules"
}

# fingerprint TEXT FILE…
fingerprint() {
    local text="$1"
    shift
    { echo "$text" && cat "$@"; } | sha256sum | cut -c 1-16
}

apt_install() {
    local as=()
    command -v apt-get >/dev/null || {
        echo "needed and not installed: $*" >&2
        return 1
    }
    if [ "$(id -u)" -ne 0 ]; then
        as=(sudo -n)
    fi
    echo "installing: $*"
    "${as[@]}" apt-get update -qq &&
        "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
