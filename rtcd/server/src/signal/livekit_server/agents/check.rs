//! What workers and servers may say: names, deployments, sizes.

use std::collections::HashMap;

use livekit_protocol as lk;

use crate::limits::{AGENT_DEPLOYMENT_LEN_MAX, AGENT_DISPATCHES_MAX, METADATA_LEN_MAX, ROOM_TEXT_LEN_MAX};
use crate::signal::livekit::attributes_len;
use crate::signal::seam::RoomFault;

/// Agents that a room is to be made with.
///
/// # Errors
/// There are too many, or one of them cannot be.
pub(crate) fn check_wanted(wanted: &[lk::RoomAgentDispatch]) -> Result<(), RoomFault> {
    if wanted.len() > AGENT_DISPATCHES_MAX {
        return Err(RoomFault::TooMuch("the number of agents of one room"));
    }
    wanted.iter().try_for_each(|one| check_dispatch(&one.agent_name, &one.metadata, &one.deployment, &one.attributes))
}

/// What a dispatch says.
///
/// # Errors
/// It cannot be.
pub(super) fn check_dispatch(
    agent_name: &str,
    metadata: &str,
    deployment: &str,
    attributes: &HashMap<String, String>,
) -> Result<(), RoomFault> {
    if agent_name.len() > ROOM_TEXT_LEN_MAX {
        return Err(RoomFault::TooMuch("agent name length"));
    }
    if metadata.len() > METADATA_LEN_MAX {
        return Err(RoomFault::TooMuch("metadata size"));
    }
    if attributes_len(attributes) > METADATA_LEN_MAX {
        return Err(RoomFault::TooMuch("attributes size"));
    }
    check_deployment(deployment).map_err(|why| RoomFault::Invalid(why.to_owned()))
}

/// LiveKit's own rule.
pub(super) fn check_deployment(deployment: &str) -> Result<(), &'static str> {
    if deployment.len() > AGENT_DEPLOYMENT_LEN_MAX {
        return Err("deployment exceeds 64 bytes");
    }
    if deployment.contains('_') {
        return Err("deployment contains reserved character '_'");
    }
    match deployment.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        true => Err("deployment contains whitespace or a control byte"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_are_short_words_without_underscores() {
        for good in ["", "production", "prod-us.v2", "a/b", "prodüction", &"a".repeat(64)] {
            assert_eq!(check_deployment(good), Ok(()), "{good}");
        }
        for bad in ["prod_us", "prod us", "prod\tus", "prod\n", "\u{7f}", "\0", &"a".repeat(65)] {
            assert!(check_deployment(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dispatch_has_bounds() {
        let none = HashMap::new();
        let long = "x".repeat(METADATA_LEN_MAX + 1);
        let attributes = HashMap::from([("name".to_owned(), long.clone())]);
        assert_eq!(check_dispatch("helper", "m", "", &none), Ok(()));
        assert_eq!(check_dispatch(&"x".repeat(257), "", "", &none), Err(RoomFault::TooMuch("agent name length")));
        assert_eq!(check_dispatch("helper", &long, "", &none), Err(RoomFault::TooMuch("metadata size")));
        assert_eq!(check_dispatch("helper", "", "", &attributes), Err(RoomFault::TooMuch("attributes size")));
        assert!(matches!(check_dispatch("helper", "", "a_b", &none), Err(RoomFault::Invalid(_))));
        let many = vec![lk::RoomAgentDispatch::default(); AGENT_DISPATCHES_MAX + 1];
        assert!(check_wanted(&many).is_err() && check_wanted(&many[1..]).is_ok());
    }
}
