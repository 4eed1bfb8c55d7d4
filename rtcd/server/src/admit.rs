//! May this participant come in? Decided before anything is allocated, with a reason and a text that says what to do.

use std::time::Duration;

use conclave_proto::v1::{ErrorReason, Join};
use rtcd_core::ids::{CallId, NAME_LEN_MAX};

use crate::directory::Seat;
use crate::limits::{DISPLAY_NAME_LEN_MAX, LOAD_AGAIN, LOAD_NO_JOINS, LOAD_NO_NEW_CALLS, METADATA_LEN_MAX};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: ErrorReason,
    /// For people: what to do next.
    pub text: String,
}

impl Refusal {
    fn new(reason: ErrorReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// What admission looks at.
#[derive(Clone, Copy, Debug)]
pub struct NodeState {
    /// The node empties itself and ends by then at the latest.
    pub draining: Option<Duration>,
    /// How the joining identity stands to the call.
    pub seat: Seat,
    /// Participants in all calls.
    pub participants: usize,
    /// The setting.
    pub participants_max: usize,
    /// The call exists here.
    pub call_known: bool,
    /// Participants in it.
    pub in_call: usize,
    /// Busy share of the call's shard.
    pub load: f64,
    /// New calls were refused for load before, and the load has not fallen enough since.
    pub refusing_new_calls: bool,
}

/// Checks the message itself and gives the core's call id.
///
/// # Errors
/// The refusal to send back.
pub fn check_join(tenant: &str, join: &Join) -> Result<CallId, Refusal> {
    let bad = |what: &str| Refusal::new(ErrorReason::BadRequest, format!("{what}; this is a fault of the message server"));
    let attributes: usize = join.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if join.session_id.is_empty() || join.session_id.len() > NAME_LEN_MAX {
        return Err(bad("session_id must have 1 to 128 bytes"));
    }
    if join.identity.is_empty() || join.identity.len() > NAME_LEN_MAX {
        return Err(bad("identity must have 1 to 128 bytes"));
    }
    if join.display_name.len() > DISPLAY_NAME_LEN_MAX {
        return Err(bad("display_name must have at most 256 bytes"));
    }
    if join.metadata.len() + attributes > METADATA_LEN_MAX {
        return Err(bad("metadata and attributes together must have at most 64 KiB"));
    }
    core_call_id(tenant, &join.call_id).ok_or_else(|| bad("call_id must have 1 to 95 bytes without a slash"))
}

/// The core's id of a tenant's call. The slash keeps tenants apart, so a call id may not have one.
#[must_use]
pub fn core_call_id(tenant: &str, call_id: &str) -> Option<CallId> {
    if call_id.is_empty() || call_id.contains('/') {
        return None;
    }
    CallId::new(&format!("{tenant}/{call_id}"))
}

/// Tenant and plain call id of a core's id.
#[must_use]
pub fn split_call_id(call: &CallId) -> (&str, &str) {
    call.as_str().split_once('/').unwrap_or(("", call.as_str()))
}

/// Checks whether the node can take the participant.
///
/// # Errors
/// The refusal to send back.
pub fn admit(state: &NodeState, join: &Join) -> Result<(), Refusal> {
    // Those who are in already are never turned away: they cost nothing new.
    if join.reconnect || state.seat == Seat::Taken {
        return Ok(());
    }
    let host = join.grants.as_ref().is_some_and(|grants| grants.host);
    // Nor is anybody cut off from a call it was in by reloading its page.
    if let Some(left) = state.draining
        && state.seat == Seat::None
    {
        // Rounded up: who tries again then finds it ended.
        let seconds = left.as_secs() + 1;
        let text = if state.call_known {
            format!(
                "this call's media node is being emptied for maintenance and takes nobody new; try again in {seconds} s, or when the call there has ended"
            )
        } else {
            format!("this media node is being emptied for maintenance; start the call on another node, or try again in {seconds} s")
        };
        return Err(Refusal::new(ErrorReason::Draining, text));
    }
    if state.participants >= state.participants_max {
        return Err(Refusal::new(
            ErrorReason::Full,
            format!("this media node is full ({} participants); use another node or raise rtc.participants_max", state.participants),
        ));
    }
    if state.in_call >= rtcd_core::limits::PEERS_PER_CALL_MAX {
        return Err(Refusal::new(ErrorReason::Full, format!("this call is full ({} participants)", state.in_call)));
    }
    if !state.call_known && (state.refusing_new_calls || state.load > LOAD_NO_NEW_CALLS) {
        return Err(Refusal::new(
            ErrorReason::Full,
            "this media node is busy and takes no new calls for now; try again in a minute or add a node",
        ));
    }
    if state.load > LOAD_NO_JOINS && !host {
        return Err(Refusal::new(ErrorReason::Full, "this media node is busy; try again in a minute"));
    }
    Ok(())
}

/// Whether new calls stay refused: enters above one mark and leaves below a lower one, so it does not flap.
#[must_use]
pub fn still_refusing(refusing: bool, load: f64) -> bool {
    if refusing { load >= LOAD_AGAIN } else { load > LOAD_NO_NEW_CALLS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_proto::v1::Grants;

    fn calm() -> NodeState {
        NodeState {
            draining: None,
            seat: Seat::None,
            participants: 5,
            participants_max: 10,
            call_known: true,
            in_call: 2,
            load: 0.1,
            refusing_new_calls: false,
        }
    }

    fn join() -> Join {
        Join { session_id: "s".into(), call_id: "c".into(), identity: "u-1".into(), ..Join::default() }
    }

    fn reason(state: NodeState, join: &Join) -> Option<ErrorReason> {
        admit(&state, join).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn each_refusal_has_its_reason() {
        assert_eq!(reason(calm(), &join()), None);
        assert_eq!(reason(NodeState { draining: Some(Duration::ZERO), ..calm() }, &join()), Some(ErrorReason::Draining));
        assert_eq!(reason(NodeState { participants: 10, ..calm() }, &join()), Some(ErrorReason::Full));
        assert_eq!(reason(NodeState { in_call: 1024, participants_max: 5000, ..calm() }, &join()), Some(ErrorReason::Full));
        assert_eq!(reason(NodeState { load: 0.9, ..calm() }, &join()), None, "joins to running calls go on");
        assert_eq!(reason(NodeState { load: 0.9, call_known: false, ..calm() }, &join()), Some(ErrorReason::Full));
        assert_eq!(reason(NodeState { load: 0.96, ..calm() }, &join()), Some(ErrorReason::Full));
    }

    #[test]
    fn hosts_pass_a_busy_node_and_those_who_are_in_pass_everything() {
        let host = Join { grants: Some(Grants { host: true, ..Grants::default() }), ..join() };
        assert_eq!(reason(NodeState { load: 0.96, ..calm() }, &host), None);
        let resume = Join { reconnect: true, ..join() };
        let worst = NodeState { draining: Some(Duration::ZERO), load: 1.0, participants: 10, ..calm() };
        assert_eq!(reason(worst, &resume), None);
        assert_eq!(reason(NodeState { seat: Seat::Taken, ..worst }, &join()), None, "a network that was lost");
        let draining = NodeState { draining: Some(Duration::ZERO), seat: Seat::Left, ..calm() };
        assert_eq!(reason(draining, &join()), None, "a page that was loaded anew");
        assert_eq!(reason(NodeState { participants: 10, ..draining }, &join()), Some(ErrorReason::Full), "it takes room again");
    }

    #[test]
    fn a_refusal_of_a_draining_node_says_when_to_try_again() {
        let draining = NodeState { draining: Some(Duration::from_secs(29)), ..calm() };
        let text = |state| admit(&state, &join()).expect_err("refused").text;
        assert!(text(draining).contains("try again in 30 s"), "{}", text(draining));
        assert!(text(NodeState { call_known: false, ..draining }).contains("another node"));
    }

    #[test]
    fn call_ids_cannot_reach_into_another_tenant() {
        assert_eq!(core_call_id("acme", "x").expect("valid").as_str(), "acme/x");
        assert!(core_call_id("acme", "../other/x").is_none());
        assert!(core_call_id("acme", "").is_none());
        assert!(check_join("acme", &Join { call_id: "a/b".into(), ..join() }).is_err());
        assert!(check_join("acme", &Join { metadata: "x".repeat(70_000), ..join() }).is_err());
        assert_eq!(split_call_id(&core_call_id("acme", "x").expect("valid")), ("acme", "x"));
    }

    #[test]
    fn load_has_two_marks() {
        assert!(!still_refusing(false, 0.8));
        assert!(still_refusing(false, 0.9));
        assert!(still_refusing(true, 0.75));
        assert!(!still_refusing(true, 0.6));
    }
}
