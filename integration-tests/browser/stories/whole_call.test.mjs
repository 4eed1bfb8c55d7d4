// One real call, all the way: talk, share, caption, record, retrieve, prove.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { joinCall, listen, say, shot } from "../lib/browser.mjs";
import { LINES, recognise, speech, wordErrorRate, wordsFound } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { bin, until } from "../lib/system.mjs";

describe("one real call, all the way", { concurrency: false, timeout: 600_000 }, () => {
  let stage, alice, bob, carol, officer, callId, recordingId;
  const said = {};
  /** What the message server pushes to Bob's page. */
  const pushed = [];

  before(async () => {
    stage = await Stage.set();
    alice = await stage.page("alice");
    bob = await stage.page("bob");
    bob.on("websocket", (socket) => {
      if (socket.url().endsWith("/api/v1/events")) socket.on("framereceived", ({ payload }) => pushed.push(JSON.parse(payload)));
    });
    carol = await stage.page("carol");
  });
  after(() => stage?.strike());

  const speak = async (page, who, line) => {
    said[who] = `${said[who] ?? ""} ${LINES[line].text}`;
    await say(page, path.join(speech, LINES[line].file));
  };

  it("a host starts a call from a channel, and it rings at the others", async () => {
    await bob.goto(stage.system.http);
    await bob.getByTestId("channel-item").first().waitFor();
    await alice.goto(stage.system.http);
    await alice.locator(`[data-testid="channel-item"][data-channel="${stage.channel}"]`).click();
    await alice.getByTestId("channel-call").first().click();
    await alice.waitForURL(/\/call\//);
    callId = new URL(alice.url()).pathname.split("/")[2];
    await bob.getByTestId("ring").waitFor();
    await shot(bob, "ring");
  });

  it("two people join from the pre-join page", async () => {
    await alice.getByTestId("prejoin").waitFor();
    await shot(alice, "prejoin");
    await joinCall(alice, stage.system, callId);
    await joinCall(bob, stage.system, callId);
    await bob.locator('[data-testid="tile"]').nth(1).waitFor();
  });

  it("each hears the other's words", async () => {
    // Both at once: nobody hears themselves.
    const stops = [["b1", await listen(alice, path.join(stage.folder, "heard-b1.wav"))], ["a1", await listen(bob, path.join(stage.folder, "heard-a1.wav"))]];
    await Promise.all([say(alice, path.join(speech, LINES.a1.file)), say(bob, path.join(speech, LINES.b1.file))]);
    await bob.waitForTimeout(700); // the tail is still in the jitter buffer
    const files = [];
    for (const [line, stop] of stops) files.push([line, await stop()]);
    for (const [line, file] of files) {
      const heard = recognise(file);
      assert.ok(wordsFound(LINES[line].text, heard) >= 0.8, `said: ${LINES[line].text}\nheard: ${heard}`);
    }
  });

  it("captions show the right words under the right name", async () => {
    await alice.getByTestId("captions-toggle").click();
    await bob.getByTestId("captions-toggle").click();
    await until("the caption worker runs", () => stage.system.pids("offload-worker").length > 0);
    await until("the caption worker listens", async () => {
      await say(alice, path.join(speech, LINES.a2.file));
      const lines = bob.locator('[data-testid="caption-line"]', { has: bob.getByTestId("caption-committed") });
      const text = (await lines.allInnerTexts()).join(" ");
      return wordsFound(LINES.a2.text, text) >= 0.6 && text.includes("Alice");
    }, 90_000);
    const captions = () => pushed.filter((event) => event.type === "caption");
    // The last words are pending on the page before they are committed.
    await until("the message server has pushed them as committed", () => wordsFound(LINES.a2.text, captions().map((event) => event.committed).join(" ")) >= 0.6);
    for (const event of captions()) assert.deepEqual([event.display_name, event.call_id], ["Alice Host", callId]);
    await shot(bob, "captions");
  });

  it("a shared screen arrives and moves", async () => {
    await alice.getByTestId("share-toggle").click();
    const video = bob.locator('[data-testid="tile"][data-screen="true"] video');
    await video.waitFor({ timeout: 20_000 });
    const look = () => video.evaluate((element) => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 90 });
      const pen = canvas.getContext("2d");
      pen.drawImage(element, 0, 0, 160, 90);
      return { frames: element.getVideoPlaybackQuality().totalVideoFrames, wide: element.videoWidth, pixels: [...pen.getImageData(0, 0, 160, 90).data] };
    });
    const first = await until("the first frame", async () => { const seen = await look(); return seen.wide > 0 && seen.frames > 0 && seen; });
    await until("frames go on and differ", async () => {
      const seen = await look();
      return seen.frames > first.frames + 5 && seen.pixels.some((value, at) => Math.abs(value - first.pixels[at]) > 16);
    });
    await shot(bob, "screen-share");
  });

  it("recording starts only when everybody has answered", async () => {
    await alice.getByTestId("record-toggle").click();
    await alice.getByTestId("consent-dialog").waitFor();
    await bob.getByTestId("consent-dialog").waitFor();
    await shot(bob, "consent");
    await alice.getByTestId("consent-grant").click();
    const rest = await stage.person("alice");
    assert.equal((await rest.get(`/calls/${callId}`)).recording.state, "asking", "Bob has not answered");
    await bob.getByTestId("consent-grant").click();
    await until("the recording runs", async () => (await rest.get(`/calls/${callId}`)).recording.state === "recording");
    await alice.getByTestId("recording-badge").waitFor();
    await bob.getByTestId("recording-badge").waitFor();
  });

  it("who joins late is asked too", async () => {
    await joinCall(carol, stage.system, callId);
    await carol.getByTestId("consent-dialog").waitFor();
    await carol.getByTestId("consent-grant").click();
    await carol.getByTestId("recording-badge").waitFor();
  });

  it("three people talk in turn while it is recorded", async () => {
    // The tap needs a moment to see Carol's track; she is the last to speak.
    for (const [page, who, line] of [[alice, "alice", "a1"], [bob, "bob", "b1"], [carol, "carol", "c1"], [alice, "alice", "a3"], [carol, "carol", "c2"]]) {
      await speak(page, who, line);
      await page.waitForTimeout(600);
    }
    await shot(carol, "call");
    await alice.getByTestId("share-toggle").click();
  });

  it("the ops page shows how far everybody's media got", async () => {
    const ops = await stage.page("otto");
    await ops.goto(`${stage.system.http}/ops`);
    await ops.getByTestId("ops-participant").nth(2).waitFor();
    await shot(ops, "ops");
    await ops.context().close();
  });

  it("chat, a raised hand and reactions reach the others", async () => {
    await bob.getByTestId("chat-toggle").click();
    await bob.getByTestId("chat-input").fill("Minutes are in the folder");
    await bob.getByTestId("chat-send").click();
    await carol.getByTestId("chat-toggle").click();
    await carol.getByTestId("chat-message").filter({ hasText: "Minutes are in the folder" }).waitFor();
    await bob.getByTestId("hand-toggle").click();
    const rest = await stage.person("alice");
    await until("the hand is up", async () => (await rest.get(`/calls/${callId}`)).participants.some((person) => person.hand_raised_at_ms));
  });

  it("the host ends the call and everybody is told", async () => {
    await alice.getByTestId("end-call").click();
    const sure = alice.getByRole("dialog").getByRole("button", { name: /end/i });
    if (await sure.count()) await sure.first().click();
    await bob.getByTestId("call-ended").waitFor();
    for (const page of [alice, bob, carol]) assert.deepEqual(page.problems, []);
  });

  it("an officer finds the recording by a spoken word", async () => {
    officer = await stage.page("olga");
    const rest = await stage.person("olga");
    const found = await until("the transcript is searchable and the file is rendered", async () => {
      const { recordings } = await rest.get(`/recordings?q=${LINES.c1.word}`);
      return recordings[0]?.transcript.state === "done" && recordings[0]?.render.state === "done" && recordings[0];
    }, 300_000);
    recordingId = found.id;
    await officer.goto(`${stage.system.http}/officer`);
    await officer.getByTestId("search-input").fill(LINES.c1.word);
    await officer.getByTestId("search-submit").click();
    await officer.getByTestId("hit").first().waitFor();
    await shot(officer, "officer-search");
    await officer.locator(`[data-testid="recording-row"][data-id="${recordingId}"] a`).first().click();
    await officer.getByTestId("transcript-sentence").first().waitFor();
  });

  it("the officer plays it with its transcript in step", async () => {
    await officer.getByTestId("transcript-sentence").nth(2).getByRole("button").first().click();
    const media = officer.getByTestId("player").locator("video, audio").first();
    const state = () => media.evaluate((element) => ({ at: element.currentTime, ready: element.readyState, error: element.error?.message ?? null, source: element.currentSrc }));
    const begun = await until("it plays from the sentence", async () => {
      const seen = await state();
      if (seen.error) throw new Error(JSON.stringify(seen));
      return seen.at > 1 && seen.ready >= 2 && seen;
    });
    await until("it goes on", async () => (await state()).at > begun.at + 0.5);
    await officer.locator('[data-testid="transcript-sentence"][aria-current="true"]').waitFor();
    await shot(officer, "officer-player");
    await officer.getByTestId("verify").click();
    await officer.locator('[data-testid="verify-result"][data-ok="true"]').waitFor();
  });

  it("the mixed file has the right streams and length", async () => {
    const rest = await stage.person("olga");
    const recording = await rest.get(`/recordings/${recordingId}`);
    const response = await fetch(`${stage.system.http}/api/v1/recordings/${recordingId}/media`, { headers: { cookie: rest.cookie } });
    const file = path.join(stage.folder, "media.mp4");
    fs.writeFileSync(file, Buffer.from(await response.arrayBuffer()));
    const probed = JSON.parse(execFileSync("ffprobe", ["-v", "error", "-of", "json", "-show_streams", "-show_format", file], { encoding: "utf8" }));
    const codecs = probed.streams.map((stream) => stream.codec_name).sort();
    assert.deepEqual(codecs, ["aac", "h264"]);
    const off = Math.abs(Number(probed.format.duration) - recording.duration_ms / 1000);
    assert.ok(off <= 0.5, `file ${probed.format.duration} s, recording ${recording.duration_ms / 1000} s`);
    assert.equal(recording.consents.filter((consent) => consent.granted).length, 3);
  });

  it("the transcript has the right words for each speaker", async () => {
    const rest = await stage.person("olga");
    const transcript = await rest.get(`/recordings/${recordingId}/transcript.json`);
    const name = { alice: "Alice Host", bob: "Bob", carol: "Carol" };
    let errors = 0, count = 0;
    for (const [who, text] of Object.entries(said)) {
      const heard = transcript.segments.filter((segment) => segment.display_name === name[who]).map((segment) => segment.text).join(" ");
      const words = text.trim().split(/\s+/).length;
      errors += wordErrorRate(text, heard) * words;
      count += words;
    }
    assert.ok(errors / count <= 0.15, `word error rate ${(100 * errors / count).toFixed(1)} %: ${JSON.stringify(transcript.segments.map((s) => [s.display_name, s.text]))}`);
  });

  it("the bundle verifies offline, and fails after any flipped byte", async () => {
    const rest = await stage.person("olga");
    const response = await fetch(`${stage.system.http}/api/v1/recordings/${recordingId}/bundle`, { headers: { cookie: rest.cookie } });
    const bytes = Buffer.from(await response.arrayBuffer());
    const file = path.join(stage.folder, "bundle.tar");
    fs.writeFileSync(file, bytes);
    const verify = () => spawnSync(path.join(bin, "conclave"), ["verify", file], { encoding: "utf8" });
    assert.equal(verify().status, 0, verify().stderr + verify().stdout);
    for (let part = 0; part < 24; part++) {
      const at = Math.floor((bytes.length - 1) * (part / 23));
      const changed = Buffer.from(bytes);
      changed[at] ^= 1;
      fs.writeFileSync(file, changed);
      assert.notEqual(verify().status, 0, `byte ${at} of ${bytes.length} was flipped and nobody noticed`);
    }
  });

  it("the officer's own accesses are on record", async () => {
    const rest = await stage.person("olga");
    const { accesses } = await rest.get(`/recordings/${recordingId}/accesses`);
    const actions = new Set(accesses.map((access) => access.action));
    for (const action of ["view", "play", "export"]) assert.ok([...actions].some((name) => name.includes(action) || (action === "export" && /bundle|download/.test(name)) || (action === "play" && /media/.test(name))), `${action} in ${[...actions]}`);
  });
});
