//! The running node: what signalling, taps and metrics share. Immutable but for a few flags.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use conclave_proto::v1;
use rtcd_core::ids::CallId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admit::{NodeState, still_refusing};
use crate::config::{Config, Secret};
use crate::directory::Directory;
use crate::drain::{Drain, Terminate};
use crate::limits::{DESK_INPUTS_MAX, EGRESS_DUE_MAX, WEBHOOK_FAREWELL_MAX};
use crate::metrics::{BUCKETS_FORWARDING, Histogram, Metrics};
use crate::recent::Recent;
use crate::shard::{self, CaptureOrder, Command, Listening, Note, ShardGone, ShardHandle, ShardReport, Shards, StartError};
use crate::signal::desk::{Desk, DeskInput};
use crate::signal::grpc::auth::Auth;
use crate::signal::grpc::links::Links;
use crate::signal::grpc::service::release;
use crate::signal::livekit_server::LiveKit;
use crate::signal::livekit_server::agents::{self, Agents};
use crate::signal::livekit_server::egress::Egress;
use crate::signal::livekit_server::egress::standing::{self, Due};
use crate::signal::livekit_server::egress::watch::Watcher;
use crate::signal::livekit_server::webhooks::Webhooks;
use crate::signal::mattermost::Mattermost;
use crate::signal::mattermost::connections::Connections;
use crate::signal::mattermost::corner::Corner;
use crate::signal::mattermost::reception::Reception;
use crate::signal::mattermost::sessions::Sessions;
use crate::signal::media::Media;
use crate::signal::seam::{AdapterInput, AdapterSettings, RoomAnswer, RoomAsk, RoomDefaults, RoomFault, RoomRequest};
use crate::turn_servers::TurnServers;

/// How often broken links and the clients' figures are looked at.
const JANITOR: Duration = Duration::from_secs(1);
/// How often the clients' figures go into histograms.
const SAMPLE: Duration = Duration::from_secs(10);
/// Ended sessions get at most this long to hear it before the process goes.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const FAREWELL_LOOK: Duration = Duration::from_millis(20);

