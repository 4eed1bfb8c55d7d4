//! The other servers: which of them are here. Nothing of theirs is part of this repository.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::data_channel::Begins;
use crate::process::Place;
use crate::subject::{Adapter, Process};
use crate::{janus, livekit, mattermost};

/// Where they are.
#[derive(Args)]
pub(crate) struct Programs {
    /// Janus (Debian: `apt-get install --no-install-recommends janus`); looked up on PATH.
    #[arg(long)]
    janus: Option<PathBuf>,
    /// LiveKit's server; looked up on PATH as `livekit-server`.
    #[arg(long)]
    livekit: Option<PathBuf>,
    /// Mattermost's rtcd; looked up on PATH as `mattermost-rtcd`, since ours has its name. It does not say its version: a file named
    /// `mattermost-rtcd-v1.2.6` does.
    #[arg(long)]
    mattermost_rtcd: Option<PathBuf>,
    /// Measure only Conclave and the ideal forwarder.
    #[arg(long)]
    no_rivals: bool,
}

/// A server somebody else made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Janus,
    LiveKit,
    Mattermost,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Janus => "janus",
            Self::LiveKit => "livekit",
            Self::Mattermost => "mattermost-rtcd",
        }
    }
}

/// One that is here.
#[derive(Clone, Debug)]
pub(crate) struct Rival {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

impl Rival {
    pub(crate) async fn start(&self, place: Place, address: IpAddr) -> anyhow::Result<(Process, Box<dyn Adapter>)> {
        match self.kind {
            Kind::Janus => janus::start(&self.program, place, address).await,
            Kind::LiveKit => livekit::start(&self.program, place, address).await,
            Kind::Mattermost => mattermost::start(self.kind.name(), &self.program, place, address, Begins::Server).await,
        }
    }

    /// What it says about itself.
    pub(crate) fn version(&self) -> String {
        // It has no way to ask and would start instead: its file is named after its version, or nobody knows.
        if self.kind == Kind::Mattermost {
            let name = self.program.file_name().unwrap_or_default().to_string_lossy().replace('-', " ");
            return version_in(&name).unwrap_or("of unknown version").to_owned();
        }
        let output = std::process::Command::new(&self.program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()).unwrap_or_default();
        version_in(&text).unwrap_or("of unknown version").to_owned()
    }
}

/// The first word that looks like one.
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|edge: char| !edge.is_ascii_alphanumeric()))
        .find(|word| word.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
}

impl Programs {
    /// Those that are here, and a line for each that is not.
    pub(crate) fn found(&self) -> anyhow::Result<(Vec<Rival>, Vec<String>)> {
        let mut rivals = Vec::new();
        let mut missing = Vec::new();
        if self.no_rivals {
            return Ok((rivals, missing));
        }
        for (kind, given, name) in [
            (Kind::Janus, &self.janus, "janus"),
            (Kind::LiveKit, &self.livekit, "livekit-server"),
            (Kind::Mattermost, &self.mattermost_rtcd, "mattermost-rtcd"),
        ] {
            if let Some(program) = given {
                anyhow::ensure!(program.is_file(), "--{}: there is no program {}", kind.name(), program.display());
                rivals.push(Rival { kind, program: program.clone() });
            } else if let Some(program) = on_path(name) {
                rivals.push(Rival { kind, program });
            } else {
                missing.push(format!("left out: {} (no `{name}` on PATH; give one with --{} PROGRAM)", kind.name(), kind.name()));
            }
        }
        Ok((rivals, missing))
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder: PathBuf| folder.join(name)).find(|file: &PathBuf| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(version_in("livekit-server version 1.13.11\n"), Some("1.13.11"));
        assert_eq!(version_in("Janus version: 1102 (1.1.2)"), Some("1.1.2"));
        let named = |name: &str| Rival { kind: Kind::Mattermost, program: name.into() }.version();
        assert_eq!(named("/opt/mattermost-rtcd-v1.2.6"), "v1.2.6");
        assert_eq!(named("/opt/1.0/mattermost-rtcd"), "of unknown version");
        assert_eq!(version_in("flag provided but not defined: -version"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_said_so() {
        let programs = Programs { janus: Some("/nowhere/janus".into()), livekit: None, mattermost_rtcd: None, no_rivals: false };
        assert!(programs.found().is_err_and(|error| error.to_string().contains("--janus: there is no program /nowhere/janus")));
    }
}
