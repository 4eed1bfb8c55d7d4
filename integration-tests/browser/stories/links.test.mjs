// Words over a link that loses every fifth packet: recorded speech through the real node, sent twice, and Chromium's own jitter buffer.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { say } from "../lib/browser.mjs";
import { soundFigures } from "../lib/link.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { metric, until } from "../lib/system.mjs";
import { bobBehindALink, wrongWords } from "../lib/understand.mjs";

describe("words over a lossy link", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, bob, link;

  before(async () => {
    ({ stage, link, pages: { alice, bob } } = await bobBehindALink(["alice", "bob"]));
  });
  after(() => stage?.strike());

  const speak = (line) => say(alice, path.join(speech, LINES[line].file));

  it("who loses every fifth packet is sent sounds twice, and its browser takes both", async () => {
    await link.use("lossy-20");
    await until("the node answers Bob's losses", async () => {
      await speak("a3");
      return (await metric(/packets_with_redundancy/)) > 50;
    }, 90_000);
    const from = await soundFigures(bob);
    let since;
    await until("Bob's browser has both", async () => {
      await speak("a3");
      const now = await soundFigures(bob);
      since = Object.fromEntries(Object.entries(now).map(([name, count]) => [name, Math.round(count - from[name])]));
      // Most sounds were there already when they came again; of packets with one sound each hardly any is.
      return since.lost > 20 && since.spare > 50 && since.spare > since.received / 4;
    }, 90_000);
    console.log(`# Bob's browser: ${JSON.stringify(since)}`);
    const { down } = await link.use("lossy-20");
    assert.ok(down.lost > down.passed / 10, JSON.stringify(down));
  });

  it("and the words are understood", async () => {
    const { wrong, clean } = await wrongWords(["a2", "b1", "a1"].map((line) => [alice, line]), bob, stage.folder, 1.5);
    assert.ok(wrong <= 1.5 * clean, `${wrong} words wrong, ${clean} where nothing is lost`);
  });
});
