//! `docs/compat/livekit.md` stays in step with LiveKit's protocol crate and with the tests it names.

#![cfg(test)]

mod tables;

use std::collections::BTreeSet;
use std::path::Path;

use livekit_protocol::{
    ServerMessage, SignalRequest, SignalResponse, WorkerMessage, server_message, signal_request, signal_response, worker_message,
};
use prost::Message;
use tables::{missing, named_tests};

const ROOM_SERVICE: [&str; 14] = [
    "CreateRoom",
    "ListRooms",
    "DeleteRoom",
    "ListParticipants",
    "GetParticipant",
    "RemoveParticipant",
    "MutePublishedTrack",
    "UpdateParticipant",
    "UpdateSubscriptions",
    "SendData",
    "UpdateRoomMetadata",
    "ForwardParticipant",
    "MoveParticipant",
    "PerformRpc",
];
const EGRESS: [&str; 10] = [
    "StartEgress",
    "StartRoomCompositeEgress",
    "StartWebEgress",
    "StartParticipantEgress",
    "StartTrackCompositeEgress",
    "StartTrackEgress",
    "UpdateLayout",
    "UpdateStream",
    "ListEgress",
    "StopEgress",
];
const AGENT_DISPATCH: [&str; 3] = ["CreateDispatch", "DeleteDispatch", "ListDispatch"];
const WEBHOOKS: [&str; 7] = [
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
];
const GRANTS: [&str; 18] = [
    "roomCreate",
    "roomList",
    "roomRecord",
    "roomAdmin",
    "roomJoin",
    "room",
    "canPublish",
    "canSubscribe",
    "canPublishData",
    "canPublishSources",
    "canUpdateOwnMetadata",
    "ingressAdmin",
    "hidden",
    "recorder",
    "agent",
    "canSubscribeMetrics",
    "canManageAgentSession",
    "destinationRoom",
];
const STATES: [&str; 5] = ["match", "better", "partly", "refused", "not sent"];

/// Names of all messages of a frame: every field number is tried, as an empty message and as a number.
fn messages<T: Message + Default>(prefix: &str, name: impl Fn(T) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for number in 1..1000_u64 {
        for wire in [2, 0] {
            let mut frame = Vec::new();
            prost::encoding::encode_varint(number << 3 | wire, &mut frame);
            frame.push(0);
            if let Some(name) = T::decode(frame.as_slice()).ok().and_then(&name) {
                found.push(format!("{prefix}.{}", name.split('(').next().unwrap()));
            }
        }
    }
    found
}

fn required() -> BTreeSet<String> {
    let request = |frame: SignalRequest| frame.message.map(|message: signal_request::Message| format!("{message:?}"));
    let response = |frame: SignalResponse| frame.message.map(|message: signal_response::Message| format!("{message:?}"));
    let worker = |frame: WorkerMessage| frame.message.map(|message: worker_message::Message| format!("{message:?}"));
    let server = |frame: ServerMessage| frame.message.map(|message: server_message::Message| format!("{message:?}"));
    let named = |prefix: &str, names: &[&str]| names.iter().map(|name| format!("{prefix}.{name}")).collect::<Vec<_>>();
    let mut all = messages("SignalRequest", request);
    all.extend(messages("SignalResponse", response));
    all.extend(messages("WorkerMessage", worker));
    all.extend(messages("ServerMessage", server));
    all.extend(named("RoomService", &ROOM_SERVICE));
    all.extend(named("AgentDispatchService", &AGENT_DISPATCH));
    all.extend(named("Egress", &EGRESS));
    all.extend(named("webhook", &WEBHOOKS));
    all.extend(named("grant", &GRANTS));
    all.into_iter().collect()
}

fn faults(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut missing_rows = required();
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    for cells in rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()) {
        let [id, state, _, proof] = cells[..] else {
            faults.push(format!("a row has {} cells", cells.len()));
            continue;
        };
        if !missing_rows.remove(id) && !id.starts_with("webhook.") {
            if id.contains('.') {
                faults.push(format!("{id} is none of the protocol's, or stands here twice"));
            }
            continue;
        }
        if !STATES.contains(&state) {
            faults.push(format!("{id}: {state} is no state"));
        }
        let tests = named_tests(proof);
        let reason = proof.strip_prefix("not applicable: ").is_some_and(|reason| reason.len() > 20);
        if tests.is_empty() != reason {
            faults.push(format!("{id} names no test and gives no reason, or does both"));
        }
        for (path, name) in tests {
            match read(&path) {
                None => faults.push(format!("{id}: there is no file {path}")),
                Some(source) => {
                    faults.extend(missing(&source, &name, path.ends_with(".rs")).map(|why| format!("{id}: {name} in {path} {why}")));
                }
            }
        }
    }
    faults.extend(missing_rows.into_iter().map(|id| format!("{id} has no row")));
    faults
}

fn page() -> (std::path::PathBuf, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/compat/livekit.md")).unwrap();
    (root, page)
}

#[test]
fn every_message_call_event_and_grant_has_a_row_with_a_proof() {
    let (root, page) = page();
    let faults = faults(&page, |path| std::fs::read_to_string(root.join(path)).ok());
    assert!(faults.is_empty(), "docs/compat/livekit.md:\n{}", faults.join("\n"));
}

/// The check itself can fail, in each of its ways.
#[test]
fn a_row_that_is_missing_or_proves_nothing_is_found() {
    let (root, page) = page();
    let of = |page: &str| faults(page, |path| std::fs::read_to_string(root.join(path)).ok());
    assert!(required().len() > 96, "the protocol's messages were found");
    for id in ["SignalRequest.Offer", "SignalRequest.Ping", "SignalResponse.RefreshToken", "RoomService.SendData", "grant.hidden"] {
        let without: String = page.lines().filter(|line| !line.starts_with(&format!("| {id} |"))).map(|line| format!("{line}\n")).collect();
        assert_eq!(of(&without), [format!("{id} has no row")]);
    }
    let renamed = page.replace("::people_meet_and_part`", "::nobody_ever_meets`");
    assert!(of(&renamed).iter().any(|fault| fault.contains("is no function of that file")), "{:?}", of(&renamed));
    assert!(!of(&page.replace("| SignalRequest.Offer | match |", "| SignalRequest.Offer | perhaps |")).is_empty());
}
