// LiveKit's unmodified client and server API on the media node alone: join, words, data, data tracks, RPC, resume, full reconnect, encryption, removal.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { listen, openChromium, openPage, say, withVoice } from "../lib/browser.mjs";
import { MediaNode } from "../lib/livekit.mjs";
import { LINES, recognise, speech, wordsFound } from "../lib/speech.mjs";
import { until } from "../lib/system.mjs";

/** On a machine that is busy with other things, browsers drop sounds: then it is said again. */
const TIMES_MAX = 4;
const PATIENCE_MS = 90_000;

describe("LiveKit's own client on the media node", { concurrency: false, timeout: 600_000 }, () => {
  let node, browser, alice, bob;

  const enter = async (room, identity, options = {}, grant = {}) => {
    const page = await openPage(browser);
    await withVoice(page);
    await page.goto(node.page);
    await page.evaluate(([url, token, options]) => globalThis.enter(url, token, options), [node.url, node.token(room, identity, grant), options]);
    return page;
  };
  const logged = (page, name) => page.evaluate((name) => globalThis.logged(name), name);
  const voices = (page) => page.evaluate(() => [...document.querySelectorAll("audio")].filter((element) => element.srcObject?.active).length);
  /** The best share of a line's words that the listener understands. */
  const understood = async (talker, listener, line, enough) => {
    let best = 0, heard;
    for (let time = 0; time < TIMES_MAX && best < enough; time++) {
      const stop = await listen(listener, path.join(node.folder, `${line}-${time}.wav`));
      await say(talker, path.join(speech, LINES[line].file));
      await listener.waitForTimeout(2_000); // the tail is still in the jitter buffer
      heard = recognise(await stop());
      best = Math.max(best, wordsFound(LINES[line].text, heard));
    }
    return { best, heard };
  };

  before(async () => {
    node = await MediaNode.start();
    browser = await openChromium();
    alice = await enter("story", "alice", { adaptiveStream: true, dynacast: true });
    bob = await enter("story", "bob", { adaptiveStream: true, dynacast: true });
    for (const page of [alice, bob]) await page.evaluate(() => globalThis.room.localParticipant.setMicrophoneEnabled(true));
    for (const page of [alice, bob]) await until("the other's voice is there", async () => (await voices(page)) === 1, PATIENCE_MS);
  });
  after(async () => {
    await browser?.close();
    await node?.stop();
  });

  it("each hears the other's words", async () => {
    const [one, other] = [await understood(alice, bob, "a1", 0.6), await understood(bob, alice, "b1", 0.6)];
    assert.ok(one.best >= 0.6 && other.best >= 0.6, `${one.heard} | ${other.heard}`);
  });

  it("data and methods reach the other, and a server's too", async () => {
    await bob.evaluate(() => globalThis.room.localParticipant.publishData(new TextEncoder().encode("hello"), { reliable: true, topic: "chat" }));
    await until("the words", async () => (await logged(alice, "Data")).some(([, text, from, topic]) => text === "hello" && from === "bob" && topic === "chat"), PATIENCE_MS);
    await node.server("SendData", { room: "story", data: Buffer.from("from afar").toString("base64"), kind: "RELIABLE", topic: "news", destinationIdentities: ["alice"] });
    await until("the server's words", async () => (await logged(alice, "Data")).some(([, text, , topic]) => text === "from afar" && topic === "news"), PATIENCE_MS);
    assert.ok(!(await logged(bob, "Data")).some(([, text]) => text === "from afar"), "they were for Alice");
    await alice.evaluate(() => globalThis.room.registerRpcMethod("double", async ({ payload }) => payload + payload));
    assert.equal(await bob.evaluate(() => globalThis.room.localParticipant.performRpc({ destinationIdentity: "alice", method: "double", payload: "ab" })), "abab");
    assert.equal((await node.server("PerformRpc", { room: "story", destinationIdentity: "alice", method: "double", payload: "xy" })).payload, "xyxy");
    await assert.rejects(node.server("PerformRpc", { room: "story", destinationIdentity: "alice", method: "none", payload: "" }), /unimplemented/);
  });

  it("a broken socket is resumed, and a full reconnect starts over; the words go on", async () => {
    for (const scenario of ["signal-reconnect", "full-reconnect"]) {
      const before = (await logged(alice, "Reconnected")).length;
      await alice.evaluate((scenario) => { globalThis.room.simulateScenario(scenario); }, scenario);
      await until(`${scenario} is over`, async () => (await logged(alice, "Reconnected")).length > before, PATIENCE_MS);
      await until("the voices are there", async () => (await voices(bob)) === 1 && (await voices(alice)) === 1, PATIENCE_MS);
    }
    const { best, heard } = await understood(alice, bob, "c1", 0.5);
    assert.ok(best >= 0.5, heard);
  });

  it("data tracks reach who subscribes, over one peer connection and over two, and go on after reconnects", async () => {
    const carol = await enter("story", "carol", { singlePeerConnection: false });
    const pages = [[alice, "carol", "grip"], [carol, "alice", "pose"]];
    const follow = () => Promise.all(pages.map(([page, from, name]) => page.evaluate(([from, name]) => globalThis.follow(from, name), [from, name])));
    // Small frames and one of 50 kB, none of them broken, from now on.
    const flowing = () => Promise.all(pages.map(async ([page]) => {
      const before = await page.evaluate(() => globalThis.frames.length);
      const frames = () => page.evaluate((before) => globalThis.frames.slice(before), before);
      await until("small and large frames", async () => {
        const got = await frames();
        return [4, 50_000].every((wanted) => got.some(([, length]) => length === wanted));
      }, PATIENCE_MS);
      const got = await frames();
      assert.ok(got.every(([number, length]) => length === (number % 10 ? 4 : 50_000)), JSON.stringify(got));
    }));
    await alice.evaluate(() => globalThis.stream("pose"));
    await carol.evaluate(() => globalThis.stream("grip"));
    await follow();
    await flowing();
    for (const scenario of ["signal-reconnect", "full-reconnect"]) {
      const before = (await logged(alice, "Reconnected")).length;
      await alice.evaluate((scenario) => { globalThis.room.simulateScenario(scenario); }, scenario);
      await until(`${scenario} is over`, async () => (await logged(alice, "Reconnected")).length > before, PATIENCE_MS);
      // To others, whoever starts over has left: subscriptions end with it, and the track is there again.
      if (scenario === "full-reconnect") {
        await until("Alice is there", () => carol.evaluate(() => globalThis.room.remoteParticipants.has("alice")), PATIENCE_MS);
        await follow();
      }
      await flowing();
    }
    await carol.evaluate(() => globalThis.room.disconnect());
    await until("Carol's track is over", () => alice.evaluate(() => globalThis.frames.includes("over")), PATIENCE_MS);
  });

  it("pictures and sounds are held back together as long as their room says", async () => {
    await node.server("CreateRoom", { name: "held", minPlayoutDelay: 600, maxPlayoutDelay: 2000, syncStreams: true });
    const [ann, ben] = [await enter("held", "ann"), await enter("held", "ben")];
    await ann.evaluate(() => globalThis.room.localParticipant.enableCameraAndMicrophone());
    // Of the frames that came out since the last look.
    let last = {};
    const held = async (source) => {
      const now = await ben.evaluate((source) => globalThis.got("ann", source), source);
      const { held, emitted } = last[source] ?? { held: 0, emitted: 0 };
      last[source] = now;
      return now.emitted > emitted ? (now.held - held) / (now.emitted - emitted) : 0;
    };
    await until("the picture waits", async () => (await held("camera")) > 0.45, PATIENCE_MS);
    await until("the sound waits with it", async () => (await held("microphone")) > 0.3, PATIENCE_MS);
    for (const page of [ann, ben]) await page.evaluate(() => globalThis.room.disconnect());
  });

  it("what is encrypted end to end is understood with the key only", async () => {
    const key = "a key that no server has";
    const [ann, ben, eve] = [await enter("sealed", "ann", { key }), await enter("sealed", "ben", { key }), await enter("sealed", "eve")];
    await ann.evaluate(() => globalThis.room.localParticipant.setMicrophoneEnabled(true));
    for (const page of [ben, eve]) await until("the voice is there", async () => (await voices(page)) === 1, PATIENCE_MS);
    const { best, heard } = await understood(ann, ben, "a1", 0.6);
    assert.ok(best >= 0.6, heard);
    const stop = await listen(eve, path.join(node.folder, "eve.wav"));
    await say(ann, path.join(speech, LINES.a1.file));
    const overheard = recognise(await stop());
    assert.ok(wordsFound(LINES.a1.text, overheard) < 0.2, overheard);
    for (const page of [ann, ben, eve]) await page.evaluate(() => globalThis.room.disconnect());
  });

  it("a server removes somebody, and the room ends", async () => {
    await node.server("RemoveParticipant", { room: "story", identity: "bob" });
    await until("Bob is told", async () => (await logged(bob, "Disconnected")).length === 1, PATIENCE_MS);
    const reason = await bob.evaluate(() => globalThis.logged("Disconnected")[0][1] === LivekitClient.DisconnectReason.PARTICIPANT_REMOVED);
    assert.ok(reason);
    await node.server("DeleteRoom", { room: "story" });
    await until("Alice is told", async () => (await logged(alice, "Disconnected")).length === 1, PATIENCE_MS);
    assert.deepEqual((await node.server("ListRooms", { names: ["story"] })).rooms ?? [], []);
  });
});
