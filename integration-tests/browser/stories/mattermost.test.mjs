// A call of Mattermost's Calls plugin on our rtcd: pages that do what its client does, in Chromium, and a plugin that speaks its protocol.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { listen, openChromium, say } from "../lib/browser.mjs";
import { behind } from "../lib/link.mjs";
import { Plugin, RTC, Rtcd, joinCalls, openOrigin } from "../lib/mattermost.mjs";
import { Nat } from "../lib/nat.mjs";
import { LINES, recognise, speech, wordErrorRate } from "../lib/speech.mjs";
import { until } from "../lib/system.mjs";

const CALL = "call1";
/** How long the call of five is held: a turn of everybody by default, ten minutes before a release (`MINUTES=10`). */
const MINUTES = Number(process.env.MINUTES ?? 0);
const seen = (page) => page.evaluate(() => globalThis.calls.seen());

describe("a call of Mattermost's plugin", { concurrency: false, timeout: 300_000 + MINUTES * 120_000 }, () => {
  let rtcd, plugin, origin, browser, nat, folder;
  const people = {};

  before(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), "calls-story-"));
    rtcd = await Rtcd.start();
    plugin = await Plugin.connect("a-mattermost-site");
    origin = await openOrigin();
    nat = await Nat.open();
    browser = await openChromium();
    // The last one is an old client: no lock, and our offers over the plugin.
    for (const [name, options] of [["ann", {}], ["ben", {}], ["cem", { dcSignaling: false, locking: false }]]) {
      people[name] = await joinCalls(browser, origin, plugin, CALL, name, options);
    }
  });

  after(async () => {
    await browser?.close();
    nat?.close();
    origin?.close();
    plugin?.socket.terminate();
    await rtcd?.stop();
    fs.rmSync(folder, { recursive: true, force: true });
  });

  const understood = async (talker, listener, line) => {
    let rate = 1;
    // On a busy machine browsers drop sounds: then it is said again.
    for (let times = 0; times < 3 && rate > 0.4; times++) {
      const stop = await listen(listener, path.join(folder, `${line}-${times}.wav`));
      await say(talker, path.join(speech, LINES[line].file));
      await new Promise((wake) => setTimeout(wake, 500));
      const heard = recognise(await stop());
      rate = Math.min(rate, wordErrorRate(LINES[line].text, heard));
      console.log(`# ${line}: ${heard}`);
    }
    assert.ok(rate <= 0.4, `${rate} of the words are wrong`);
  };

  const moving = async (page, type, sender) => {
    const frames = async () => (await page.evaluate(() => globalThis.calls.pictures())).find((one) => one.type === type && one.sender === sender && one.width > 0)?.frames ?? 0;
    try {
      // A machine that is too busy to answer in time looks like a narrow way, which pictures wait for.
      const before = await until(`${sender}'s ${type} is there`, frames, 90_000);
      await until(`${sender}'s ${type} moves`, async () => (await frames()) > before + 5, 90_000);
    } catch (error) {
      error.message += `; the viewer: ${JSON.stringify(await page.evaluate(() => globalThis.calls.why()))}`;
      error.message += `; the server: ${(await (await fetch("http://127.0.0.1:8045/metrics")).text()).split("\n").filter((line) => line.startsWith("conclave_rtcd_core_total") && !line.endsWith(" 0")).join(" ")}`;
      throw error;
    }
  };

  it("everybody is in it, and the plugin can ask who", async () => {
    const sessions = await plugin.sessions(CALL);
    sessions.sort((a, b) => (a.SessionID < b.SessionID ? -1 : 1));
    assert.deepEqual(sessions.map((session) => session.SessionID), ["ann", "ben", "cem"]);
    assert.deepEqual(sessions[2].Props, { av1Support: false, channelID: "channel", dcSignaling: false });
    await until("pings are answered", async () => (await seen(people.ann)).pongs > 1);
  });

  it("two unmute at once, and each is understood by the others", async () => {
    await Promise.all([people.ann, people.ben].map((page) => page.evaluate(() => globalThis.calls.unmute())));
    for (const [listener, voices] of [["ann", 1], ["ben", 1], ["cem", 2]]) {
      await until(`${listener} has ${voices} voices`, () => people[listener].evaluate((voices) => document.querySelectorAll("audio").length === voices, voices));
    }
    await understood(people.ann, people.ben, "a1");
    await understood(people.ben, people.cem, "b1");
    const [byChannel, byPlugin] = [await seen(people.ann), await seen(people.cem)];
    assert.ok(byChannel.offersByChannel > 0 && byChannel.offersByPlugin === 0, JSON.stringify(byChannel));
    assert.ok(byPlugin.offersByPlugin > 0 && byPlugin.offersByChannel === 0, JSON.stringify(byPlugin));
  });

  it("the media map names who sends", async () => {
    const { map } = await seen(people.cem);
    assert.deepEqual(Object.values(map).map((entry) => `${entry.type} of ${entry.sender_id}`).sort(), ["voice of ann", "voice of ben"]);
  });

  it("who speaks is told to the plugin, and a mute is silence", async () => {
    await until("the plugin hears of a voice", async () => {
      await say(people.ann, path.join(speech, LINES.a1.file));
      return plugin.count("vad", "ann", RTC.voice_on) > 0;
    });
    const before = plugin.count("vad", "ann", RTC.voice_off);
    await people.ann.evaluate(() => globalThis.calls.mute());
    await until("the plugin hears that it is over", () => plugin.count("vad", "ann", RTC.voice_off) > before);
    await people.ann.evaluate(() => globalThis.calls.unmute());
    await understood(people.ann, people.cem, "a2");
  });

  it("a screen and a camera are told apart, and move", async () => {
    await people.ann.evaluate(() => globalThis.calls.shareScreen());
    await people.ben.evaluate(() => globalThis.calls.startVideo());
    await moving(people.ben, "screen", "ann");
    await moving(people.cem, "screen", "ann");
    await moving(people.ann, "video", "ben");
    await moving(people.cem, "video", "ben");
  });

  it("who comes late gets everything", async () => {
    people.dan = await joinCalls(browser, origin, plugin, CALL, "dan");
    await moving(people.dan, "screen", "ann");
    await moving(people.dan, "video", "ben");
    await until("dan hears both", () => people.dan.evaluate(() => document.querySelectorAll("audio").length === 2));
  });

  it("a screen ends, and another one takes its place", async () => {
    await people.ann.evaluate(() => globalThis.calls.unshareScreen());
    for (const name of ["ben", "cem", "dan"]) {
      await until(`${name} sees it end`, async () => !(await people[name].evaluate(() => globalThis.calls.pictures())).some((one) => one.type === "screen"));
    }
    await people.cem.evaluate(() => globalThis.calls.shareScreen());
    await moving(people.ann, "screen", "cem");
    await moving(people.dan, "screen", "cem");
  });

  it("the plugin's connection is lost and comes back: nobody's media stops", async () => {
    plugin.socket.terminate();
    const before = await people.ben.evaluate(() => globalThis.calls.packetsHeard());
    await until("media goes on", async () => (await people.ben.evaluate(() => globalThis.calls.packetsHeard())) > before + 50);
    await plugin.dial();
    plugin.send("reconnect", { sessionID: "cem" });
    // Over the plugin, which cem has its offers by. Eve is behind an address translator.
    people.eve = await joinCalls(browser, origin, plugin, CALL, "eve", { prepare: (page) => behind(page, nat) });
    await people.eve.evaluate(() => globalThis.calls.unmute());
    await understood(people.eve, people.cem, "b1");
  });

  it("somebody's outside address becomes another one: she is understood, and hears and sees on", async () => {
    await nat.rebind();
    await understood(people.eve, people.ann, "b1");
    await understood(people.ann, people.eve, "a1");
    await moving(people.eve, "screen", "cem");
    assert.equal(await people.eve.evaluate(() => globalThis.calls.state()), "connected/open");
    assert.equal(plugin.count("close", "eve"), 0);
  });

  it("it goes on, with another address each round: everybody hears and sees all the time, and nothing is offered", async () => {
    const [pages, end] = [Object.entries(people), Date.now() + MINUTES * 60_000];
    const offers = async () => Promise.all(pages.map(async ([, page]) => { const { offersByChannel, offersByPlugin } = await seen(page); return offersByChannel + offersByPlugin; }));
    const before = await offers();
    let rounds = 0;
    do {
      for (const [name, page] of pages) {
        const heard = await page.evaluate(() => globalThis.calls.packetsHeard());
        await until(`${name} hears on`, async () => (await page.evaluate(() => globalThis.calls.packetsHeard())) > heard + 50);
        assert.equal(await page.evaluate(() => globalThis.calls.state()), "connected/open", name);
      }
      for (const name of ["ann", "ben", "dan", "eve"]) await moving(people[name], "screen", "cem");
      for (const name of ["ann", "cem", "dan", "eve"]) await moving(people[name], "video", "ben");
      rounds++;
      await nat.rebind();
    } while (Date.now() < end);
    console.log(`# ${rounds} rounds, ${JSON.stringify(before)} offers before them`);
    assert.deepEqual(await offers(), before);
    await understood(people.ann, people.dan, "a2");
  });

  it("what clients report and what happened is in the figures", async () => {
    await people.ann.evaluate(() => globalThis.calls.reportStats());
    const figures = await until("figures", async () => {
      const text = await (await fetch("http://127.0.0.1:8045/metrics")).text();
      return text.includes('rtcd_rtc_client_rtt_count{groupID="a-mattermost-site"}') && text;
    });
    const value = (name, ...labels) => {
      const line = figures.split("\n").find((line) => line.startsWith(`${name}{`) && labels.every((label) => line.includes(label)));
      return Number(line?.split(" ").at(-1) ?? 0);
    };
    const group = 'groupID="a-mattermost-site"';
    assert.equal(value("rtcd_rtc_sessions_total", group), 5);
    assert.ok(value("rtcd_rtc_signaling_lock_locked_time_count", group) > 0);
    assert.ok(value("rtcd_ws_messages_total", 'clientID="a-mattermost-site"', 'type="vad"', 'direction="out"') > 0);
    for (const page of Object.values(people)) {
      const { problems, unknown } = await seen(page);
      assert.deepEqual([problems, unknown], [[], 0], "no offer came before its map");
    }
  });

  it("a drain cuts nobody off, and ends with the last who leaves", async () => {
    rtcd.process.kill("SIGTERM");
    await understood(people.eve, people.ann, "b1");
    assert.ok(!rtcd.ended());
    for (const name of Object.keys(people)) plugin.send("leave", { sessionID: name });
    await until("all are closed", () => Object.keys(people).every((name) => plugin.count("close", name) === 1));
    await until("rtcd ends", () => rtcd.ended());
    assert.equal(rtcd.process.exitCode, 0, rtcd.output.slice(-2000));
  });
});
