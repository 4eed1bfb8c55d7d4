// LiveKit's unmodified client on the media node alone: a camera in three layers, who gets which, and which are not sent at all.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { openChromium, openPage } from "../lib/browser.mjs";
import { MediaNode } from "../lib/livekit.mjs";
import { until } from "../lib/system.mjs";

const PATIENCE_MS = 120_000;
/** Widths of LiveKit's layers of a camera of 1280 × 720, by rid. */
const WIDTHS = { q: 320, h: 640, f: 1280 };
/** CSS pixels in which the client shows a picture, and the layer that is enough for it. */
const SMALL = 240, LARGE = 1200;

describe("a camera in layers, by LiveKit's own client", { concurrency: false, timeout: 900_000 }, () => {
  let node, browser, alice, bob, carol;

  const enter = async (identity, options) => {
    const page = await openPage(browser, { viewport: { width: 1280, height: 720 } });
    await page.goto(node.page);
    await page.evaluate(([url, token, options]) => globalThis.enter(url, token, options), [node.url, node.token("layers", identity), options]);
    return page;
  };
  const sees = (page) => until("Alice's camera is there", () => page.evaluate(() => globalThis.picture("alice") !== undefined), PATIENCE_MS);
  const show = (page, width) => page.evaluate((width) => globalThis.show("alice", width), width);
  const got = (page) => page.evaluate(() => globalThis.got("alice", "camera"));
  const sent = () => alice.evaluate(() => globalThis.sent("camera"));
  /** Waits until the page decodes pictures this wide, and goes on to: what they refer to is there. `width`: shown so large, in whichever element it is. */
  const decodes = async (page, wide, width) => {
    let last;
    try {
      await until(`pictures ${wide} wide`, async () => {
        if (width) await show(page, width);
        return (last = await got(page)).wide === wide;
      }, PATIENCE_MS);
      const { frames } = last;
      await until("the picture moves on", async () => (last = await got(page)).frames > frames + 20 && last.wide === wide, PATIENCE_MS);
    } catch (error) {
      throw new Error(`${error.message}: ${JSON.stringify({ last, sent: await sent() })}`);
    }
  };
  /** Waits until Alice's browser sends these layers and no other: those move on by 20 pictures while the others stand still. */
  const sends = async (...rids) => {
    let from, to;
    const all = Object.keys(WIDTHS);
    try {
      await until(`layers ${rids} are sent, and no other`, async () => {
        from = await sent();
        if (!all.every((rid) => from[rid]?.active === rids.includes(rid))) return false;
        await until("what is sent moves on", async () => {
          to = await sent();
          return rids.every((rid) => to[rid].frames > from[rid].frames + 20);
        }, PATIENCE_MS);
        if (rids.length === 0) await alice.waitForTimeout(1_000);
        to = await sent();
        return all.every((rid) => rids.includes(rid) || to[rid].frames === from[rid].frames);
      }, PATIENCE_MS);
    } catch (error) {
      throw new Error(`${error.message}: ${JSON.stringify({ from, to })}`);
    }
  };

  before(async () => {
    node = await MediaNode.start();
    browser = await openChromium();
    alice = await enter("alice", { dynacast: true });
    bob = await enter("bob", { adaptiveStream: true });
    await alice.evaluate(() => globalThis.room.localParticipant.setCameraEnabled(true, { resolution: LivekitClient.VideoPresets.h720.resolution }));
    await sees(bob);
  });
  after(async () => {
    await browser?.close();
    await node?.stop();
  });

  it("three layers are announced", async () => {
    const tracks = (await node.server("ListParticipants", { room: "layers" })).participants.find(({ identity }) => identity === "alice").tracks;
    assert.equal(tracks.length, 1);
    assert.ok(tracks[0].simulcast);
    assert.deepEqual(tracks[0].layers.map(({ width }) => width).sort((one, other) => one - other), Object.values(WIDTHS));
  });

  it("a small picture gets the small layer, a large one the large layer, and back", async () => {
    for (const [width, wide] of [[SMALL, WIDTHS.q], [LARGE, WIDTHS.f], [SMALL, WIDTHS.q]]) {
      await decodes(bob, wide, width);
    }
  });

  it("layers nobody looks at are not sent, and come back", async () => {
    await sends("q");
    await decodes(bob, WIDTHS.f, LARGE);
    await show(bob, 0);
    await sends();
    await show(bob, SMALL);
    await sends("q");
    await decodes(bob, WIDTHS.q);
  });

  it("each viewer gets a layer of its own", async () => {
    // A client that says a quality, not pixels.
    carol = await enter("carol", {});
    await sees(carol);
    const quality = (name) => carol.evaluate((name) => {
      globalThis.room.remoteParticipants.get("alice").getTrackPublication("camera").setVideoQuality(LivekitClient.VideoQuality[name]);
    }, name);
    for (const [name, wide] of [["HIGH", WIDTHS.f], ["MEDIUM", WIDTHS.h], ["LOW", WIDTHS.q], ["HIGH", WIDTHS.f]]) {
      await quality(name);
      await decodes(carol, wide);
      await decodes(bob, WIDTHS.q);
    }
    await quality("MEDIUM");
    await decodes(bob, WIDTHS.f, LARGE);
    await decodes(carol, WIDTHS.h);
  });

  it("all of it goes on after a resume and after a full reconnect of either side", async () => {
    for (const page of [alice, bob]) {
      for (const scenario of ["signal-reconnect", "full-reconnect"]) {
        const before = (await page.evaluate(() => globalThis.logged("Reconnected"))).length;
        await page.evaluate((scenario) => { globalThis.room.simulateScenario(scenario); }, scenario);
        await until(`${scenario} is over`, async () => (await page.evaluate(() => globalThis.logged("Reconnected"))).length > before, PATIENCE_MS);
        await decodes(bob, WIDTHS.f, LARGE);
        await decodes(bob, WIDTHS.q, SMALL);
      }
    }
    await carol.evaluate(() => globalThis.room.disconnect());
    await sends("q");
  });
});
