//! The site's TURN servers, as clients are told of them.

use super::*;
use crate::config::Config;

fn site() -> TurnServers {
    let all = [
        ("RTCD_LIVEKIT_KEYS", "key: 0123456789abcdef0123456789abcdef"),
        (
            "RTCD_RTC_ICESERVERS",
            r#"[{"urls":["stun:a"]},{"urls":["turn:b:3478","turns:b:5349"]},{"urls":["turn:c"],"username":"u","credential":"p"}]"#,
        ),
        ("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", "secret"),
    ];
    let get = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    TurnServers::of(&Config::from_sources(None, &get).expect("a valid configuration").config)
}

#[test]
fn who_joins_and_who_resumes_is_told_of_the_sites_turn_servers_with_credentials_of_its_own() {
    let mut world = World::with(site());
    let alice = world.join("s1", "alice");
    let [Message::Join(join)] = &world.seen("s1")[..] else { panic!("JoinResponse, alone") };
    let given = join.ice_servers.clone();
    let [made, fixed] = &given[..] else { panic!("the TURN entries, not the STUN server: {given:?}") };
    assert_eq!(made.urls, ["turn:b:3478", "turns:b:5349"]);
    // A day after 1000 s.
    assert_eq!(made.username, format!("87400:{alice}", alice = alice.as_str()));
    assert!(!made.credential.is_empty());
    assert_eq!((fixed.username.as_str(), fixed.credential.as_str()), ("u", "p"));

    world.join("s2", "bob");
    let [Message::Join(bobs)] = &world.seen("s2")[..] else { panic!("JoinResponse") };
    assert_ne!(bobs.ice_servers[0].credential, made.credential);

    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: true });
    world.now.unix_ms += 5_000;
    world.join_with("s3", "alice", |join: &mut v1::Join| {
        join.reconnect = true;
        join.participant_sid = alice.as_str().to_owned();
    });
    let seen = world.seen("s3");
    let Some(Message::Reconnect(reconnect)) = seen.first() else { panic!("{seen:?}") };
    assert_eq!(reconnect.ice_servers[0].username, format!("87405:{alice}", alice = alice.as_str()));
}
