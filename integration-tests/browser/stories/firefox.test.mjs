// Firefox joins the same call as Chromium; each hears the other.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { firefox, joinCall, listen, say } from "../lib/browser.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { PASSWORD, until } from "../lib/system.mjs";

describe("Firefox and Chromium in one call", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, fox, page, callId;

  before(async () => {
    stage = await Stage.set();
    const rest = await stage.person("alice");
    callId = await stage.call(rest);
    alice = await stage.page("alice");
    await joinCall(alice, stage.system, callId);
    fox = await firefox();
    stage.closers.push(() => fox.close());
  });
  after(() => stage?.strike());

  it("Firefox signs in and joins", async () => {
    page = await fox.newPage();
    await page.evaluateOnNewDocument(() => {
      const Real = globalThis.RTCPeerConnection;
      globalThis.peers = [];
      globalThis.RTCPeerConnection = class extends Real {
        constructor(...settings) {
          super(...settings);
          globalThis.peers.push(this);
        }
      };
    });
    await page.goto(`${stage.system.http}/signin`);
    await page.waitForSelector('[data-testid="username"]');
    await page.type('[data-testid="username"]', "bob");
    await page.type('[data-testid="password"]', PASSWORD);
    await page.click('[data-testid="submit"]');
    await until("signed in", async () => !(await page.evaluate(() => location.pathname)).startsWith("/signin"));
    await page.goto(`${stage.system.http}/call/${callId}`);
    await page.waitForSelector('[data-testid="join-call"]');
    await page.click('[data-testid="join-call"]');
    await page.waitForSelector('[data-testid="call-page"][data-phase="in"][data-media="connected"]', { timeout: 30_000 });
  });

  it("Firefox hears what Chromium says", async () => {
    await until("the sound is attached", () => page.evaluate(() => document.querySelectorAll('[data-testid="remote-audio"]').length > 0));
    // Without a sound card Firefox runs neither AudioContext nor recorder; its own statistics tell the decoded sound's energy.
    const energy = () => page.evaluate(async () => {
      let sum = 0;
      for (const peer of globalThis.peers) {
        for (const report of (await peer.getStats()).values()) if (report.type === "inbound-rtp" && report.kind === "audio") sum += report.totalAudioEnergy ?? 0;
      }
      return sum;
    });
    const before = await energy();
    await say(alice, path.join(speech, LINES.a3.file));
    await alice.waitForTimeout(500); // the tail is still in the jitter buffer
    const heard = (await energy()) - before;
    await alice.waitForTimeout(3_000); // as long as the line
    const silence = (await energy()) - before - heard;
    assert.ok(heard > 0.01, `no energy while Alice spoke: ${heard}`);
    assert.ok(silence < heard / 10, `as loud while nobody spoke: ${silence} after ${heard}`);
  });

  it("Chromium hears Firefox's microphone", async () => {
    // Firefox's fake microphone is a steady tone.
    const loud = await until("sound comes", async () => {
      const file = path.join(stage.folder, "tone.wav");
      const stop = await listen(alice, file);
      await alice.waitForTimeout(2_000);
      await stop();
      const { execFileSync } = await import("node:child_process");
      const raw = execFileSync("ffmpeg", ["-nostdin", "-loglevel", "error", "-i", file, "-ac", "1", "-f", "f32le", "-"], { maxBuffer: 1 << 26 });
      const samples = new Float32Array(raw.buffer, raw.byteOffset, Math.floor(raw.length / 4));
      return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length) > 0.005;
    }, 40_000);
    assert.ok(loud);
  });

  it("the negotiated protection is AES-GCM for both", async () => {
    const ops = await stage.person("otto");
    const text = JSON.stringify(await ops.get("/ops/calls"));
    const profiles = [...text.matchAll(/AEAD_AES_\d+_GCM|AES_CM_128_HMAC_SHA1_80/g)].map((found) => found[0]);
    assert.ok(profiles.length >= 2, text);
    assert.ok(profiles.every((profile) => profile.startsWith("AEAD")), profiles.join());
  });
});
