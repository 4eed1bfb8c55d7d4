// A page is reloaded, or crashes, in the middle of a call: it comes back, is heard again, and leaves no double behind.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, joinCall, loudness, say, tilesOf } from "../lib/browser.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { metric, until } from "../lib/system.mjs";

describe("reload", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, bob, rest, callId;

  before(async () => {
    // Longer than any wait of this story: what ends here does so because of a goodbye.
    stage = await Stage.set({ env: { RTCD_RTC_DEPARTURETIMEOUTS: "600", MESSAGE_SERVER_EMPTY_CALL_GRACE_S: "600" } });
    rest = await stage.person("alice");
    callId = await stage.call(rest);
    alice = await stage.page("alice");
  });
  after(() => stage?.strike());

  const present = async () => (await rest.get(`/calls/${callId}`)).participants.map((person) => person.display_name).sort();

  /** Everybody who is in the call has one tile on each page, and each hears the other. */
  const together = async () => {
    for (const page of [alice, bob]) await until("two tiles, of two people", async () => (await tilesOf(page)).length === 2 && new Set(await tilesOf(page)).size === 2);
    for (const page of [alice, bob]) await page.getByTestId("remote-audio").waitFor({ state: "attached" });
    const measured = [await loudness(alice), await loudness(bob)];
    await Promise.all([alice, bob].map((page) => say(page, path.join(speech, LINES.a3.file))));
    for (const stop of measured) {
      const heard = await stop();
      assert.ok(Object.values(heard).some((level) => level > HEARD), JSON.stringify(heard));
    }
    assert.deepEqual(await present(), ["Alice Host", "Bob"]);
  };

  it("who is alone in the call and reloads right after joining is in the same call again", async () => {
    for (let times = 0; times < 3; times++) {
      await joinCall(alice, stage.system, callId);
      await alice.reload();
    }
    await joinCall(alice, stage.system, callId);
    assert.equal((await tilesOf(alice)).length, 1);
    await until("she is in the call", async () => (await present()).join() === "Alice Host");
  });

  it("who is alone in the call and whose page crashes is in the same call again", async () => {
    const crashed = alice;
    await crashed.goto("chrome://crash").catch(() => {});
    alice = await stage.page("alice");
    await joinCall(alice, stage.system, callId);
    assert.equal((await tilesOf(alice)).length, 1);
    await until("she is in the call", async () => (await present()).join() === "Alice Host");
  });

  it("who reloads among others is heard again, with one tile", async () => {
    bob = await stage.page("bob");
    await joinCall(bob, stage.system, callId);
    await together();
    await alice.reload();
    await joinCall(alice, stage.system, callId);
    await together();
  });

  it("whose page crashes among others is heard again, with one tile", async () => {
    await alice.goto("chrome://crash").catch(() => {});
    alice = await stage.page("alice");
    await joinCall(alice, stage.system, callId);
    await together();
  });

  it("when both have left on purpose, the call is over without waiting for anybody", async () => {
    for (const page of [alice, bob]) {
      await page.getByTestId("leave").click();
      await page.getByTestId("call-ended").waitFor();
    }
    await until("the call is over", async () => (await rest.get(`/calls/${callId}`)).ended_at_ms);
  });

  it("a recording goes on through the reload of the only one who is there", async () => {
    callId = await stage.call(rest);
    await joinCall(alice, stage.system, callId);
    await alice.getByTestId("record-toggle").click();
    await alice.getByTestId("consent-grant").click();
    const recorded = () => until("it records", async () => (await rest.get(`/calls/${callId}`)).recording.state === "recording" && (await metric(/^conclave_rtcd_taps /)) > 0);
    await recorded();
    await say(alice, path.join(speech, LINES.a3.file));
    await alice.reload();
    await joinCall(alice, stage.system, callId);
    await alice.getByTestId("recording-badge").waitFor();
    await recorded();
    await say(alice, path.join(speech, LINES.a3.file));
    await alice.getByTestId("leave").click();
    const officer = await stage.person("olga");
    const recordings = await until("it is sealed", async () => {
      const { recordings } = await officer.get("/recordings");
      return recordings[0]?.state === "sealed" && recordings;
    }, 60_000);
    assert.equal(recordings.length, 1, "one recording");
    const { tracks } = await officer.get(`/recordings/${recordings[0].id}`);
    const lengths = tracks.filter((track) => track.source === "microphone").map((track) => track.end_ms - track.start_ms);
    assert.equal(lengths.length, 2, `before and after: ${JSON.stringify(tracks)}`);
    for (const length of lengths) assert.ok(length >= 3_000, `the line takes 3 s: ${JSON.stringify(tracks)}`);
  });
});
