//! `docs/compat/calls-offloader.md` and the tests it names stay in step: each of the contract's rows is there once, with a state, and
//! what is said to hold names tests that exist and run.

use std::path::{Path, PathBuf};

const ROWS: usize = 70;
const STATES: [&str; 5] = ["match", "better", "partly", "refused", "open"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Cells of the table's rows: those that begin with a number.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    page.lines().filter_map(cells).filter(|cells| cells[0].parse::<usize>().is_ok()).collect()
}

/// `path::name` between backquotes, of Rust and of the browser stories.
fn named_tests(cell: &str) -> Vec<(String, String)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    let of = |text: &str, end: &str| text.split_once(&format!("{end}::")).map(|(path, name)| (format!("{path}{end}"), name.to_owned()));
    quoted.filter_map(|text| of(text, ".rs").or_else(|| of(text, ".mjs"))).collect()
}

fn is_a_test_that_runs(path: &str, source: &str, name: &str) -> bool {
    if path.ends_with(".mjs") {
        return source.contains(&format!("it(\"{name}\""));
    }
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| line.strip_prefix("async ").unwrap_or(line).starts_with(&function)) else { return false };
    let above: Vec<&&str> = lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//")).collect();
    let test = above.iter().any(|line| **line == "#[test]" || line.starts_with("#[tokio::test"));
    test && !above.iter().any(|line| line.starts_with("#[ignore"))
}

fn faults(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = rows(page);
    let numbers: Vec<usize> = rows.iter().filter_map(|cells| cells[0].parse().ok()).collect();
    if numbers != (1..=ROWS).collect::<Vec<_>>() {
        faults.push(format!("the rows are not 1 to {ROWS}, each once and in order: {numbers:?}"));
    }
    for cells in &rows {
        let [number, feature, state, what, tests] = &cells[..] else {
            faults.push(format!("row {} has not five cells", cells[0]));
            continue;
        };
        let states: Vec<&str> = state.split(", ").collect();
        if feature.is_empty() || what.len() < 10 || states.iter().any(|state| !STATES.contains(state)) {
            faults.push(format!("row {number}: a cell is empty, or {state:?} is no state"));
        }
        let tests = named_tests(tests);
        // What is open or refused has its reason in the fourth cell; everything else has a proof.
        if tests.is_empty() && states.iter().any(|state| !matches!(*state, "open" | "refused")) {
            faults.push(format!("row {number} names no test"));
        }
        for (path, name) in tests {
            match read(&path) {
                None => faults.push(format!("row {number}: there is no file {path}")),
                Some(source) if !is_a_test_that_runs(&path, &source, &name) => {
                    faults.push(format!("row {number}: {name} is no test of {path} that runs"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

#[test]
fn every_row_of_the_contract_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/compat/calls-offloader.md")).unwrap();
    let faults = faults(&page, |path| std::fs::read_to_string(root().join(path)).ok());
    assert!(faults.is_empty(), "docs/compat/calls-offloader.md:\n{}", faults.join("\n"));
}

/// The check itself can fail, in each of its ways.
#[test]
fn a_row_without_a_test_that_runs_is_found() {
    let source =
        "#[test]\nfn runs() {}\nfn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn rests() {}\n#[tokio::test(x)]\nasync fn waits() {}\n";
    let page = |third: &str| {
        let row =
            |n: usize| if n == 3 { third.to_owned() } else { format!("| {n} | feature | match | as it was there | `a.rs::runs` |\n") };
        (1..=ROWS).map(row).collect::<String>()
    };
    let of = |third: &str| {
        faults(&page(third), |path| match path {
            "a.rs" => Some(source.to_owned()),
            "a.mjs" => Some("it(\"is seen\", async () => {".to_owned()),
            _ => None,
        })
    };
    for good in [
        "| 3 | x | match | as it was there | `a.rs::runs`, `a.rs::waits` |\n",
        "| 3 | x | better, partly | as it was there | `a.rs::runs` |\n",
        "| 3 | x | match | as it was there | `a.mjs::is seen` |\n",
        "| 3 | x | open | a reason that is one | – |\n",
    ] {
        assert_eq!(of(good), Vec::<String>::new(), "{good}");
    }
    for bad in [
        "",
        "| 3 | x | match | as it was there | – |\n",
        "| 3 | x | match, open | as it was there | – |\n",
        "| 3 | x | done | as it was there | `a.rs::runs` |\n",
        "| 3 | x | open | | – |\n",
        "| 3 | x | match | as it was there | `a.rs::gone` |\n",
        "| 3 | x | match | as it was there | `a.rs::helper` |\n",
        "| 3 | x | match | as it was there | `a.rs::rests` |\n",
        "| 3 | x | match | as it was there | `b.rs::runs` |\n",
        "| 3 | x | match | as it was there | `a.mjs::is not` |\n",
        "| 3 | x | match | `a.rs::runs` |\n",
    ] {
        assert_eq!(of(bad).len(), 1, "{bad}: {:?}", of(bad));
    }
}
