//! `conclave support`: one file for whoever helps, without what was said, secrets, and, unless asked, names or addresses.

mod gather;
mod pack;
mod scrub;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use time::OffsetDateTime;

use crate::node::NodeAddress;
use crate::site::Site;
use gather::Gather;

/// What is asked, and where the file goes.
#[derive(Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    site: Site,
    #[command(flatten)]
    node: NodeAddress,
    /// Address of the offloader
    #[arg(long, env = "CONCLAVE_OFFLOADER", default_value = "http://127.0.0.1:4545")]
    offloader: String,
    /// Its bearer token; default: the one `conclave up` keeps in the data folder
    #[arg(long, env = "OFFLOADER_TOKEN", hide_env_values = true)]
    offloader_token: Option<String>,
    /// Leave addresses, names and identities of people in. Secrets stay out all the same
    #[arg(long)]
    identifying: bool,
    /// File to write; default: conclave-support-TIME.tar.gz here
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let now = OffsetDateTime::now_utc();
    let stem = format!(
        "conclave-support-{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    );
    let path = settings.output.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}.tar.gz")));
    let file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot write {}; choose another file with --output", path.display()))?;
    eprintln!("asking the parts, the checks of `conclave doctor` included …");
    let mut gather = Gather::new(settings);
    gather.all().await;
    let first = [("contents.json", contents(settings, &gather, now)?), ("README.txt", README.to_owned())];
    gather.pack.write(&file, &stem, &first, u64::try_from(now.unix_timestamp()).unwrap_or_default())?;
    file.sync_all()?;
    println!("{}: {} files, {} KiB", path.display(), gather.pack.len() + first.len(), file.metadata()?.len().div_ceil(1024));
    for missing in &gather.missing {
        println!("not in it: {}: {}", missing.what, missing.why);
    }
    let addresses = if settings.identifying {
        "addresses and people's names are in it".to_owned()
    } else {
        format!("no names; {} addresses are numbers (--identifying leaves both in)", gather.scrub.addresses_hidden())
    };
    println!("no content, no secrets ({} were taken out); {addresses}.", gather.scrub.secrets_hidden());
    println!("look through it before you give it away: tar -xzf {}", path.display());
    Ok(())
}

fn contents(settings: &Settings, gather: &Gather<'_>, now: OffsetDateTime) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&serde_json::json!({
        "format": 1,
        "made_at_s": now.unix_timestamp(),
        "conclave": env!("CARGO_PKG_VERSION"),
        "identifying": settings.identifying,
        "secrets_taken_out": gather.scrub.secrets_hidden(),
        "addresses_numbered": gather.scrub.addresses_hidden(),
        "entries": gather.pack.contents,
        "missing": gather.missing,
    }))?)
}

const README: &str = "\
Support bundle of Conclave, made by `conclave support`.

contents.json   when, by which version, what is in it, what is not and why
doctor.txt      what `conclave doctor` found on this machine
node.txt        the media node: version, load, warnings, counters
calls.txt       running calls: for each participant and direction the verdict on why media flows or not, and what it rests on
departed.json   the same of those who have left (role ops)
captions.json   delay of live captions (role ops)
jobs.txt        recordings, captions, renders, transcripts
settings/       effective settings of each part; secrets as set or unset
metrics/        Prometheus text
health/, readiness/
machine.txt     system, memory, disk, socket buffers, datagrams that the kernel dropped
logs/           the end of each part's log, INFO and above, at most 4 MiB each

[secret] stands where a secret was. [address 7] and [person 7] are the same wherever they stand.
";
