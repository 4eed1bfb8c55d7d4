// What LiveKit's unmodified client encrypts end to end is recorded with the grant of who holds the key, and only while it holds.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { openChromium, openPage, say, withVoice } from "../lib/browser.mjs";
import { MediaNode, Recorder, parse } from "../lib/livekit.mjs";
import { LINES, recognise, speech, wordsFound } from "../lib/speech.mjs";
import { bin, until } from "../lib/system.mjs";

const KEY = "a key that no server has, until it is granted";
const ROOM = "sealed";
const PATIENCE_MS = 120_000;
/** On a machine that is busy with other things, browsers drop sounds: then it is said again. */
const TIMES_MAX = 3;

/** Small grey pictures of a film, two a second. */
function pictures(file, filter = "") {
  const raw = execFileSync("ffmpeg", ["-nostdin", "-v", "error", "-i", file, "-an", "-vf", `${filter}fps=2,scale=64:36`, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], { maxBuffer: 1 << 28 });
  const size = 64 * 36 * 3;
  return Array.from({ length: raw.length / size }, (_, n) => raw.subarray(n * size, (n + 1) * size));
}
/** How far two pictures differ, a byte. */
const difference = (a, b) => a.reduce((sum, value, at) => sum + Math.abs(value - b[at]), 0) / a.length;
/** The share of neighbours that differ. */
const moving = (film) => film.slice(1).filter((picture, n) => difference(picture, film[n]) > 0.2).length / Math.max(1, film.length - 1);
/** Chromium's fake camera is green: what was opened with a wrong key, or not at all, is not. */
const green = (picture) => {
  const mean = (offset) => picture.filter((_, at) => at % 3 === offset).reduce((sum, value) => sum + value, 0);
  return mean(1) > 1.2 * mean(0) && mean(1) > 1.2 * mean(2);
};

