// A media node is emptied and ended under a call: those present notice nothing until it ends, and then come back by themselves.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, joinCall, loudness, say } from "../lib/browser.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { until } from "../lib/system.mjs";

describe("drain", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, bob, carol, callId, ops, node;

  before(async () => {
    stage = await Stage.set({ env: { RTCD_NODE_DRAINDEADLINES: "3" } });
    ({ alice, bob, callId } = await stage.aliceAndBob());
    ops = await stage.person("otto");
    node = (await ops.get("/ops/nodes")).nodes[0].node_id;
  });
  after(() => stage?.strike());

  const hear = async (from, to) => {
    await to.getByTestId("remote-audio").first().waitFor({ state: "attached" });
    const stop = await loudness(to);
    await say(from, path.join(speech, LINES.a3.file));
    const heard = await stop();
    assert.ok(Object.values(heard).some((level) => level > HEARD), JSON.stringify(heard));
  };

  it("while the node is emptied, those present go on", async () => {
    await hear(alice, bob);
    await ops.post(`/ops/nodes/${node}/drain`);
    assert.equal((await ops.get("/ops/nodes")).nodes[0].draining, true);
    await hear(alice, bob);
    await hear(bob, alice);
  });

  it("somebody new is told why she cannot come in, and when to try again", async () => {
    carol = await stage.page("carol");
    await carol.goto(`${stage.system.http}/call/${callId}`);
    await carol.getByTestId("join-call").click();
    const alert = carol.locator('[data-testid="prejoin"] .note.bad');
    await alert.waitFor({ timeout: 60_000 });
    assert.match(await alert.innerText(), /maintenance.*try again/is);
  });

  it("who reloads the page is let in again", async () => {
    await bob.reload();
    await joinCall(bob, stage.system, callId);
    await hear(alice, bob);
  });

  it("when the node ends, both come back on a fresh one by themselves, and now the third is let in", async () => {
    const [before] = stage.system.pids("rtcd");
    // An operator's drain lasts ten minutes; SIGTERM shortens it to its own deadline.
    process.kill(before, "SIGTERM");
    await until("a fresh media node runs", () => { const [now] = stage.system.pids("rtcd"); return now && now !== before; });
    for (const page of [alice, bob]) {
      await page.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 60_000 });
    }
    await until("Bob hears Alice", () => hear(alice, bob).then(() => true), 60_000);
    assert.equal((await ops.get("/ops/nodes")).nodes[0].draining, false);
    await joinCall(carol, stage.system, callId);
    await hear(alice, carol);
  });
});
