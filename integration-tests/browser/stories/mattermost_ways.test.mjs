// A call of Mattermost's plugin whose ways change: a line gets narrow and wide again, somebody's address becomes another one, a network is
// taken away. Its clients restart nothing and ask for nothing: all of it is the server's to follow.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, afterEach, before, describe, it } from "node:test";
import { openChromium } from "../lib/browser.mjs";
import { BadLink, behind, pictureFigures } from "../lib/link.mjs";
import { Plugin, RTC, Rtcd, joinCalls, openOrigin } from "../lib/mattermost.mjs";
import { Nat } from "../lib/nat.mjs";
import { metric, until } from "../lib/system.mjs";

const seen = (page) => page.evaluate(() => globalThis.calls.seen());
const ip = (...words) => execFileSync("ip", words, { stdio: "pipe" });

/** An address for pages, and the way out; nothing else has it. */
const arrive = (name, address) => {
  ip("link", "add", name, "type", "veth", "peer", "name", `${name}-far`);
  ip("addr", "add", `${address}/24`, "dev", name);
  ip("link", "set", name, "up");
  ip("link", "set", `${name}-far`, "up");
  ip("route", "replace", "default", "dev", name, "src", address);
};

describe("ways of a call of Mattermost's plugin that change", { concurrency: false, timeout: 300_000 }, () => {
  let rtcd, plugin, origin, browser, link, nat;

  before(async () => {
    rtcd = await Rtcd.start();
    plugin = await Plugin.connect("a-mattermost-site");
    origin = await openOrigin();
  });

  // Also of a test that failed: what is left open keeps this process from ending.
  afterEach(async () => {
    await browser?.close();
    await link?.close();
    nat?.close();
    browser = link = nat = undefined;
  });

  after(async () => {
    origin?.close();
    plugin?.socket.terminate();
    await rtcd?.stop();
  });

  it("a screen in two layers: the narrow line gets the small one, the wide one the best, without an offer", async () => {
    browser = await openChromium();
    link = await BadLink.open();
    const ann = await joinCalls(browser, origin, plugin, "layers", "ann");
    const ben = await joinCalls(browser, origin, plugin, "layers", "ben", { prepare: (page) => behind(page, link) });
    await ann.evaluate(() => globalThis.calls.shareScreen({ simulcast: true }));
    const frames = async () => (await ben.evaluate(() => globalThis.calls.pictures())).find((one) => one.type === "screen" && one.width > 0)?.frames ?? 0;
    // Which layer it is tells the rate of its frames beside those that are sent, as soon as these are far enough apart: both have one size, and
    // a busy browser sends few of either.
    const layer = async () => {
      const [before, from] = [await ann.evaluate(() => globalThis.calls.framesSent()), await frames()];
      let low, high, got;
      for (let seconds = 0; seconds < 3 || (seconds < 20 && !(high - low >= 12)); seconds++) {
        await ben.waitForTimeout(1_000);
        const [after, to] = [await ann.evaluate(() => globalThis.calls.framesSent()), await frames()];
        [low, high, got] = [after.l - before.l, after.h - before.h, to - from];
      }
      console.log(`# frames sent: ${low} of l, ${high} of h; shown: ${got}`);
      assert.ok(high - low >= 12, "the layers differ");
      if (got === 0) return "none";
      return got > (low + high) / 2 ? "h" : "l";
    };
    await until("the best layer is shown", async () => (await layer()) === "h", 90_000);
    const [offers, { plis }] = [(await seen(ben)).offersByChannel, await pictureFigures(ben)];
    const switches = await metric(/layer_switches/);
    await link.use("shared-line");
    await until("the small layer is shown", async () => (await layer()) === "l", 90_000);
    await link.use("");
    await until("the best layer is shown again", async () => (await layer()) === "h", 90_000);
    assert.equal((await seen(ben)).offersByChannel, offers, "no offer is needed to change the layer");
    assert.ok((await metric(/layer_switches/)) >= switches + 2);
    // The key frames of the changes are asked for by the server; a viewer whose picture broke would ask every second or so.
    const figures = await pictureFigures(ben);
    console.log(`# ben's browser: ${JSON.stringify(figures)}`);
    assert.ok(figures.plis <= plis + 2, JSON.stringify(figures));
    for (const page of [ann, ben]) {
      assert.deepEqual((await seen(page)).problems, []);
      await page.context().close();
    }
    for (const session of ["ann", "ben"]) plugin.send("leave", { sessionID: session });
  });

  /** Two who speak, one of them with a screen: `flowing` waits until everything comes again. */
  const twoWithAScreen = async (call, names, options = {}) => {
    const people = {};
    for (const name of names) people[name] = await joinCalls(browser, origin, plugin, call, name, options[name]);
    await Promise.all(Object.values(people).map((page) => page.evaluate(() => globalThis.calls.unmute())));
    const [sharer, viewer] = names.map((name) => people[name]);
    await sharer.evaluate(() => globalThis.calls.shareScreen());
    const heard = (page) => page.evaluate(() => globalThis.calls.packetsHeard());
    const screens = async () => (await viewer.evaluate(() => globalThis.calls.pictures())).filter((one) => one.type === "screen" && one.width > 0);
    // Key frames alone are slides: what the server shows where it believes a way to be narrow.
    const frames = async () => {
      const [one] = await screens();
      return one ? one.frames - one.keys : 0;
    };
    const flowing = async (what) => {
      for (const [name, page] of Object.entries(people)) {
        const before = await heard(page);
        await until(`${name} hears ${what}`, async () => (await heard(page)) > before + 50, 60_000);
      }
      const before = await frames();
      await until(`the screen moves ${what}`, async () => (await frames()) > before + 10);
    };
    const goesOn = async () => {
      for (const [name, page] of Object.entries(people)) {
        assert.equal(await page.evaluate(() => globalThis.calls.state()), "connected/open");
        assert.equal(plugin.count("close", name), 0);
        assert.deepEqual((await seen(page)).problems, []);
      }
      // Also what is said goes on: a mute, and a change of what is sent.
      await sharer.evaluate(() => globalThis.calls.mute());
      await sharer.evaluate(() => globalThis.calls.unshareScreen());
      await until("the screen is gone", async () => (await screens()).length === 0);
      assert.ok(plugin.count("vad", names[0], RTC.voice_off) > 0);
    };
    await flowing("at first");
    return { people, flowing, goesOn };
  };

  it("an address translator gives somebody another outside address, and the call goes on", async () => {
    nat = await Nat.open();
    browser = await openChromium();
    const { flowing, goesOn } = await twoWithAScreen("translated", ["fay", "gus"], { fay: { prepare: (page) => behind(page, nat) } });
    for (let times = 1; times <= 3; times++) {
      await nat.rebind();
      await flowing(`after change ${times}`);
    }
    await goesOn();
  });

  it("the network that a page used is taken away, and the call goes on over the other one", async () => {
    // The story has a network of its own (tools/x/test.sh): its wire is nobody's way here.
    ip("addr", "flush", "dev", "wire0");
    arrive("first0", "10.98.0.1");
    arrive("second0", "10.97.0.1");
    browser = await openChromium({ loopback: false });
    const { people, flowing, goesOn } = await twoWithAScreen("roaming", ["dan", "eve"]);
    const way = () => people.dan.evaluate(() => globalThis.calls.way());
    const before = await way();
    const begun = Date.now();
    ip("link", "del", before === "10.98.0.1" ? "first0" : "second0");
    try {
      await flowing("after the change");
    } catch (error) {
      const states = await Promise.all(Object.values(people).map((page) => page.evaluate(async () => [globalThis.calls.state(), await globalThis.calls.way()])));
      throw new Error(`${error.message}: ${JSON.stringify({ before, states })}`);
    }
    console.log(`# from ${before} to ${await way()}: everything flows again after ${((Date.now() - begun) / 1_000).toFixed(1)} s`);
    assert.notEqual(await way(), before);
    await goesOn();
  });
});