/// See the module.
pub struct Node {
    /// Stable name.
    pub id: String,
    /// Who may speak.
    pub auth: Auth,
    /// Key of tap tokens; without one nobody can open a tap.
    pub tap_secret: Option<Secret>,
    /// What serves Mattermost's clients, if it does.
    pub mattermost: Option<Arc<Mattermost>>,
    /// LiveKit's API on this node itself.
    pub livekit: LiveKit,
    /// What LiveKit's egress needs.
    pub egress: Option<Egress>,
    /// Who is told what happens in its rooms.
    pub webhooks: Option<Arc<Webhooks>>,
    /// Who gives agents their jobs there.
    pub agents: Arc<Agents>,
    /// The setting.
    pub participants_max: usize,
    /// Message servers.
    pub links: Arc<Links>,
    /// Who is where.
    pub directory: Arc<Directory>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// One per shard.
    pub desks: Vec<mpsc::Sender<DeskInput>>,
    /// What is bound, offered and wrong.
    pub listening: Listening,
    shards: Vec<ShardHandle>,
    started: Instant,
    drain: Drain,
    /// Turns true when streams have to end.
    closing: watch::Sender<bool>,
    refusing: AtomicBool,
    forwarding: Recent,
    settings: OnceLock<Vec<(&'static str, String)>>,
}

/// A node with what its owner has to keep.
pub struct Running {
    /// For everybody.
    pub node: Arc<Node>,
    shards: Shards,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Starts media threads and desks. HTTP comes on top, see [`crate::http`].
///
/// # Errors
/// See [`StartError`].
pub fn start(config: &Config) -> anyhow::Result<Running> {
    let certificate = crate::certificate::generate()?;
    let (shards, notes, mut listening) = shard::start(config, &certificate).map_err(|error: StartError| anyhow::anyhow!(error))?;
    listening.warnings.extend(TurnServers::warnings(config));
    let (desks, desk_inputs): (Vec<_>, Vec<_>) = notes.iter().map(|_| mpsc::channel(DESK_INPUTS_MAX)).unzip();
    let reception = config.serves_mattermost().then(|| Arc::new(Reception::new(Connections::new(Arc::default()), desks.clone())));
    let mattermost = match &reception {
        Some(reception) => Some(Mattermost::new(config, reception.connections(), Arc::clone(reception) as Arc<dyn Sessions>)?),
        None => None,
    };
    let node = Arc::new(Node {
        id: config.node_id.clone(),
        auth: Auth::new(config),
        tap_secret: config.tap_secret.clone(),
        mattermost,
        livekit: LiveKit::new(config),
        egress: Egress::new(config)?,
        webhooks: Webhooks::start(config)?,
        agents: Arc::default(),
        participants_max: config.participants_max,
        links: Arc::new(Links::new(config.grace)),
        directory: Arc::new(Directory::default()),
        metrics: Arc::new(Metrics::default()),
        desks,
        listening,
        shards: shards.handles().to_vec(),
        started: Instant::now(),
        drain: Drain::default(),
        closing: watch::Sender::new(false),
        refusing: AtomicBool::new(false),
        forwarding: Recent::default(),
        settings: OnceLock::new(),
    });
    let mut tasks = Vec::new();
    let (due, ordered) = mpsc::channel(EGRESS_DUE_MAX);
    for (number, (inputs, notes)) in desk_inputs.into_iter().zip(notes).enumerate() {
        let corner = reception.as_ref().map(|reception| reception.corner(Arc::clone(&node.metrics)));
        tasks.extend(node.open_desk(number, inputs, notes, corner, due.clone(), config));
    }
    if let Some(reception) = reception {
        reception.open(&node);
    }
    tasks.push(tokio::spawn(keep_house(Arc::clone(&node))));
    tasks.push(tokio::spawn(agents::keep(Arc::clone(&node))));
    if let Some(egress) = node.egress.clone() {
        tasks.push(tokio::spawn(standing::run(Arc::clone(&node), egress.clone(), ordered)));
        tasks.push(tokio::spawn(Watcher::new(Arc::clone(&node), egress).run()));
    }
    Ok(Running { node, shards, tasks })
}

impl Running {
    /// Ends every session, gives them a moment to hear it, and stops the threads.
    pub async fn stop(self) {
        for desk in &self.node.desks {
            let (reply, done) = oneshot::channel();
            let end = AdapterInput::EndAll { reason: v1::EndReason::Drained };
            if desk.send(DeskInput::Adapter(end)).await.is_ok() && desk.send(DeskInput::Roster(reply)).await.is_ok() {
                // Desks work in order: its answer says that everything about the end is on its way.
                let _ = done.await;
            }
        }
        let heard = async {
            let until = Instant::now() + FAREWELL_MAX;
            while self.node.links.has_unsent() && Instant::now() < until {
                tokio::time::sleep(FAREWELL_LOOK).await;
            }
        };
        let told = async {
            if let Some(webhooks) = &self.node.webhooks {
                webhooks.finish(WEBHOOK_FAREWELL_MAX).await;
            }
        };
        tokio::join!(heard, told);
        self.node.closing.send_replace(true);
        self.shards.stop().await;
        for task in self.tasks {
            task.abort();
        }
    }
}

impl Node {
    fn open_desk(
        &self,
        number: usize,
        inputs: mpsc::Receiver<DeskInput>,
        notes: mpsc::Receiver<Note>,
        corner: Option<Corner>,
        due: mpsc::Sender<Due>,
        config: &Config,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let desk = Desk {
            media: Media::new(u8::try_from(number).ok()?, self.shards.clone(), config.participants_per_shard),
            links: Arc::clone(&self.links),
            directory: Arc::clone(&self.directory),
            metrics: Arc::clone(&self.metrics),
            webhooks: self.webhooks.clone(),
            agents: Arc::clone(&self.agents),
            due,
            corner,
        };
        let settings = AdapterSettings {
            node_id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION"),
            grace: config.grace,
            departure: config.departure_timeout,
            region: String::new(),
            rooms: RoomDefaults {
                empty: config.livekit_empty_timeout,
                participants_max: config.livekit_max_participants,
                remote_unmute: config.livekit_remote_unmute,
            },
            webhooks: self.webhooks.is_some(),
            records: self.egress.is_some(),
            turn_servers: TurnServers::of(config),
        };
        Some(tokio::spawn(desk.run(settings, inputs, notes)))
    }

    /// The desk of a call.
    #[must_use]
    pub fn desk_of(&self, call: &CallId) -> usize {
        shard::shard_of_call(call, self.desks.len())
    }

    /// A shard's figures.
    pub async fn shard_report(&self, number: usize) -> Option<Result<ShardReport, ShardGone>> {
        Some(self.shards.get(number)?.report(false).await)
    }

    /// A shard's figures, and why media does or does not flow.
    pub async fn shard_diagnosis(&self, number: usize) -> Option<Result<ShardReport, ShardGone>> {
        Some(self.shards.get(number)?.report(true).await)
    }

