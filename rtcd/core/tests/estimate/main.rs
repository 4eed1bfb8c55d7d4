//! How good the estimate is: a sender that follows it runs over traced ways, and what comes of it is compared with `scores.txt`.
//! Any change in quality so shows in review.

#![cfg(test)]
#![allow(unreachable_pub, reason = "tests may say what they mean")]

mod oracle;
mod ours;
mod score;
mod source;
mod traces;
mod way;

use std::fmt::Write as _;
use std::path::Path;

use oracle::Oracle;
use ours::Ours;
use score::Score;
use source::Source;
use way::{Ends, run};

/// Set, the file is written anew: say in the commit what became better, and what worse.
const RENEW: &str = "CONCLAVE_RENEW_SCORES";
const HEAD: &str = "\
# What the bandwidth estimate is worth on traced ways (rtcd/core/tests/estimate); compared in every test run.
# To renew: CONCLAVE_RENEW_SCORES=1 cargo test -p rtcd-core --test estimate
#
# used %     media that arrived, of what the way could carry or the source had
# queued ms  95 of 100 datagrams waited less
# lost %     datagrams that did not come
# settled s  from the worst jump of the way until 80 % is used with a queue below 120 ms
# swing %    change of the rate from second to second
";

type Make = fn(Source) -> Box<dyn Ends>;
const SENDERS: [(&str, Make); 2] = [("ours", |source| Box::new(Ours::new(source))), ("str0m 0.25", |source| Box::new(Oracle::new(source)))];

fn table(name: &str, make: Make) -> String {
    let mut table = format!("\n{name:<32} used % queued   lost %  settled  swing\n");
    for (kind, source) in [("any rate", Source::Any), ("three layers", Source::layers())] {
        for trace in traces::all() {
            let seen = run(&trace, make(source).as_mut());
            writeln!(table, "{:<32} {}", format!("{}, {kind}", trace.name), Score::of(&trace, source.wanted_bps(), &seen)).unwrap();
        }
    }
    table
}

#[test]
fn the_scores_are_the_agreed_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/estimate/scores.txt");
    let tables: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = SENDERS.iter().map(|(name, make)| scope.spawn(|| table(name, *make))).collect();
        running.into_iter().map(|table| table.join().unwrap()).collect()
    });
    let text = format!("{HEAD}{}", tables.concat());
    println!("{text}");
    if std::env::var_os(RENEW).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let agreed = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == agreed,
        "the scores are other ones than in {}. If that is meant, renew them with {RENEW}=1 and say in the commit why",
        path.display()
    );
}
