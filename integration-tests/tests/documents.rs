//! Every command in a document is run by a test or says why not: a comment above each `sh` block is
//! `<!-- run -->` (run here), `<!-- tested: where -->` (the named test or file exists) or `<!-- not run: reason -->`.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

struct Block {
    at: String,
    mark: String,
    commands: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn blocks() -> Vec<Block> {
    let root = root();
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    files.extend(
        std::fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "md")),
    );
    let fence = Regex::new(r"(?ms)(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```sh\n(?P<commands>.*?)^```").unwrap();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let text = std::fs::read_to_string(file).unwrap();
        for block in fence.captures_iter(&text) {
            let line = text[..block.get(0).unwrap().start()].lines().count() + 1;
            found.push(Block {
                at: format!("{}:{line}", file.file_name().unwrap().to_string_lossy()),
                mark: block.name("mark").map_or(String::new(), |mark| mark.as_str().to_owned()),
                commands: block["commands"].to_owned(),
            });
        }
    }
    found
}

#[test]
fn every_command_block_says_how_it_is_tested() {
    let blocks = blocks();
    assert!(blocks.len() >= 6, "the documents lost their commands");
    for block in &blocks {
        let fine = block.mark == "run"
            || block.mark.starts_with("tested: ")
            || block.mark.strip_prefix("not run: ").is_some_and(|reason| reason.len() > 10);
        assert!(fine, "{} carries no mark above its commands:\n{}", block.at, block.commands);
    }
}

#[test]
fn files_named_by_a_mark_exist() {
    let path = Regex::new(r"[\w./-]+\.(?:rs|mjs|sh|py|yaml)").unwrap();
    for block in blocks().iter().filter(|block| block.mark.starts_with("tested: ")) {
        for file in path.find_iter(&block.mark) {
            assert!(root().join(file.as_str()).exists(), "{} names {}, which is not there", block.at, file.as_str());
        }
    }
}

#[test]
fn commands_marked_run_succeed() {
    let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    for block in blocks().iter().filter(|block| block.mark == "run") {
        let commands = block.commands.replace("target/debug", &target.display().to_string());
        let done = Command::new("bash").args(["-euc", &commands]).current_dir(root()).output().unwrap();
        assert!(done.status.success(), "{}:\n{}\n{}", block.at, block.commands, String::from_utf8_lossy(&done.stderr));
    }
}