describe("Recording of what is encrypted end to end", { concurrency: false, timeout: 900_000 }, () => {
  let node, recorder, browser, ann;
  const tracks = {};

  const enter = async (identity, options) => {
    const page = await openPage(browser);
    await withVoice(page);
    await page.goto(node.page);
    await page.evaluate(([url, token, options]) => globalThis.enter(url, token, options), [node.url, node.token(ROOM, identity), { key: KEY, ...options }]);
    await page.evaluate(() => globalThis.room.localParticipant.setCameraEnabled(true, { resolution: { width: 320, height: 180, frameRate: 15 } }));
    return page;
  };
  /** As an application's page asks: with the token that it joined by. */
  const key = (page, method, token, body) => page.evaluate(async ([url, method, token, body]) => {
    const answer = await fetch(`${url.replace("ws:", "http:")}/conclave/recording-key`, {
      method, headers: { authorization: `Bearer ${token}`, "content-type": "application/json" }, body: body && JSON.stringify(body),
    });
    return { status: answer.status, text: await answer.text() };
  }, [node.url, method, token, body]);
  const start = (method, more) => node.server(method, { roomName: ROOM, ...more }, "Egress");
  const composite = (name) => start("StartRoomCompositeEgress", { fileOutputs: [{ filepath: name }] });
  const status = async (id) => (await node.server("ListEgress", { egressId: id }, "Egress")).items[0];
  const reaches = (id, wanted) => until(wanted, async () => {
    const info = await status(id);
    assert.ok(!["EGRESS_FAILED", "EGRESS_ABORTED"].includes(info.status), JSON.stringify(info));
    return info.status === wanted;
  }, PATIENCE_MS);
  const complete = async (id, name) => {
    await node.server("StopEgress", { egressId: id }, "Egress").catch((error) => { if (!/cannot be stopped/.test(error.message)) throw error; });
    await reaches(id, "EGRESS_COMPLETE");
    return path.join(recorder.files, name);
  };
  /** Of the recordings that run: sealed ones have their place elsewhere. */
  const lines = (kind) => recorder.manifests().map((manifest) => manifest.filter((line) => line.kind === kind));

  before(async () => {
    node = await MediaNode.start(Recorder.env);
    recorder = await Recorder.start();
    browser = await openChromium();
    ann = await enter("ann", { publishDefaults: { simulcast: false } });
    await enter("ben", { publishDefaults: { simulcast: false, videoCodec: "h264", backupCodec: false } });
    await enter("carol", { publishDefaults: { videoCodec: "vp9", backupCodec: false } });
    await ann.evaluate(() => globalThis.room.localParticipant.setMicrophoneEnabled(true));
    for (const [identity, count] of [["ann", 2], ["ben", 1], ["carol", 1]]) {
      const found = await until(`the tracks of ${identity}`, async () => {
        const { tracks = [] } = await node.server("GetParticipant", { room: ROOM, identity });
        return tracks.length === count && tracks.every((track) => track.mime_type && track.encryption === "GCM") && tracks;
      }, PATIENCE_MS);
      tracks[identity] = found.find((track) => track.type === "VIDEO");
    }
  });
  after(async () => {
    await browser?.close();
    await recorder?.stop();
    await node?.stop();
  });

  it("it is refused until somebody in the room grants the key, and says how", async () => {
    await assert.rejects(composite("never.mp4"), /failed_precondition.*grant of who holds the key.*POST \/conclave\/recording-key/);
    const outside = await key(ann, "POST", node.token(ROOM, "eve"), { key: KEY });
    assert.equal(outside.status, 403);
    await assert.rejects(composite("never.mp4"), /failed_precondition/);
    const granted = await key(ann, "POST", node.token(ROOM, "ann"), { key: KEY });
    assert.equal(granted.status, 200, granted.text);
    assert.ok(!granted.text.includes(KEY));
  });

  it("with the key, the file has the words and pictures that move", async () => {
    const ids = {
      room: (await composite("room.mp4")).egress_id,
      vp8: (await start("StartTrackEgress", { trackId: tracks.ann.sid, file: { filepath: "ann" } })).egress_id,
      h264: (await start("StartTrackEgress", { trackId: tracks.ben.sid, file: { filepath: "ben" } })).egress_id,
      vp9: (await start("StartTrackEgress", { trackId: tracks.carol.sid, file: { filepath: "carol" } })).egress_id,
    };
    for (const id of Object.values(ids)) await reaches(id, "EGRESS_ACTIVE");
    await until("media of each track", () => lines("segment").length === 4 && lines("segment").every((all) => all.length > 0), PATIENCE_MS);
    let best = 0, heard = "";
    for (let time = 0; time < TIMES_MAX; time++) await say(ann, path.join(speech, LINES.a1.file));
    await ann.waitForTimeout(2_000); // the tail is still on its way
    for (const [codec, name] of [["vp8", "ann.webm"], ["h264", "ben.mp4"], ["vp9", "carol.webm"]]) {
      const film = pictures(await complete(ids[codec], name));
      assert.ok(film.length > 5 && moving(film) > 0.5, `${name}: ${film.length} pictures, ${moving(film)} of them move`);
      assert.ok(film.every(green), `${name}: the camera's picture`);
    }
    const file = await complete(ids.room, "room.mp4");
    heard = recognise(file);
    best = wordsFound(LINES.a1.text, heard);
    assert.ok(best >= 0.6, heard);
    const film = pictures(file);
    assert.ok(film.length > 5 && moving(film) > 0.5, `${film.length} pictures, ${moving(film)} of them move`);
    // A mixed picture has a ground around the cameras: its left third has one of them.
    assert.ok(pictures(file, "crop=iw/4:ih/4:iw/8:3*ih/8,").some(green), "a camera's picture is in it");
  });

  it("the record says who granted which key and when, never the key; its evidence holds", async () => {
    const { recordings } = await recorder.get("/archive/v1/recordings").then((answer) => answer.json());
    assert.equal(recordings.length, 4);
    for (const { id } of recordings) {
      const bundle = path.join(recorder.folder, `${id}.tar`);
      fs.writeFileSync(bundle, Buffer.from(await (await recorder.get(`/archive/v1/recordings/${id}/bundle`)).arrayBuffer()));
      const report = JSON.parse(execFileSync(path.join(bin, "conclave"), ["verify", bundle, "--json"], { encoding: "utf8" }));
      assert.ok(report.ok, JSON.stringify(report));
      const manifest = parse(execFileSync("tar", ["-xOf", bundle, "manifest.jsonl"], { encoding: "utf8" }));
      const [grants, seen] = ["media_key", "track"].map((kind) => manifest.filter((line) => line.kind === kind));
      assert.deepEqual(grants.map(({ identity, display_name, granted, key_index }) => ({ identity, display_name, granted, key_index })), [{ identity: "ann", display_name: "ann", granted: true, key_index: 0 }]);
      assert.ok(Math.abs(grants[0].at_ms - Date.now()) < 900_000);
      assert.ok(seen.length > 0 && seen.every((line) => line.info.encryption === "gcm"));
      assert.ok(manifest.findIndex((line) => line.kind === "media_key") < manifest.findIndex((line) => line.kind === "segment"), "before anything that it opened");
      const { events } = await (await recorder.get(`/archive/v1/recordings/${id}`)).json();
      assert.ok(events.some((event) => event.type === "key_granted" && event.identity === "ann"), "officers see it");
    }
    const metrics = await (await fetch("http://127.0.0.1:8045/metrics")).text();
    const everything = [node.output, recorder.output, metrics];
    for (const folder of [node.folder, recorder.folder])
      for (const name of fs.readdirSync(folder, { recursive: true })) {
        const file = path.join(folder, name);
        if (fs.statSync(file).isFile()) everything.push(fs.readFileSync(file, "latin1"));
      }
    assert.ok(everything.some((text) => text.includes("media_key")) && !everything.some((text) => text.includes(KEY)), "the key is written nowhere");
  });

  it("once it is taken back nothing more of it is recorded", async () => {
    const { egress_id } = await composite("short.mp4");
    await reaches(egress_id, "EGRESS_ACTIVE");
    await until("media", () => lines("segment").some((all) => all.length > 0), PATIENCE_MS);
    const taken = await key(ann, "DELETE", node.token(ROOM, "ann"));
    assert.deepEqual([taken.status, JSON.parse(taken.text).takenBack], [200, 1]);
    await until("the record says so", () => lines("media_key").some((grants) => grants.at(-1)?.granted === false), PATIENCE_MS);
    await say(ann, path.join(speech, LINES.b1.file));
    const heard = recognise(await complete(egress_id, "short.mp4"));
    assert.ok(wordsFound(LINES.b1.text, heard) < 0.2, heard);
    await assert.rejects(composite("never.mp4"), /failed_precondition.*grant of who holds the key/);
  });
});
