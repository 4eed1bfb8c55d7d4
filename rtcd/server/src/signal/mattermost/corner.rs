//! The corner of a desk that serves this dialect: its adapter, and where its answers go.

use std::sync::Arc;

use super::connections::Connections;
use super::reception::Register;
use super::session::{Adapter, Input, Output};
use crate::metrics::Metrics;
use crate::signal::seam::{AdapterOutput, Moment, RosterCall};

/// See the module.
pub struct Corner {
    adapter: Adapter,
    connections: Arc<Connections>,
    register: Arc<Register>,
    metrics: Arc<Metrics>,
}

impl Corner {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(connections: Arc<Connections>, register: Arc<Register>, metrics: Arc<Metrics>) -> Self {
        Self { adapter: Adapter::default(), connections, register, metrics }
    }

    /// Told something. What is left for the desk to do comes back.
    pub fn handle(&mut self, now: Moment, input: Input) -> Vec<AdapterOutput> {
        if let Input::Join(new) = &input {
            self.metrics.join_started(&new.call);
        }
        let mut outputs = Vec::new();
        self.adapter.handle(now, input, &mut outputs);
        outputs.into_iter().filter_map(|output| self.apply(output)).collect()
    }

    /// Everybody, for queries.
    #[must_use]
    pub fn roster(&self) -> Vec<RosterCall> {
        self.adapter.roster()
    }

    fn apply(&self, output: Output) -> Option<AdapterOutput> {
        match output {
            Output::Core(command) => return Some(AdapterOutput::Core(command)),
            Output::Event { call, event } => return Some(AdapterOutput::Event { call, event }),
            Output::Bind { client, session, connection } => self.connections.bind(&client, &session, connection),
            Output::Say { client, session, message } => {
                self.connections.send(&client, &session, &message);
            }
            Output::Over { client, peer, session } => {
                self.register.remove(&client, &session, &peer);
                self.connections.unbind(&client, &session);
            }
            Output::Measured(client, measure, value) => self.metrics.observe_session(&client, measure, value),
            Output::Failed(client, error) => self.metrics.observe_session_error(&client, error),
        }
        None
    }
}