    /// Credentials of a fresh probe; `None` while there are too many.
    pub async fn probe(&self) -> Option<v1::ProbeResponse> {
        let (reply, answer) = oneshot::channel();
        // Any shard will do: all listen on the same ports. Not always the first, so that each is met.
        let desk = self.desks.get(self.started.elapsed().subsec_nanos() as usize % self.desks.len().max(1))?;
        desk.send(DeskInput::Probe(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Begins a capture on the shard of a participant; false while another one runs there.
    pub async fn capture(&self, call: &CallId, order: CaptureOrder) -> bool {
        let Some(desk) = self.desks.get(self.desk_of(call)) else { return false };
        let (reply, place) = oneshot::channel();
        if desk.send(DeskInput::ShardOf(order.peer.clone(), reply)).await.is_err() {
            return false;
        }
        let Some(shard) = place.await.ok().and_then(|shard| self.shards.get(usize::from(shard))) else { return false };
        let (reply, begun) = oneshot::channel();
        shard.send(Command::Capture { order, reply }).await.is_ok() && begun.await.unwrap_or(false)
    }

    /// Tells a desk something.
    pub async fn tell(&self, desk: usize, input: AdapterInput) {
        if let Some(desk) = self.desks.get(desk) {
            // Fails only while the node ends.
            let _ = desk.send(DeskInput::Adapter(input)).await;
        }
    }

    /// Asks a desk's adapter something about rooms.
    ///
    /// # Errors
    /// It was not done.
    pub async fn ask_desk(&self, desk: usize, call: &CallId, name: &str, request: RoomRequest) -> Result<RoomAnswer, RoomFault> {
        let (reply, answer) = oneshot::channel();
        let ask = RoomAsk { call: call.clone(), name: name.to_owned(), request, reply };
        self.tell(desk, AdapterInput::Room(Box::new(ask))).await;
        answer.await.unwrap_or(Err(RoomFault::Late("this node is ending")))
    }

    /// Sends a command to the shards of a call. False: the node is ending.
    pub async fn command_call(&self, call: &CallId, command: Command) -> bool {
        match self.desks.get(self.desk_of(call)) {
            Some(desk) => desk.send(DeskInput::Media(command)).await.is_ok(),
            None => false,
        }
    }

    /// Tells the desk of a call something.
    pub async fn tell_call(&self, call: &CallId, input: AdapterInput) {
        self.tell(self.desk_of(call), input).await;
    }

    /// Busy share of a shard.
    #[must_use]
    pub fn load_of(&self, shard: usize) -> f64 {
        self.shards.get(shard).map_or(0.0, ShardHandle::load)
    }

    /// Busy share of the least busy shard: any may take somebody new.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.shards.iter().map(ShardHandle::load).fold(1.0, f64::min)
    }

    /// Whether new calls are refused for load, with two marks so that it does not flap.
    #[must_use]
    pub fn refusing_new_calls(&self, load: f64) -> bool {
        let refusing = still_refusing(self.refusing.load(Ordering::Relaxed), load);
        self.refusing.store(refusing, Ordering::Relaxed);
        refusing
    }

    /// What admission looks at, for somebody who wants to join.
    #[must_use]
    pub fn admission(&self, call: &CallId, identity: &str) -> NodeState {
        let load = self.load();
        NodeState {
            draining: self.drain_left(),
            seat: self.directory.seat(call, identity),
            participants: self.directory.present(),
            participants_max: self.participants_max,
            call_known: self.directory.has_call(call),
            in_call: self.directory.present_in(call),
            load,
            refusing_new_calls: self.refusing_new_calls(load),
        }
    }

    /// Stops admitting; running calls have until the deadline. A later call may move the deadline.
    pub fn drain(&self, within: Duration) {
        tracing::info!(within_s = within.as_secs(), participants = self.directory.present(), "draining: nobody new is taken");
        self.drain.begin(Instant::now(), within);
    }

    /// As [`Node::drain`], for SIGTERM: the second one ends the node at once.
    pub fn drain_by_signal(&self, within: Duration) -> Terminate {
        let then = self.drain.begin_by_signal(Instant::now(), within);
        let left = self.drain.left(Instant::now()).unwrap_or_default();
        match then {
            Terminate::Drain => tracing::info!(
                within_s = left.as_secs(),
                participants = self.directory.present(),
                "SIGTERM: draining, nobody new is taken; a second SIGTERM ends at once"
            ),
            Terminate::EndNow => tracing::warn!(participants = self.directory.present(), "second SIGTERM: ending at once"),
        }
        then
    }

    /// Takes a drain back: joins are taken again.
    pub fn cancel_drain(&self) {
        if self.drain.cancel() {
            tracing::info!("the drain was taken back: joins are taken again");
        }
    }

    /// Time left until a drain's deadline; `None`: no drain.
    #[must_use]
    pub fn drain_left(&self) -> Option<Duration> {
        self.drain.left(Instant::now())
    }

    /// For whoever shows the drain.
    #[must_use]
    pub fn watch_drain(&self) -> crate::drain::DrainWatch {
        self.drain.watch()
    }

    /// Waits until a drain is over: everybody has left or the deadline has passed.
    pub async fn drained(&self) {
        self.drain.over(|| self.is_empty()).await;
        match self.directory.present() {
            0 => tracing::info!("drained: nobody is left"),
            left => tracing::warn!(participants = left, "the drain's deadline has passed: those left are told to come back"),
        }
    }

    /// Nobody is in a call, nobody is about to be, and nobody's signalling is kept.
    fn is_empty(&self) -> bool {
        let foreign = self.mattermost.as_ref().map_or(0, |mattermost| mattermost.sessions.count());
        foreign == 0
            && self.links.sockets.is_empty()
            && self.directory.present() == 0
            && self.links.all().iter().all(|link| link.sessions() == 0)
    }

    /// Waits until streams have to end because the node does.
    pub async fn closing(&self) {
        // Never closed: the sender is ours.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Whether the node works by itself: every media thread turns. Depends on nothing outside.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.shards.iter().all(|shard| !shard.is_dead() && shard.silent_for() < crate::limits::SHARD_STUCK)
    }

    /// A media thread has ended by a panic.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shards.iter().any(ShardHandle::is_dead)
    }

    /// What its status tells of its settings; as described, so without secrets.
    pub fn tell_settings(&self, described: Vec<(&'static str, String)>) {
        // A second time would be another node.
        let _ = self.settings.set(described);
    }

    /// For the ops page.
    pub async fn status(&self) -> v1::NodeStatusResponse {
        let mut counters = std::collections::HashMap::new();
        let mut forwarding = Histogram::new(BUCKETS_FORWARDING);
        for number in 0..self.shards.len() {
            let Some(Ok(report)) = self.shard_report(number).await else { continue };
            forwarding.add(&report.forwarding);
            for (name, value) in &report.core.counters {
                *counters.entry(format!("core_{name}")).or_default() += value;
            }
            for (name, value) in report.shell.named() {
                *counters.entry(format!("shard_{name}")).or_default() += value;
            }
            for (name, value) in report.tcp.named() {
                *counters.entry(format!("tcp_{name}")).or_default() += value;
            }
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let udp = self.listening.udp.iter().map(|address| format!("udp {address}"));
        let tcp = self.listening.tcp.iter().map(|address| format!("tcp {address}"));
        v1::NodeStatusResponse {
            node_id: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: self.drain_left().is_some(),
            drain_left_s: self.drain_left().map_or(0, |left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX)),
            shards: count(self.shards.len()),
            calls: count(self.directory.calls()),
            participants: count(self.directory.present()),
            uptime_s: self.started.elapsed().as_secs(),
            rss_bytes: crate::metrics::resident_bytes(),
            advertised: udp.chain(tcp).collect(),
            counters,
            warnings: self.listening.warnings.clone(),
            forwarding: Some(self.forwarding.latency(&forwarding)),
            settings: self.settings.get().into_iter().flatten().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        }
    }
}

/// Ends links whose grace ran out, and samples what clients report.
async fn keep_house(node: Arc<Node>) {
    let mut turn = tokio::time::interval(JANITOR);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sampled = Instant::now();
    loop {
        turn.tick().await;
        for orphans in node.links.expired(Instant::now()) {
            tracing::warn!(
                link = orphans.link,
                sessions = orphans.sessions.len(),
                "a message server did not come back within the grace: its sessions end"
            );
            release(&node, orphans).await;
        }
        if sampled.elapsed() >= SAMPLE {
            sampled = Instant::now();
            let mut forwarding = Histogram::new(BUCKETS_FORWARDING);
            for number in 0..node.shards.len() {
                if let Some(Ok(report)) = node.shard_report(number).await {
                    node.metrics.sample(&report.core);
                    forwarding.add(&report.forwarding);
                }
            }
            node.forwarding.note(forwarding);
        }
    }
}
