// Parts are killed in the middle of a recorded call; the call and the recording go on.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { listen, noticesLoss, say } from "../lib/browser.mjs";
import { LINES, recognise, speech, wordsFound } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { bin, metric, until } from "../lib/system.mjs";

describe("killed parts", { concurrency: false, timeout: 600_000 }, () => {
  let stage, alice, bob, rest, callId;

  before(async () => {
    stage = await Stage.set();
    ({ alice, bob, rest, callId } = await stage.aliceAndBob());
  });
  after(() => stage?.strike());

  /** Alice speaks and Bob hears the words. */
  const heard = async (line, name) => {
    const stop = await listen(bob, path.join(stage.folder, `${name}.wav`));
    await say(alice, path.join(speech, LINES[line].file));
    await alice.waitForTimeout(700); // the tail is still in the jitter buffer
    return wordsFound(LINES[line].text, recognise(await stop()));
  };

  it("the worker is killed mid-call: the recording continues as one", async () => {
    await alice.getByTestId("record-toggle").click();
    await alice.getByTestId("consent-grant").click();
    await bob.getByTestId("consent-grant").click();
    await until("it records", async () => (await rest.get(`/calls/${callId}`)).recording.state === "recording");
    await until("a worker runs", () => stage.system.pids("offload-worker").length > 0);
    await say(alice, path.join(speech, LINES.a1.file));
    const [before] = stage.system.kill("offload-worker");
    await until("another worker has taken over", () => stage.system.pids("offload-worker").some((pid) => pid !== before), 30_000);
    await until("it listens", async () => (await metric(/^conclave_rtcd_taps /)) > 0);
    await say(alice, path.join(speech, LINES.c1.file));
  });

  it("the message server is killed: media goes on, clients resume", async () => {
    const listening = heard("a1", "while-server-was-away");
    stage.system.kill("message-server");
    assert.ok((await listening) >= 0.6, "words were lost while only signalling was away");
    await until("the message server is back", () => rest.get(`/calls/${callId}`), 30_000);
    for (const page of [alice, bob]) {
      await page.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 40_000 });
    }
    await bob.getByTestId("chat-toggle").click();
    await bob.getByTestId("chat-input").fill("still here");
    await bob.getByTestId("chat-send").click();
    await alice.getByTestId("chat-toggle").click();
    await alice.getByTestId("chat-message").filter({ hasText: "still here" }).waitFor({ timeout: 20_000 });
    assert.ok((await heard("c1", "after-server-came-back")) >= 0.6);
  });

  it("the media node is killed: clients rejoin by themselves", async () => {
    // Who hears whom again is asked in the rejoin story; here words have to come through, to Bob and to the recording.
    const noticed = await Promise.all([alice, bob].map(noticesLoss));
    const [before] = stage.system.kill("rtcd");
    await until("another media node runs", () => stage.system.pids("rtcd").some((pid) => pid !== before));
    await Promise.all(noticed.map((wait) => wait()));
    for (const page of [alice, bob]) {
      await page.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 60_000 });
    }
    await bob.getByTestId("remote-audio").waitFor({ state: "attached" });
    await until("Bob hears Alice again", async () => (await heard("a1", "after-media-came-back")) >= 0.6, 90_000);
  });

  it("there is one recording, its gaps are marked, and it verifies", async () => {
    await rest.post(`/calls/${callId}/end`);
    const officer = await stage.person("olga");
    const found = await until("sealed and transcribed", async () => {
      const { recordings } = await officer.get("/recordings");
      return recordings[0]?.state === "sealed" && recordings[0]?.transcript.state === "done" && recordings;
    }, 300_000);
    assert.equal(found.length, 1, "one artefact");
    const recording = await officer.get(`/recordings/${found[0].id}`);
    const microphone = recording.tracks.filter((track) => track.display_name === "Alice Host" && track.source === "microphone");
    const killed = microphone.flatMap((track) => track.gaps);
    assert.ok(killed.length > 0, "the worker's death left no marked gap");
    const transcript = await officer.get(`/recordings/${found[0].id}/transcript.json`);
    const text = transcript.segments.map((segment) => segment.text).join(" ");
    assert.ok(wordsFound(LINES.a1.text, text) >= 0.5, `before the kill: ${text}`);
    assert.ok(wordsFound(LINES.c1.text, text) >= 0.6, `after the kill: ${text}`);
    const response = await fetch(`${stage.system.http}/api/v1/recordings/${found[0].id}/bundle`, { headers: { cookie: officer.cookie } });
    const file = path.join(stage.folder, "bundle.tar");
    fs.writeFileSync(file, Buffer.from(await response.arrayBuffer()));
    const verified = spawnSync(path.join(bin, "conclave"), ["verify", file], { encoding: "utf8" });
    assert.equal(verified.status, 0, verified.stdout + verified.stderr);
  });

  it("a worker's death costs at most 12 s of a track", async () => {
    const officer = await stage.person("olga");
    const { recordings } = await officer.get("/recordings");
    const recording = await officer.get(`/recordings/${recordings[0].id}`);
    const takeover = recording.tracks.flatMap((track) => track.gaps).filter((gap) => /attempt|crash|worker|takeover|lost/i.test(gap.reason));
    assert.ok(takeover.length > 0, JSON.stringify(recording.tracks.map((track) => track.gaps)));
    for (const gap of takeover) assert.ok(gap.end_ms - gap.start_ms <= 12_000, JSON.stringify(gap));
  });
});
