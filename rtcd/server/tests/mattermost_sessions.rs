//! Sessions over `/ws` of the real program: who may see, steer and end them. What is in them is for the browser stories.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::mattermost::{KEY, Plugin, Site, basic, join, pair, text};
use common::soon;
use rmpv::Value;

/// Row 9: the sessions of a client's call, and the text where there are none.
async fn sessions(site: &Site, client: &str, call: &str) -> Result<serde_json::Value, String> {
    let answer = site.ask("GET", &format!("/calls/{call}/sessions"), &[("Authorization", &basic(client, KEY))], "").await;
    if answer.status == 200 { Ok(answer.json()) } else { Err(answer.body.trim().to_owned()) }
}

/// Waits until so many are in the call.
async fn until(site: &Site, client: &str, call: &str, count: usize) {
    soon(&format!("{count} sessions of {client}"), async {
        while sessions(site, client, call).await.map_or(0, |list| list.as_array().map_or(0, Vec::len)) != count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn end(plugin: &mut Plugin, session: &str) {
    plugin.send("leave", Value::Map(vec![pair("sessionID", session)])).await;
}

/// The next thing said is that this session is over.
async fn is_closed(plugin: &mut Plugin, session: &str) {
    let (kind, data) = plugin.next().await.expect("a message");
    assert_eq!((kind.as_str(), text(&data, "sessionID")), ("close", session));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sees_its_sessions_in_the_words_of_the_original() {
    let site = Site::open().await;
    site.register("a").await;
    site.register("b").await;
    let mut plugin = site.connect("a").await;
    assert_eq!(sessions(&site, "a", "call").await, Err("failed to get session configs: group not found".to_owned()));
    plugin.send("join", join("call", "user", "one")).await;
    until(&site, "a", "call", 1).await;
    let expected = serde_json::json!([{
        "GroupID": "a", "CallID": "call", "UserID": "user", "SessionID": "one",
        "Props": {"av1Support": false, "channelID": "channel", "dcSignaling": true},
    }]);
    assert_eq!(sessions(&site, "a", "call").await, Ok(expected.clone()));
    let one = site.ask("GET", "/calls/call/sessions/one", &[("Authorization", &basic("a", KEY))], "").await;
    assert_eq!(one.json(), expected[0]);
    assert_eq!(sessions(&site, "a", "other").await, Err("failed to get session configs: call not found".to_owned()));
    assert!(sessions(&site, "b", "call").await.is_err(), "another client has no such call");
    // A second join of the same name changes nothing.
    plugin.send("join", join("call", "another", "one")).await;
    plugin.send("join", join("call", "user", "two")).await;
    until(&site, "a", "call", 2).await;
    assert_eq!(sessions(&site, "a", "call").await.expect("two")[0]["UserID"], "user");
    end(&mut plugin, "one").await;
    is_closed(&mut plugin, "one").await;
    end(&mut plugin, "two").await;
    is_closed(&mut plugin, "two").await;
    until(&site, "a", "call", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_steers_or_ends_the_session_of_another() {
    let site = Site::open().await;
    site.register("a").await;
    site.register("b").await;
    let (mut of_a, mut of_b) = (site.connect("a").await, site.connect("b").await);
    of_a.send("join", join("call", "user", "one")).await;
    of_b.send("join", join("call", "user", "other")).await;
    until(&site, "a", "call", 1).await;
    until(&site, "b", "call", 1).await;
    // Each of these names a session of somebody else; the last one, b's own, is answered after them.
    of_b.send_rtc("one", 2, br#"{"type":"offer","sdp":"v=0"}"#).await;
    of_b.send("reconnect", Value::Map(vec![pair("sessionID", "one")])).await;
    end(&mut of_b, "one").await;
    end(&mut of_b, "other").await;
    is_closed(&mut of_b, "other").await;
    assert_eq!(sessions(&site, "a", "call").await.expect("it goes on").as_array().map(Vec::len), Some(1));
    end(&mut of_a, "one").await;
    is_closed(&mut of_a, "one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_outlives_its_connection_and_is_spoken_of_over_another() {
    let site = Site::open().await;
    site.register("a").await;
    let (mut first, mut second) = (site.connect("a").await, site.connect("a").await);
    first.send("join", join("call", "user", "one")).await;
    until(&site, "a", "call", 1).await;
    first.socket.close(None).await.expect("closes");
    drop(first);
    end(&mut second, "one").await;
    is_closed(&mut second, "one").await;
    // And by name over the one that asked for it.
    let mut third = site.connect("a").await;
    second.send("join", join("call", "user", "two")).await;
    until(&site, "a", "call", 1).await;
    third.send("reconnect", Value::Map(vec![pair("sessionID", "two")])).await;
    end(&mut third, "two").await;
    is_closed(&mut third, "two").await;
}
