// The media node is killed under three people: all come back at once, and everybody hears and sees everybody again.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, framesOf, joinCall, loudness, noticesLoss, say, tilesOf } from "../lib/browser.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { until } from "../lib/system.mjs";

for (const connections of ["one", "two"]) {
  describe(`rejoin with ${connections === "one" ? "one connection for both directions" : "a connection per direction"}`, { concurrency: false, timeout: 300_000 }, () => {
    let stage, callId;
    const pages = {}, ids = {};

    before(async () => {
      stage = await Stage.set();
      const rest = await stage.person("alice");
      callId = await stage.call(rest);
      for (const name of ["alice", "bob", "carol"]) {
        pages[name] = await stage.page(name, { stored: { connections } });
        await pages[name].addInitScript(() => {
          const Real = globalThis.RTCPeerConnection;
          globalThis.opened = 0;
          globalThis.RTCPeerConnection = class extends Real {
            constructor(...settings) {
              super(...settings);
              globalThis.opened += 1;
            }
          };
        });
        await joinCall(pages[name], stage.system, callId);
      }
      const { participants } = await rest.get(`/calls/${callId}`);
      for (const name of Object.keys(pages)) ids[name] = participants.find((person) => person.display_name.toLowerCase().startsWith(name)).identity;
      await pages.alice.getByTestId("camera-toggle").click();
      await everybodyIsThere();
    });
    after(() => stage?.strike());

    async function everybodyIsThere() {
      for (const [name, page] of Object.entries(pages)) {
        await page.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 60_000 });
        await until(`${name} has three tiles`, async () => (await tilesOf(page)).length === 3, 60_000);
        const others = Object.values(ids).filter((id) => id !== ids[name]);
        for (const id of others) await page.locator(`[data-testid="remote-audio"][data-identity="${id}"]`).waitFor({ state: "attached", timeout: 60_000 });
        if (name === "alice") continue;
        const shown = await until(`${name} sees Alice`, () => framesOf(page, ids.alice), 60_000);
        await until(`${name} sees Alice move`, async () => (await framesOf(page, ids.alice)) > shown + 5, 60_000);
      }
    }

    async function everybodyHearsEverybody() {
      const names = Object.keys(pages);
      const measured = await Promise.all(names.map((name) => loudness(pages[name])));
      // All at once: each voice comes out of its own element.
      await Promise.all(names.map((name) => say(pages[name], path.join(speech, LINES.a3.file))));
      for (const [at, listener] of names.entries()) {
        const levels = await measured[at]();
        for (const speaker of names) if (speaker !== listener) assert.ok(levels[ids[speaker]] > HEARD, `${listener} did not hear ${speaker}: ${JSON.stringify(levels)}`);
      }
    }

    it("everybody hears everybody", async () => {
      for (const page of Object.values(pages)) assert.equal(await page.evaluate(() => globalThis.opened), connections === "one" ? 1 : 2);
      await everybodyHearsEverybody();
    });

    for (const time of ["once", "a second time"]) {
      it(`after the media node was killed ${time}, everybody is back, heard and seen`, async () => {
        const noticed = await Promise.all(Object.values(pages).map(noticesLoss));
        const [before] = stage.system.kill("rtcd");
        await until("another media node runs", () => stage.system.pids("rtcd").some((pid) => pid !== before));
        await Promise.all(noticed.map((wait) => wait()));
        await everybodyIsThere();
        await everybodyHearsEverybody();
        for (const page of Object.values(pages)) assert.deepEqual(page.problems, []);
      });
    }

  });
}
