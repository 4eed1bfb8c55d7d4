//! Each planted bug (`./x mutants`) still fits the code: what it replaces stands in its file exactly once, and the tests that should
//! notice exist. Whether they do notice takes half an hour of building, and `./x mutants` tells.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

#[derive(Deserialize)]
struct Planted {
    mutant: Vec<Mutant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    breaks: String,
    file: String,
    find: String,
    put: String,
    tests: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// What is wrong with a planted bug, given the sources that it names.
fn faults(mutant: &Mutant, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    match read(&mutant.file).map(|source| source.matches(&mutant.find).count()) {
        None => faults.push(format!("there is no file {}", mutant.file)),
        Some(1) => {}
        Some(times) => faults.push(format!("what it replaces stands {times} times in {}", mutant.file)),
    }
    if mutant.find == mutant.put || mutant.breaks.is_empty() {
        faults.push("it changes nothing, or does not say what".to_owned());
    }
    if mutant.tests.is_empty() {
        faults.push("no test should notice".to_owned());
    }
    for test in &mutant.tests {
        let found = test.split_once("::").and_then(|(path, name)| {
            // In a `proptest!` block the attribute stands above as well.
            let test =
                Regex::new(&format!(r"#\[(?:tokio::)?test[^\n]*\n(?:\s*#[^\n]*\n)*\s*(?:async )?fn {}\(", regex::escape(name))).unwrap();
            read(path).map(|source| test.is_match(&source))
        });
        if found != Some(true) {
            faults.push(format!("there is no test {test}"));
        }
    }
    faults
}

#[test]
fn every_planted_bug_fits_the_code() {
    let root = root();
    let text = std::fs::read_to_string(root.join("integration-tests/mutants/planted.toml")).unwrap();
    let planted: Planted = toml::from_str(&text).unwrap();
    let names: BTreeSet<&str> = planted.mutant.iter().map(|mutant| mutant.name.as_str()).collect();
    assert!(names.len() == planted.mutant.len() && names.len() >= 25, "{} names of {} bugs", names.len(), planted.mutant.len());
    for mutant in &planted.mutant {
        let faults = faults(mutant, |path| std::fs::read_to_string(root.join(path)).ok());
        assert!(faults.is_empty(), "{} in integration-tests/mutants/planted.toml: {faults:?}", mutant.name);
    }
}

/// The check itself can fail, in each of its ways.
#[test]
fn a_bug_that_fits_no_more_is_found() {
    let read = |path: &str| (path == "a.rs").then(|| "one();\ntwo();\ntwo();\n#[test]\nfn runs() {}\nfn helper() {}\n".to_owned());
    let mutant = |file: &str, find: &str, test: &str| Mutant {
        name: "x".to_owned(),
        breaks: "y".to_owned(),
        file: file.to_owned(),
        find: find.to_owned(),
        put: "nothing();".to_owned(),
        tests: vec![test.to_owned()],
    };
    assert_eq!(faults(&mutant("a.rs", "one();", "a.rs::runs"), read), Vec::<String>::new());
    for (file, find, test) in [
        ("b.rs", "one();", "a.rs::runs"),
        ("a.rs", "two();", "a.rs::runs"),
        ("a.rs", "three();", "a.rs::runs"),
        ("a.rs", "one();", "a.rs::helper"),
        ("a.rs", "one();", "a.rs::gone"),
        ("a.rs", "one();", "b.rs::runs"),
    ] {
        assert_eq!(faults(&mutant(file, find, test), read).len(), 1, "{file} {find} {test}");
    }
}
