"""Plants the bugs of integration-tests/mutants/planted.toml one by one into a copy of the tree and sees whether their tests notice.

Usage: mutants.py [NAME …]      (default: all; needs cargo and cargo-nextest in PATH)
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRATCH = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "mutants"
TREE = SCRATCH / "tree"
# What cargo-nextest answers.
PASSED, NOTHING_RAN, FAILED = 0, 4, 100


def copy_tree():
    """The tracked and new files; those that are the same stay, so that little is built again."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    names = {name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()}
    for old in [path for path in TREE.rglob("*") if path.is_file() and str(path.relative_to(TREE)) not in names]:
        old.unlink()
    for name in names:
        source, copy = ROOT / name, TREE / name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def run(tests, log):
    """Builds and runs tests named as `path::name`; answers what nextest says."""
    packages, targets, filters = set(), set(), []
    for path, name in (test.split("::") for test in tests):
        folder, rest = re.fullmatch(r"(.+?)/((?:src|tests)/.+)", path).groups()
        package = tomllib.loads((ROOT / folder / "Cargo.toml").read_text())["package"]["name"]
        packages.add(package)
        if rest.startswith("src/"):
            kind = "kind(lib)"
            targets.add("--lib")
        else:
            binary = rest.split("/")[1].removesuffix(".rs")
            kind = f"binary({binary})"
            targets.add(f"--test={binary}")
        filters.append(f"(package({package}) & {kind} & test(/(^|::){name}$/))")
    # Little optimised: built in half the time.
    command = ["cargo", "nextest", "run", "--locked", "--retries=0", "--config=profile.dev.package.rtcd-core.opt-level=1"]
    command += [f"--package={package}" for package in sorted(packages)] + sorted(targets) + ["-E", " | ".join(filters)]
    environment = os.environ | {"CARGO_TARGET_DIR": str(SCRATCH / "build"), "CARGO_INCREMENTAL": "1"}
    with log.open("w") as out:
        return subprocess.run(command, cwd=TREE, env=environment, stdout=out, stderr=subprocess.STDOUT).returncode


def main(asked):
    mutants = tomllib.loads((ROOT / "integration-tests/mutants/planted.toml").read_text())["mutant"]
    if unknown := set(asked) - {mutant["name"] for mutant in mutants}:
        sys.exit(f"there is no mutant {', '.join(sorted(unknown))}; they stand in integration-tests/mutants/planted.toml")
    mutants = [mutant for mutant in mutants if not asked or mutant["name"] in asked]
    SCRATCH.mkdir(parents=True, exist_ok=True)
    copy_tree()
    print(f"the tests of {len(mutants)} bugs on the tree as it is …", flush=True)
    # Each package by itself: `--lib` and `--test` select in all packages at once.
    by_package = {}
    for test in sorted({test for mutant in mutants for test in mutant["tests"]}):
        by_package.setdefault(re.match(r"(.+?)/(?:src|tests)/", test)[1], []).append(test)
    for tests in by_package.values():
        if (answer := run(tests, SCRATCH / "without.log")) != PASSED:
            sys.exit(f"they do not pass without any bug ({answer}): see {SCRATCH}/without.log")
    bad = []
    for number, mutant in enumerate(mutants, 1):
        file, began = TREE / mutant["file"], time.monotonic()
        text = file.read_text()
        assert text.count(mutant["find"]) == 1, f"{mutant['name']}: `find` stands {text.count(mutant['find'])} times in {mutant['file']}"
        log = SCRATCH / f"{mutant['name']}.log"
        try:
            file.write_text(text.replace(mutant["find"], mutant["put"]))
            answer = run(mutant["tests"], log)
        finally:
            file.write_text(text)
        verdict = {FAILED: "caught", PASSED: "MISSED", NOTHING_RAN: "HAS NO TEST"}.get(answer, "DOES NOT BUILD")
        if verdict != "caught":
            bad.append(mutant["name"])
        print(f"{number:>2} {verdict:<8} {mutant['name']}: {mutant['breaks']} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(mutants) - len(bad)} of {len(mutants)} planted bugs are caught")
    if bad:
        sys.exit(f"not caught: {', '.join(bad)}; what their tests said stands in {SCRATCH}")


main(sys.argv[1:])
