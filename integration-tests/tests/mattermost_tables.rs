//! `docs/compat/rtcd.md` and `docs/compat/calls-offloader.md` stay in step with the tests they name: each of a contract's rows is there
//! once, with a state, and what is said to hold names tests that exist and run.

#![cfg(test)]

mod tables;

use std::path::Path;

use tables::{missing, named_tests};

/// A page, how many rows its contract has, and what may be said of one.
struct Page {
    path: &'static str,
    rows: usize,
    states: &'static [&'static str],
}

const PAGES: [Page; 2] = [
    Page { path: "docs/compat/rtcd.md", rows: 44, states: &["match", "fix", "better", "refused", "open"] },
    Page { path: "docs/compat/calls-offloader.md", rows: 70, states: &["match", "better", "refused"] },
];

/// Cells of the table's rows: those that begin with a number.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    text.lines().filter_map(cells).filter(|cells| cells[0].parse::<usize>().is_ok()).collect()
}

fn faults(page: &Page, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = rows(text);
    let numbers: Vec<usize> = rows.iter().filter_map(|cells| cells[0].parse().ok()).collect();
    if numbers != (1..=page.rows).collect::<Vec<_>>() {
        faults.push(format!("the rows are not 1 to {}, each once and in order: {numbers:?}", page.rows));
    }
    for cells in &rows {
        let [number, feature, state, what, tests] = &cells[..] else {
            faults.push(format!("row {} has not five cells", cells[0]));
            continue;
        };
        let states: Vec<&str> = state.split(", ").collect();
        if feature.is_empty() || what.len() < 10 || states.iter().any(|state| !page.states.contains(state)) {
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
                Some(source) => {
                    faults
                        .extend(missing(&source, &name, path.ends_with(".rs")).map(|why| format!("row {number}: {name} in {path} {why}")));
                }
            }
        }
    }
    faults
}

#[test]
fn every_row_of_the_contracts_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for page in &PAGES {
        let text = std::fs::read_to_string(root.join(page.path)).expect("the page");
        let faults = faults(page, &text, |path| std::fs::read_to_string(root.join(path)).ok());
        assert!(faults.is_empty(), "{}:\n{}", page.path, faults.join("\n"));
    }
}

/// The check itself can fail, in each of its ways.
#[test]
fn a_row_without_a_test_that_runs_is_found() {
    let source =
        "#[test]\nfn runs() {}\nfn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn rests() {}\n#[tokio::test(x)]\nasync fn waits() {}\n";
    let text = |third: &str| {
        let row =
            |n: usize| if n == 3 { third.to_owned() } else { format!("| {n} | feature | match | as it was there | `a.rs::runs` |\n") };
        (1..=PAGES[0].rows).map(row).collect::<String>()
    };
    let of = |third: &str| {
        faults(&PAGES[0], &text(third), |path| match path {
            "a.rs" => Some(source.to_owned()),
            "a.mjs" => Some("it(\"is seen\", async () => {".to_owned()),
            _ => None,
        })
    };
    for good in [
        "| 3 | x | match | as it was there | `a.rs::runs`, `a.rs::waits` |\n",
        "| 3 | x | fix, better | as it was there | `a.rs::runs` |\n",
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
