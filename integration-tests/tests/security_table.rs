//! `docs/security-tests.md` and the tests it names stay in step: every attack class has a row, and every row a test that exists,
//! or a reason why there is none.

#![cfg(test)]

mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use tables::{missing, named_tests};

/// Attack classes of the media path, and the requirements of OWASP ASVS 5.0, chapter V17.
const REQUIRED: &[(&str, u32)] = &[("A", 8), ("T", 4), ("D", 5), ("R", 12), ("S", 5), ("G", 5)];
const ASVS: [&str; 12] =
    ["17.1.1", "17.1.2", "17.2.1", "17.2.2", "17.2.3", "17.2.4", "17.2.5", "17.2.6", "17.2.7", "17.2.8", "17.3.1", "17.3.2"];

struct Row {
    id: String,
    cells: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The rows of the tables, by id: all lines whose first cell is one.
fn rows(page: &str) -> Vec<Row> {
    static ID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(?:[A-Z]-\d\d|17\.\d\.\d\d?)$").unwrap());
    page.lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
        .filter(|cells| ID.is_match(&cells[0]))
        .map(|mut cells| Row { id: cells.remove(0), cells })
        .collect()
}

/// What is wrong with a page, given the sources that it names.
fn faults(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut by_id: BTreeMap<String, Row> = BTreeMap::new();
    for row in rows(page) {
        if let Some(double) = by_id.insert(row.id.clone(), row) {
            faults.push(format!("{} has two rows", double.id));
        }
    }
    let wanted = REQUIRED
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}-{n:02}")))
        .chain(ASVS.iter().map(|id| (*id).to_owned()));
    for id in wanted {
        if !by_id.contains_key(&id) {
            faults.push(format!("{id} has no row"));
        }
    }
    for row in by_id.values() {
        let last = row.cells.last().map_or("", String::as_str);
        let tests = named_tests(last);
        let rows_named: Vec<&str> = last.split(&[' ', ','][..]).filter(|word| by_id.contains_key(*word)).collect();
        let reason = last.strip_prefix("not applicable: ").is_some_and(|reason| reason.len() > 20);
        if tests.is_empty() && rows_named.is_empty() && !reason {
            faults.push(format!("{} names no test and gives no reason", row.id));
        }
        if !tests.is_empty() && reason {
            faults.push(format!("{} names a test and says that it is not applicable", row.id));
        }
        for (path, name) in tests {
            match read(&path) {
                None => faults.push(format!("{}: there is no file {path}", row.id)),
                Some(source) => {
                    if let Some(why) = missing(&source, &name, path.ends_with(".rs")) {
                        faults.push(format!("{}: {name} in {path} {why}", row.id));
                    }
                }
            }
        }
    }
    faults
}

#[test]
fn every_attack_class_names_tests_that_exist() {
    let root = root();
    let page = std::fs::read_to_string(root.join("docs/security-tests.md")).unwrap();
    let faults = faults(&page, |path| std::fs::read_to_string(root.join(path)).ok());
    assert!(faults.is_empty(), "docs/security-tests.md:\n{}", faults.join("\n"));
}

/// The check itself can fail, in each of its ways.
#[test]
fn a_row_without_a_test_that_runs_is_found() {
    let source = "#[test]\nfn runs() {}\nfn helper() {}\n#[test]\n#[ignore = \"slow\"]\nfn rests() {}\n#[tokio::test(flavor = \"x\")]\nasync fn waits() {}\n";
    let page = |cell: &str| {
        let all = REQUIRED.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}-{n:02}")));
        all.chain(ASVS.iter().map(|id| (*id).to_owned()))
            .map(|id| format!("| {id} | class | {} |\n", if id == "R-03" { cell } else { "`a.rs::runs`" }))
            .collect::<String>()
    };
    let of = |cell: &str| faults(&page(cell), |path| (path == "a.rs").then(|| source.to_owned()));
    for good in ["`a.rs::runs`", "`a.rs::waits`, `a.rs::runs`", "not applicable: there is no relay in this product", "R-02, A-01"] {
        assert_eq!(of(good), Vec::<String>::new(), "{good}");
    }
    for bad in ["", "not applicable: no", "`a.rs::gone`", "`a.rs::helper`", "`a.rs::rests`", "`b.rs::runs`", "R-99"] {
        assert_eq!(of(bad).len(), 1, "{bad}: {:?}", of(bad));
    }
    let without = page("`a.rs::runs`").replace("| R-03 |", "| R-13 |");
    assert_eq!(faults(&without, |_| Some(source.to_owned())), ["R-03 has no row"]);
}
