//! A Mattermost server with the Calls plugin, as far as calls, recordings and transcripts see it: for tests.
//!
//! People and bots connect to it as to the real one (WebSocket, bot routes); media goes through a real rtcd, to which this is
//! the plugin, or, as with the plugin's version 2, through rooms of a real LiveKit server, for which it gives out tokens. It enforces what the plugin enforces (who may join, the states of jobs, types of fields) and writes down every
//! breach of the contract; it can be told to misbehave as real servers and the proxies before them do.
//!
//! It is strict where the plugin is lenient by accident: what it takes, the plugin takes.

mod jobs;
mod livekit;
mod plugin;
mod proxy;
mod rest;
mod rtcd;
mod socket;
mod world;

use std::sync::Arc;

pub use jobs::{Asked, Job, JobKind, Service, Wants};
pub use livekit::{LiveKit, Ticket};
pub use world::{Caption, Faults, File, Person, Post, Status};

use world::World;

/// A running server; ends with its owner.
pub struct Fake {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    world: Arc<World>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Fake {
    /// Starts it beside the rtcd at `rtcd` (`http://127.0.0.1:PORT`), which must allow self-registration.
    ///
    /// # Errors
    /// When rtcd does not take it, or no port is free.
    pub async fn start(rtcd: &str) -> anyhow::Result<Self> {
        Self::start_under(rtcd, "").await
    }

    /// The same with everything below a path (`/chat`), as some sites have it.
    ///
    /// # Errors
    /// As [`Fake::start`].
    pub async fn start_under(rtcd: &str, path: &str) -> anyhow::Result<Self> {
        let (to_rtcd, queue) = tokio::sync::mpsc::unbounded_channel();
        let world = Arc::new(World::new(to_rtcd, None));
        let link = rtcd::Link::connect(rtcd).await?;
        let mut fake = Self::serve(world, path).await?;
        fake.tasks.push(tokio::spawn(link.run(Arc::clone(&fake.world), queue)));
        Ok(fake)
    }

    /// With version 2 of the plugin, whose calls are rooms of that LiveKit server.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start_v2(livekit: LiveKit) -> anyhow::Result<Self> {
        // Nobody listens at the other end.
        let (to_rtcd, _) = tokio::sync::mpsc::unbounded_channel();
        Self::serve(Arc::new(World::new(to_rtcd, Some(livekit))), "").await
    }

    async fn serve(world: Arc<World>, path: &str) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}{path}", listener.local_addr()?);
        let routes = rest::routes(Arc::clone(&world)).merge(socket::routes(Arc::clone(&world))).merge(livekit::routes(Arc::clone(&world)));
        let routes = routes.layer(axum::middleware::from_fn_with_state(Arc::clone(&world), proxy::pass));
        let routes = if path.is_empty() { routes } else { axum::Router::new().nest(path, routes) };
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        let clock = tokio::spawn(Arc::clone(&world).keep_time());
        Ok(Self { url, world, tasks: vec![server, clock] })
    }

    /// Somebody who may join calls.
    #[must_use]
    pub fn person(&self, name: &str) -> Person {
        self.world.add_person(name)
    }

    /// With version 2: somebody comes into a channel's call, which is begun where there is none. What their page would be given.
    ///
    /// # Errors
    /// With version 1.
    pub fn admit(&self, person: &Person, channel: &str) -> anyhow::Result<Ticket> {
        self.world.admit(person, channel)
    }

    /// With version 2: a session leaves its call.
    pub fn dismiss(&self, session: &str) {
        self.world.dismiss(session);
    }

    /// How often a LiveKit token was asked for.
    #[must_use]
    pub fn tokens_asked(&self) -> u64 {
        self.world.lock().tokens_asked
    }

    /// A channel of that name; its id is what the plugin calls the call's.
    #[must_use]
    pub fn channel(&self, name: &str) -> String {
        self.world.add_channel(name)
    }

    /// The host asks for a recording: rows of jobs, before any service is asked.
    ///
    /// # Errors
    /// When no call is going on there.
    pub fn begin_recording(&self, channel: &str, wants: Wants) -> anyhow::Result<Asked> {
        self.world.begin_recording(channel, wants)
    }

    /// Asks the job service for what [`Fake::begin_recording`] noted, as the plugin does.
    ///
    /// # Errors
    /// With the service's own text when it refuses.
    pub async fn submit(&self, service: &Service, channel: &str, asked: &Asked) -> anyhow::Result<()> {
        // What each version of the plugin has in its manifest.
        let version = if self.world.livekit.is_some() { "v1.0.0-dev1" } else { "v0.7.2" };
        jobs::submit(&self.url, &format!("mattermost/calls-transcriber:{version}"), service, channel, asked).await
    }

    /// Gives somebody a portrait. Who has none is one grey pixel.
    pub fn portray(&self, person: &Person, picture: Vec<u8>) {
        self.world.lock().portraits.insert(person.id.clone(), picture);
    }

    /// Somebody else becomes host of the call; until then it is who began it.
    pub fn hand_over(&self, channel: &str, person: &Person) {
        self.world.lock().hand_over(channel, &person.id);
    }

    /// The host stops it.
    pub fn stop_recording(&self, channel: &str) {
        self.world.stop_recording(channel);
    }

    /// The host ends the call for everybody.
    pub fn end_call(&self, channel: &str) {
        self.world.end_call(channel);
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world.lock().faults);
    }

    /// Cuts every bot's WebSocket now.
    pub fn cut_bots(&self) {
        self.world.cut_bots();
    }

    /// A job's row.
    #[must_use]
    pub fn job(&self, id: &str) -> Option<Job> {
        self.world.lock().jobs.iter().find(|job| job.id == id).cloned()
    }

    /// Posts so far.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.world.lock().posts.clone()
    }

    /// A finished file.
    #[must_use]
    pub fn file(&self, id: &str) -> Option<File> {
        self.world.lock().files.get(id).cloned()
    }

    /// Captions so far.
    #[must_use]
    pub fn captions(&self) -> Vec<Caption> {
        self.world.lock().captions.clone()
    }

    /// Metrics of captions so far: session and name.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, String)> {
        self.world.lock().metrics.clone()
    }

    /// Statuses that jobs reported, accepted or not.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.world.lock().statuses.clone()
    }

    /// Sessions in the call of that channel now: session and user, bots too.
    #[must_use]
    pub fn sessions(&self, channel: &str) -> Vec<(String, String)> {
        self.world.sessions(channel)
    }

    /// What broke the contract, in order.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.world.lock().violations.clone()
    }

    /// Uploads that were announced.
    #[must_use]
    pub fn uploads_made(&self) -> u64 {
        self.world.lock().uploads_made
    }

    /// How long the bodies of upload requests were that reached the proxy before the server, in order, refused ones too.
    #[must_use]
    pub fn upload_lengths(&self) -> Vec<usize> {
        self.world.lock().upload_lengths.clone()
    }

    /// Bytes that reached the server in upload requests, those of requests that broke off too.
    #[must_use]
    pub fn upload_bytes(&self) -> u64 {
        self.world.lock().upload_bytes
    }
}
