# What ./x test, ./x fuzz, ./x sim, ./x datagrams and ./x lint run.
# shellcheck shell=bash disable=SC2154

run_tests() { # run_tests [web|rust|browser|shots …]
  local parts=("$@"); [ ${#parts[@]} -gt 0 ] || parts=(web rust browser)
  local failed=0 part log=target/test-logs
  # Only what runs now is counted.
  mkdir -p "$log"; rm -f "$log"/*
  need_build_packages; need_test_packages; need_rust; need_node; need_models; need_nextest; build_web
  for part in "${parts[@]}"; do
    case $part in
      web) run_and_keep "$log/web" web_tests || failed=1 ;;
      rust) run_and_keep "$log/rust" rust_tests || failed=1 ;;
      browser) run_and_keep "$log/browser" browser_stories || failed=1 ;;
      shots) run_and_keep "$log/shots" browser_stories whole_call || failed=1 ;;
      *) fail "there is no test part '$part': web, rust, browser" ;;
    esac
  done
  count_tests "$log"
  [ $failed = 0 ] || fail "some tests failed; the whole output is in $log"
}

run_and_keep() { # run_and_keep FILE COMMAND… : output to the terminal and to FILE
  local file=$1; shift
  ( set -o pipefail; "$@" 2>&1 | tee "$file" )
}

web_tests() {
  say "checking and testing the pages"
  (cd web && npm run check && npm test)
}

rust_tests() {
  say "building the programs and their tests (one profile: dev)"
  build_tested || return 1
  say "running the Rust tests"
  cargo nextest run --locked --workspace --no-fail-fast
}

# Programs and tests in one selection. Another one (the programs alone) has other features: half of the tree would be
# built and kept twice.
build_tested() { need_space target/debug 8; cargo build --locked --workspace --bins --tests; }

# Real browsers against the real programs, in a network of their own that holds nothing but loopback and one
# virtual wire (Firefox gathers no loopback candidates).
browser_stories() { # browser_stories [NAME-BEGINS-WITH]
  say "building the programs for the browser stories"
  build_tested || return 1
  (cd integration-tests/browser && { [ -d node_modules ] && fresh_stories; } || npm_stories) || return 1
  say "browser stories, two at a time"
  local isolate=(unshare -n); [ "$(id -u)" = 0 ] || isolate=(unshare -rn)
  local story logs again=() failed=0
  logs=$(mktemp -d)
  # Most of a story is people who speak in real time: two of them fit on two cores. What one prints comes when it is over.
  for story in integration-tests/browser/stories/"${1:-}"*.test.mjs; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    (
      log=$logs/$(basename "$story")
      run_story "$story" > "$log" 2>&1 || touch "$log.failed"
      flock "$logs" cat "$log"
    ) &
  done
  wait
  # As with the Rust tests: a second try, alone, and the last line tells that it was needed.
  for story in "$logs"/*.failed; do [ ! -e "$story" ] || again+=("$(basename "$story" .failed)"); done
  rm -r "$logs"
  for story in "${again[@]}"; do run_story "integration-tests/browser/stories/$story" || failed=1; done
  return $failed
}
run_story() {
  say "story $(basename "$1" .test.mjs)"
  # One that does not end by itself has failed, and holds up nothing else: past the limits of its suites it is ended.
  timeout -k 10 $((1000 + ${MINUTES:-0} * 120)) "${isolate[@]}" integration-tests/browser/in-own-network.sh \
    node --test --test-force-exit --test-reporter=spec "$1"
}
fresh_stories() { (cd "$root" && fresh stories integration-tests/browser/package-lock.json); }
npm_stories() {
  say "getting the browser drivers (npm ci)"
  npm ci --no-audit --no-fund && (cd "$root" && stamp stories integration-tests/browser/package-lock.json)
}

# One closing line over all runners, for people and machines.
count_tests() { # count_tests LOGS
  python3 - "$1" <<'P'
import pathlib, re, sys
passed = failed = skipped = flaky = 0
for log in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
    found = re.findall(r"^\s*Summary \[.*?\]\s+(\d+)(?:/\d+)? tests? run: (\d+) passed(?: \(.*?\))?(?:, (\d+) failed)?(?:, (\d+) (?:timed out))?(?:, (\d+) skipped)?", text, re.M)
    for _, p, f, t, s in found[-1:]:
        passed += int(p); failed += int(f or 0) + int(t or 0); skipped += int(s or 0)
    vitest = re.findall(r"^\s*Tests\s+(?:(\d+) failed \| )?(\d+) passed", text, re.M)
    for f, p in vitest[-1:]:
        passed += int(p); failed += int(f or 0)
    flaky += sum(int(f) for f in re.findall(r"^\s*Summary \[.*\((?:.*, )?(\d+) flaky", text, re.M)[-1:])
    stories = {}
    for line in text.splitlines():
        if story := re.match(r"==> story (\S+)", line):
            again = story[1] in stories
            counts = stories[story[1]] = {"pass": 0, "fail": 1, "skipped": 0, "again": again}
        elif stories and (count := re.match(r"[ℹ#] (pass|fail|skipped) (\d+)", line)):
            counts[count[1]] = int(count[2])
    for counts in stories.values():
        passed += counts["pass"]; failed += counts["fail"]; skipped += counts["skipped"]
        flaky += counts["again"] and not counts["fail"]
    print(f"{log.name}: done")
print(f"{passed} passed, {failed} failed, {skipped} skipped; {flaky} at the second try only")
P
}

run_fuzz() { # run_fuzz SECONDS [TARGET …]
  need_build_packages; need_rust; need_cargo_fuzz
  local target seconds=$1 log=target/fuzz.log failed=(); shift
  mkdir -p target
  # libFuzzer's flags are unstable ones; this asks the pinned stable compiler to take them, for this crate alone.
  export RUSTC_BOOTSTRAP=1
  for target in $(cargo fuzz list); do
    [ $# = 0 ] || [[ " $* " == *" $target "* ]] || continue
    say "fuzzing $target for $seconds s"
    # New inputs go to the first folder, the committed corpus is only read. No sanitizer: the core has no unsafe code, and
    # what is looked for, panics and broken promises, is found four times as fast.
    mkdir -p "fuzz/target/found/$target"
    cargo fuzz run --sanitizer none "$target" "fuzz/target/found/$target" "fuzz/corpus/$target" -- \
      -max_total_time="$seconds" -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 2>&1 | tee "$log" || failed+=("$target")
    say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1) executions"
  done
  [ ${#failed[@]} = 0 ] || fail "found something: ${failed[*]}; the inputs are in fuzz/artifacts"
}

run_sim() { # run_sim [WORLDS] | --seed N
  need_build_packages; need_rust
  if [ "${1:-}" = --seed ]; then
    export SIM_SEED=${2:?which one? ./x sim --seed N}
  else
    export SIM_SEEDS=${1:-1000} SIM_FROM
    SIM_FROM=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    say "playing $SIM_SEEDS random worlds, from seed $SIM_FROM on"
  fi
  # The same selection as for all Rust tests, so that nothing is built twice.
  cargo test --locked --workspace --test simulation -- --nocapture
}

run_datagrams() { # run_datagrams [MILLIONS]
  need_build_packages; need_rust
  export DATAGRAMS=$((${1:-100} * 1000000)) DATAGRAMS_SEED
  DATAGRAMS_SEED=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
  say "sending $DATAGRAMS mutated datagrams into live calls, from seed $DATAGRAMS_SEED on"
  # The same selection as for all Rust tests, so that nothing is built twice.
  cargo test --locked --workspace --test datagrams -- --nocapture
}

run_lint() {
  need_build_packages; need_rust; need_lint_packages; need_deny; need_hadolint
  say "formatting"; cargo fmt --all --check
  say "clippy"; cargo clippy --locked --workspace --all-targets -- -D warnings
  say "licences, sources, duplicates"; cargo deny --all-features check bans licenses sources
  say "shell"; shellcheck -x x tools/x/*.sh tools/whisper/*.sh .ci/run integration-tests/browser/*.sh
  say "container files"
  hadolint docker/Dockerfile
  /usr/bin/python3 tools/x/compose_check.py docker/compose.yaml docker/site.env.example
}
