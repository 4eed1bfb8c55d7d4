//! Tables of pages whose rows name the tests that prove them.

#![allow(unreachable_pub, reason = "each test program has it as a module of its own")]

use std::sync::LazyLock;

use regex::Regex;

/// Names a last cell holds: `path::name` for a Rust test, `path::title` for a browser story.
pub fn named_tests(cell: &str) -> Vec<(String, String)> {
    static NAMED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"`([\w/.-]+\.(?:rs|mjs))::([^`]+)`").unwrap());
    NAMED.captures_iter(cell).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// Why the test is none, or `None` when the source has it as one that runs.
pub fn missing(source: &str, name: &str, rust: bool) -> Option<&'static str> {
    if !rust {
        let calls = ["it(", "test("].iter().any(|call| source.contains(&format!("{call}\"{name}\"")));
        return (!calls).then_some("is no story of that file");
    }
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    let Some(found) = lines.iter().position(|line| line.strip_prefix("async ").unwrap_or(line).starts_with(&function)) else {
        return Some("is no function of that file");
    };
    // The attributes and comments that stand directly above it.
    let above = lines[..found].iter().rev().skip_while(|line| line.is_empty());
    let above: Vec<&&str> = above.take_while(|line| line.starts_with('#') || line.starts_with("//")).collect();
    if above.iter().any(|line| line.starts_with("#[ignore")) {
        return Some("is ignored");
    }
    let test = above.iter().any(|line| **line == "#[test]" || line.starts_with("#[tokio::test"));
    (!test).then_some("is no test")
}
