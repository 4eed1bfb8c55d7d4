// Four people and a shared screen, one of them over 64 kbit/s: recorded speech through the real node, Chromium's own jitter buffer, and
// words told by the test model.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { say } from "../lib/browser.mjs";
import { allHeard } from "../lib/link.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { metric, until } from "../lib/system.mjs";
import { bobBehindALink, wrongWords } from "../lib/understand.mjs";

const TALKS = [["alice", "a1"], ["carol", "b1"], ["olga", "a2"]];

describe("four people and a share over 64 kbit/s", { concurrency: false, timeout: 400_000 }, () => {
  let stage, bob, link, pages;

  before(async () => {
    ({ stage, link, pages } = await bobBehindALink(["alice", "carol", "olga", "bob"]));
    ({ bob } = pages);
    await pages.alice.getByTestId("share-toggle").click();
    await bob.locator('[data-testid="tile"][data-screen="true"] video').waitFor({ timeout: 20_000 });
    await until("the share moves", async () => (await frames()) > 1);
  });
  after(() => stage?.strike());

  const speak = (name, line) => say(pages[name], path.join(speech, LINES[line].file));
  const frames = () => bob.locator('[data-testid="tile"][data-screen="true"] video').evaluate((video) => video.getVideoPlaybackQuality().totalVideoFrames);

  it("every talker is understood", async () => {
    await link.use("ddil-64k");
    await until("the node sees what the link carries", async () => {
      await speak("alice", "a3");
      return (await metric(/packets_out_of_earshot/)) > 100;
    }, 90_000);
    await allHeard(bob);
    const { wrong, clean } = await wrongWords(TALKS.map(([name, line]) => [pages[name], line]), bob, stage.folder, 2);
    assert.ok(wrong <= 2 * clean, `${wrong} words wrong, ${clean} where nothing is lost`);
  });

  it("and the share still moves", async () => {
    const before = await frames();
    await until("a new picture", async () => (await frames()) > before, 90_000);
    const { down } = await link.use("");
    console.log(`# link ${JSON.stringify(down)}`);
    assert.ok(down.lost > 0, JSON.stringify(down));
  });
});
