// One stream with layers inside (SVC): real encoders, and real decoders that get only the layers their page shows.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { joinCall } from "../lib/browser.mjs";
import { pictureFigures, watchConnections } from "../lib/link.mjs";
import { Stage } from "../lib/stage.mjs";
import { metric, until } from "../lib/system.mjs";

const SMALL = { width: 500, height: 640 };
const LARGE = { width: 2400, height: 1400 };

describe("a camera with layers inside its stream", { concurrency: false, timeout: 300_000 }, () => {
  let stage, callId;

  before(async () => {
    stage = await Stage.set();
    callId = await stage.call(await stage.person("alice"));
  });
  after(() => stage?.strike());

  const shows = async (bob, viewport, wide) => {
    await bob.setViewportSize(viewport);
    let figures;
    await until(`Bob's browser decodes ${wide} pixels`, async () => {
      figures = await pictureFigures(bob);
      return figures.wide === wide;
    }, 90_000);
    // It goes on: what its frames refer to is there.
    const from = figures.frames;
    await until("the picture moves on", async () => (await pictureFigures(bob)).frames > from + 20, 60_000);
  };

  // With one connection the viewer's browser does not know dependency descriptors, with two it does.
  for (const { layers, connections, low, high } of [
    { layers: "vp9/L3T3_KEY", connections: "one", low: 320, high: 1280 },
    { layers: "av1/L2T2_KEY", connections: "two", low: 640, high: 1280 },
  ]) {
    it(`${layers}: a small tile gets the small layer, a large one the large layer, and back (${connections} of the viewer's connections)`, async () => {
      const alice = await stage.page("alice", { stored: { layers } });
      const bob = await stage.page("bob", { stored: { connections }, viewport: SMALL });
      await watchConnections(bob);
      for (const page of [alice, bob]) await joinCall(page, stage.system, callId);
      await alice.getByTestId("camera-toggle").click();
      const switches = await metric(/layer_switches/);
      for (const [viewport, wide] of [[SMALL, low], [LARGE, high], [SMALL, low]]) await shows(bob, viewport, wide);
      const figures = await pictureFigures(bob);
      console.log(`# Bob's browser: ${JSON.stringify(figures)}`);
      assert.match(figures.codec, new RegExp(layers.split("/")[0], "i"));
      // The key frames of the changes are asked for by the node; a viewer whose picture broke would ask every second or so.
      assert.ok(figures.plis <= 2, JSON.stringify(figures));
      assert.ok((await metric(/layer_switches/)) >= switches + 2);
      for (const page of [alice, bob]) await page.context().close();
    });
  }
});
