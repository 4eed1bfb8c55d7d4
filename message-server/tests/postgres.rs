//! The same server on PostgreSQL: a throwaway cluster with its own folder and socket, no TCP port.

#![cfg(test)]

mod common;

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{Server, until};
use serde_json::json;

struct Cluster {
    folder: tempfile::TempDir,
    server: Child,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _already_gone = self.server.kill();
        let _reaped = self.server.wait();
    }
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).filter(|path| path.join("initdb").exists()).collect())
        .unwrap_or_default();
    found.sort();
    found.pop().expect("PostgreSQL is not installed: ./x installs it, or apt-get install postgresql")
}

/// PostgreSQL refuses to run as root: then as the user that its package makes.
fn as_postgres(command: &mut Command, folder: &Path) {
    let id = |flag: &str, name: &str| {
        let output = Command::new("id").args([flag, name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().expect("the user postgres")
    };
    let me = Command::new("id").arg("-u").output().unwrap();
    if me.stdout == b"0\n" {
        let (uid, gid) = (id("-u", "postgres"), id("-g", "postgres"));
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder);
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let programs = programs();
        let data = folder.path().join("data");
        let mut init = Command::new(programs.join("initdb"));
        init.args(["--auth=trust", "--username=conclave", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
        as_postgres(&mut init, folder.path());
        let made = init.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Command::new(programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        as_postgres(&mut server, folder.path());
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { folder, server }
    }

    fn url(&self) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://conclave@{host}/postgres")
    }
}

#[tokio::test]
async fn everything_works_the_same_on_postgresql() {
    let cluster = Cluster::start();
    let url = cluster.url();
    until("the database answers", || async { message_server::store::Store::open(&url).await.ok() }).await.close().await;

    let server = Server::start_with(|settings| settings.database = url.clone()).await;
    let mut admin = server.admin().await;
    let mut bob = server.person(&mut admin, "bob", &["user"]).await;
    let twice = json!({ "username": "bob", "display_name": "Bob", "password": common::PASSWORD, "roles": ["user"] });
    assert_eq!(admin.post("/users", twice).await.status, 409);
    assert_eq!(bob.get("/people?q=ADA").await.body["people"][0]["display_name"], "Ada Admin");
    let channel = server.channel(&mut bob).await;
    assert_eq!(admin.post(&format!("/channels/{channel}/messages"), json!({ "text": "hello" })).await.status, 201);
    assert_eq!(bob.get("/channels").await.body["channels"][0]["unread"], 1);
    bob.post(&format!("/channels/{channel}/read"), json!({})).await;
    assert_eq!(bob.get("/channels").await.body["channels"][0]["unread"], 0);
    // Two people press the button together: one call.
    let path = format!("/channels/{channel}/call");
    let (mut one, mut two) = (admin.clone(), bob.clone());
    let (first, second) = tokio::join!(one.post(&path, json!({})), two.post(&path, json!({})));
    assert_eq!(first.body["call"]["id"], second.body["call"]["id"]);
    let call = first.body["call"]["id"].as_str().unwrap().to_owned();
    server.in_call(&call, &mut admin).await;
    server.in_call(&call, &mut bob).await;
    assert_eq!(bob.post(&format!("/calls/{call}/hand"), json!({ "raised": true })).await.status, 204);
    // bob or admin started it; admin holds all roles and hosts in any case.
    assert_eq!(admin.post(&format!("/calls/{call}/recording"), json!({ "action": "start" })).await.status, 200);
    let yes = json!({ "granted": true, "notice_version": "1" });
    assert_eq!(bob.post(&format!("/calls/{call}/consent"), yes).await.status, 200);
    let seen = bob.see(&call).await;
    assert_eq!(seen["recording"]["waiting_for"], json!([admin.id]));
    let guest_link = admin.post(&format!("/calls/{call}/guest-links"), json!({})).await;
    let token = guest_link.body["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let mut guest = server.stranger();
    assert_eq!(guest.post("/session/guest", json!({ "token": token, "display_name": "Gus" })).await.status, 200);
    assert_eq!(guest.get(&format!("/channels/{channel}/messages?call_id={call}")).await.status, 200);
    let caption = conclave_proto::v1::Caption {
        identity: bob.id.clone(),
        segment_id: "s1".to_owned(),
        committed: "so be it".to_owned(),
        r#final: true,
        ..Default::default()
    };
    for _ in 0..2 {
        message_server::calls::captions::handle(&server.app, &call, 1, caption.clone()).await.unwrap();
    }
    let captions = bob.get(&format!("/calls/{call}/captions")).await;
    assert_eq!(captions.body["captions"].as_array().unwrap().len(), 1, "{}", captions.body);
    message_server::calls::presence::end(&server.app, &call, message_server::clock::now_ms()).await.unwrap();
    assert!(bob.see(&call).await["ended_at_ms"].is_i64());
    assert_eq!(bob.get("/channels").await.body["channels"][0]["active_call"], json!(null));
}
