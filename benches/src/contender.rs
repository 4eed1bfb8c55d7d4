//! Who is measured, and how each is brought up with its clients.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::data_channel::Begins;
use crate::process::Place;
use crate::report::{IDEAL, OURS, OURS_PLAIN};
use crate::rivals::{Kind, Rival};
use crate::scenario::Scenario;
use crate::subject::{self, Subject, assemble};
use crate::{conclave, mattermost};

/// Who is measured.
#[derive(Clone, Debug)]
pub(crate) enum Contender {
    Ideal,
    Ours,
    /// Ourselves without GSO trains.
    OursPlain,
    Rival(Rival),
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ideal => IDEAL,
            Self::Ours => OURS,
            Self::OursPlain => OURS_PLAIN,
            Self::Rival(rival) => rival.kind.name(),
        }
    }
}

/// Where everything runs.
pub(crate) struct Bench {
    /// Handshakes and signalling run on it; media is driven from the main thread.
    pub(crate) runtime: tokio::runtime::Runtime,
    /// Where media goes.
    pub(crate) address: IpAddr,
    pub(crate) server_cpu: usize,
    pub(crate) client_cpu: usize,
    /// Our daemon.
    pub(crate) rtcd: PathBuf,
    pub(crate) gso: bool,
    /// Its media threads.
    pub(crate) threads: usize,
}

impl Bench {
    /// A server with everybody of a scenario in it.
    pub(crate) fn assemble(&self, contender: &Contender, scenario: Scenario) -> anyhow::Result<Subject> {
        self.assemble_at(contender, scenario, Place { cpu: self.server_cpu, beside: None, realtime: true })
    }

    /// The same for who is driven to its limit.
    pub(crate) fn assemble_for_the_limit(&self, contender: &Contender, scenario: Scenario) -> anyhow::Result<Subject> {
        self.assemble_at(contender, scenario, Place { cpu: self.server_cpu, beside: None, realtime: false })
    }

    /// Our own daemon with so many shards, on both CPUs: with two there is no other place for them. The clients are ahead of it on theirs.
    pub(crate) fn assemble_on_shards(&self, shards: usize, scenario: Scenario) -> anyhow::Result<Subject> {
        let place = Place { cpu: self.server_cpu, beside: Some(self.client_cpu), realtime: false };
        self.runtime.block_on(async {
            let (child, adapter) = conclave::start(&self.rtcd, place, self.address, self.gso, shards).await?;
            assemble(child, adapter, scenario, self.address).await
        })
    }

    /// The same over the interface of Mattermost's Calls plugin, on a server's defaults; `None` of who does not have it.
    pub(crate) fn assemble_plugin_call(&self, contender: &Contender, scenario: Scenario) -> anyhow::Result<Option<Subject>> {
        let place = Place { cpu: self.server_cpu, beside: None, realtime: false };
        self.runtime.block_on(async {
            let (child, adapter) = match contender {
                Contender::Ours => mattermost::start(contender.name(), &self.rtcd, place, self.address, Begins::Client).await?,
                Contender::Rival(rival) if rival.kind == Kind::Mattermost => rival.start(place, self.address).await?,
                Contender::Ideal | Contender::OursPlain | Contender::Rival(_) => return Ok(None),
            };
            Ok(Some(assemble(child, adapter, scenario, self.address).await?))
        })
    }

    fn assemble_at(&self, contender: &Contender, scenario: Scenario, place: Place) -> anyhow::Result<Subject> {
        let address = self.address;
        self.runtime.block_on(async {
            let (child, adapter) = match contender {
                Contender::Ideal => return subject::ideal(scenario, place, address),
                Contender::Ours => conclave::start(&self.rtcd, place, address, self.gso, self.threads).await?,
                Contender::OursPlain => conclave::start(&self.rtcd, place, address, false, self.threads).await?,
                Contender::Rival(rival) => rival.start(place, address).await?,
            };
            assemble(child, adapter, scenario, address).await
        })
    }
}
