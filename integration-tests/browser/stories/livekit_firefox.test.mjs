// LiveKit's unmodified client in Firefox, with Chromium in the same room of the media node alone: sound and pictures both ways, layers, reconnects, encryption.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, firefox, listen, openChromium, openPage, say, withVoice } from "../lib/browser.mjs";
import { MediaNode } from "../lib/livekit.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { until } from "../lib/system.mjs";

const PATIENCE_MS = 120_000;
/** CSS pixels in which a picture of LiveKit's usual 1280 × 720 is shown: its layers are 320, 640 and 1280 wide. */
const SMALL = 240, LARGE = 1200;

describe("LiveKit's own client in Firefox on the media node", { concurrency: false, timeout: 900_000 }, () => {
  let node, browser, fox, alice, bob;

  const go = async (page, room, identity, options) => {
    await page.goto(node.page);
    await page.evaluate((ask) => globalThis.enter(...ask), [node.url, node.token(room, identity), options]);
    return page;
  };
  const chromium = async (room, identity, options) => {
    const page = await openPage(browser, { viewport: { width: 1280, height: 720 } });
    await withVoice(page);
    return go(page, room, identity, options);
  };
  const got = (page, who, source) => page.evaluate((ask) => globalThis.got(...ask), [who, source]);
  const opens = (page) => page.evaluate(async () => {
    await room.localParticipant.setMicrophoneEnabled(true);
    await room.localParticipant.setCameraEnabled(true);
  });
  /** Waits until the page decodes somebody's camera, shown `width` wide, in pictures as wide as one of `wide`, and goes on to. */
  const decodes = async (page, who, wide, width) => {
    let last, frames;
    try {
      await until(`${who}'s pictures ${wide} wide`, async () => {
        await page.evaluate((ask) => globalThis.show(...ask), [who, width]);
        return wide.includes((last = await got(page, who, "camera")).wide);
      }, PATIENCE_MS);
      ({ frames } = last);
      await until(`${who}'s pictures move on`, async () => (last = await got(page, who, "camera")).frames > frames + 20, PATIENCE_MS);
    } catch (error) {
      throw new Error(`${error.message}: ${JSON.stringify(last)}`);
    }
  };
  /** Energy of what Firefox decodes of Alice's voice: without a sound card it runs neither AudioContext nor recorder. */
  const foxHears = async () => {
    const energy = async () => (await got(bob, "alice", "microphone")).energy;
    const before = await energy();
    await say(alice, path.join(speech, LINES.a3.file));
    await alice.waitForTimeout(500); // the tail is still in the jitter buffer
    const heard = (await energy()) - before;
    await alice.waitForTimeout(3_000); // as long as the line
    return { heard, silence: (await energy()) - before - heard };
  };
  /** Waits until Alice's page hears the steady tone of Firefox's fake microphone. */
  const foxIsHeard = () => until("Firefox's tone is heard", async () => {
    const file = path.join(node.folder, "tone.wav");
    const stop = await listen(alice, file);
    await alice.waitForTimeout(2_000);
    await stop();
    const raw = execFileSync("ffmpeg", ["-nostdin", "-loglevel", "error", "-i", file, "-ac", "1", "-f", "f32le", "-"], { maxBuffer: 1 << 26 });
    const samples = new Float32Array(raw.buffer, raw.byteOffset, Math.floor(raw.length / 4));
    return Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length) > HEARD;
  }, PATIENCE_MS);
  const bothWays = async () => {
    // The client opens the camera anew for a full reconnect, and Firefox (ESR 153) then gives its fake one in 640 × 480.
    await decodes(alice, "bob", [1280, 640], LARGE);
    await decodes(bob, "alice", [320], SMALL);
    await foxIsHeard();
    const { heard, silence } = await foxHears();
    assert.ok(heard > 0.01, `no energy while Alice spoke: ${heard}`);
    assert.ok(silence < heard / 10, `as loud while nobody spoke: ${silence} after ${heard}`);
  };

  before(async () => {
    node = await MediaNode.start();
    browser = await openChromium();
    fox = await firefox({ "media.webrtc.codec.video.av1.enabled": false });
    alice = await chromium("story", "alice", { adaptiveStream: true, dynacast: true });
    bob = await go(await fox.newPage(), "story", "bob", { adaptiveStream: true, dynacast: true });
    for (const page of [alice, bob]) await opens(page);
  });
  after(async () => {
    await fox?.close();
    await browser?.close();
    await node?.stop();
  });

  it("sound and pictures go both ways", bothWays);

  it("Firefox's camera comes in layers: by the size that is shown, and none that nobody looks at", async () => {
    for (const [width, wide, wanted] of [[LARGE, 1280, "f"], [SMALL, 320, "q"], [LARGE, 1280, "f"]]) {
      await decodes(alice, "bob", [wide], width);
      const sent = () => bob.evaluate(() => globalThis.sent("camera"));
      await until(`${wanted} is sent, and no larger layer`, async () => {
        const from = await sent();
        await until("pictures move on", async () => (await sent())[wanted].frames > from[wanted].frames + 20, PATIENCE_MS);
        const to = await sent();
        return wanted === "f" || ["h", "f"].every((rid) => !to[rid].active && to[rid].frames === from[rid].frames);
      }, PATIENCE_MS);
    }
  });

  it("Firefox gets the layer that is enough for the size it shows", async () => {
    for (const [width, wide] of [[LARGE, 1280], [SMALL, 320], [LARGE, 1280]]) await decodes(bob, "alice", [wide], width);
  });

  it("a broken socket is resumed, and a full reconnect starts over; sound and pictures go on", async () => {
    for (const scenario of ["signal-reconnect", "full-reconnect"]) {
      const before = await bob.evaluate(() => globalThis.logged("Reconnected").length);
      await bob.evaluate((scenario) => { globalThis.room.simulateScenario(scenario); }, scenario);
      await until(`${scenario} is over`, async () => (await bob.evaluate(() => globalThis.logged("Reconnected").length)) > before, PATIENCE_MS);
      await bothWays();
    }
  });

  it("who cannot decode a camera's first codec sees it in the second; nobody else does, and it ends with them", async () => {
    const ann = await chromium("codecs", "ann", { dynacast: true });
    const ben = await chromium("codecs", "ben");
    const eve = await go(await fox.newPage(), "codecs", "eve");
    const fay = await go(await fox.newPage(), "codecs", "fay", { singlePeerConnection: false });
    // With the client's own defaults: AV1, and VP8 for those who ask for it.
    await ann.evaluate(() => room.localParticipant.setCameraEnabled(true, { resolution: { width: 640, height: 360 } }, { videoCodec: "av1" }));
    const sees = async (page, codec) => {
      let last;
      try {
        await until(`${codec} is decoded`, async () => {
          const from = await got(page, "ann", "camera");
          await page.evaluate(() => new Promise((later) => setTimeout(later, 1000)));
          last = await got(page, "ann", "camera");
          return last.codec === codec && last.frames > from.frames + 3;
        }, PATIENCE_MS);
      } catch (error) {
        const who = await page.evaluate(() => room.localParticipant.identity);
        throw new Error(`${error.message} by ${who}: ${JSON.stringify(last)}`);
      }
    };
    const second = () => ann.evaluate(() => {
      const { simulcastCodecs } = room.localParticipant.getTrackPublication("camera").track;
      return [...simulcastCodecs.values()].map(({ codec, sender }) => ({ codec, active: sender?.getParameters().encodings.some(({ active }) => active) ?? false }));
    });
    await sees(ben, "video/AV1");
    for (const page of [eve, fay]) await sees(page, "video/VP8");
    assert.deepEqual(await second(), [{ codec: "vp8", active: true }]);
    const published = (page) => page.evaluate(() => [...room.remoteParticipants.get("ann").trackPublications.keys()]);
    for (const page of [eve, fay]) assert.deepEqual(await published(page), await published(ben), "one track, of one name");
    assert.equal((await published(eve)).length, 1);
    await sees(ben, "video/AV1");
    await eve.evaluate(() => globalThis.room.disconnect());
    await sees(fay, "video/VP8");
    await fay.evaluate(() => globalThis.room.disconnect());
    await until("nobody needs the second codec", async () => !(await second())[0].active, PATIENCE_MS);
    await sees(ben, "video/AV1");
    for (const page of [ann, ben]) await page.evaluate(() => globalThis.room.disconnect());
  });

  it("what is encrypted end to end is seen with the key only", async () => {
    const key = "a key that no server has";
    const ann = await chromium("sealed", "ann", { key });
    const ben = await go(await fox.newPage(), "sealed", "ben", { key });
    const eve = await go(await fox.newPage(), "sealed", "eve", { key: "another one" });
    for (const page of [ann, ben]) await opens(page);
    await decodes(ben, "ann", [1280], LARGE);
    await decodes(ann, "ben", [1280], LARGE);
    for (const who of ["ann", "ben"]) {
      const from = await got(eve, who, "camera");
      let to;
      await until(`${who}'s packets come to Eve`, async () => (to = await got(eve, who, "camera")).packets > from.packets + 100, PATIENCE_MS);
      assert.equal(to.frames, 0, JSON.stringify({ who, from, to }));
    }
    for (const page of [ann, ben, eve]) await page.evaluate(() => globalThis.room.disconnect());
  });
});
