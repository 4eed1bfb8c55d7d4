// A network that lets nobody through to the media port: the site's own TURN server (coturn) carries Bob's media, with credentials made for him.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, joinCall, loudness, noticesLoss, say } from "../lib/browser.mjs";
import { watchConnections } from "../lib/link.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { until } from "../lib/system.mjs";

// The address of in-own-network.sh.
const HOST = "10.99.0.1", PORT = 3478, SECRET = "what only coturn and the media node know";

class Coturn {
  constructor() {
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), "coturn-story-"));
    const flags = [
      "--no-cli", "--no-tls", "--no-dtls", "--log-file=stdout", "--simple-log", "--pidfile=", `--userdb=${path.join(this.folder, "turndb")}`, "--verbose",
      `--listening-ip=${HOST}`, `--listening-port=${PORT}`, `--relay-ip=${HOST}`, "--realm=conclave.test", "--use-auth-secret", `--static-auth-secret=${SECRET}`,
    ];
    this.output = "";
    this.process = spawn("turnserver", ["-n", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    for (const from of [this.process.stdout, this.process.stderr]) from.on("data", (bytes) => { this.output += bytes; });
  }

  async ready() {
    await until("coturn listens", () => {
      if (this.process.exitCode !== null) throw new Error(this.output);
      return this.output.includes(`UDP listener opened on: ${HOST}:${PORT}`);
    });
    return this;
  }

  async stop() {
    this.process.kill("SIGKILL");
    await until("coturn ends", () => this.process.exitCode !== null || this.process.signalCode !== null);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

describe("media through the site's TURN server", { concurrency: false, timeout: 300_000 }, () => {
  let coturn, stage, alice, bob;
  const ids = {};

  /** Kinds of this page's own candidates that media takes. */
  const ways = (page) => page.evaluate(async () => {
    const kinds = new Set();
    for (const connection of globalThis.connections) {
      if (connection.connectionState !== "connected") continue;
      const stats = await connection.getStats();
      for (const report of stats.values()) {
        if (report.type !== "transport" || !report.selectedCandidatePairId) continue;
        kinds.add(stats.get(stats.get(report.selectedCandidatePairId).localCandidateId).candidateType);
      }
    }
    return [...kinds];
  });
  const hearEachOther = async () => {
    for (const [speaker, from, listener, to] of [["alice", alice, "bob", bob], ["bob", bob, "alice", alice]]) {
      const measured = await loudness(to);
      await say(from, path.join(speech, LINES.a3.file));
      const levels = await measured();
      assert.ok(levels[ids[speaker]] > HEARD, `${listener} did not hear ${speaker}: ${JSON.stringify(levels)}`);
    }
  };

  before(async () => {
    coturn = await new Coturn().ready();
    stage = await Stage.set({ env: { CONCLAVE_TURN: `turn:${HOST}:${PORT}`, CONCLAVE_TURN_SECRET: SECRET } });
    const rest = await stage.person("alice");
    const callId = await stage.call(rest);
    [alice, bob] = [await stage.page("alice"), await stage.page("bob")];
    // A browser cannot be put behind a firewall of its own here; this is what is left to one that is.
    await bob.addInitScript(() => {
      const Real = globalThis.RTCPeerConnection;
      globalThis.told = [];
      const hidden = (settings) => {
        globalThis.told.push(...settings?.iceServers ?? []);
        return { ...settings, iceTransportPolicy: "relay" };
      };
      globalThis.RTCPeerConnection = class extends Real {
        constructor(settings, ...rest) {
          super(hidden(settings), ...rest);
        }

        // The client makes its connection while it still asks to join, and learns of servers with the answer.
        setConfiguration(settings) {
          super.setConfiguration(hidden(settings));
        }
      };
    });
    for (const page of [alice, bob]) {
      await watchConnections(page);
      await joinCall(page, stage.system, callId);
    }
    const { participants } = await rest.get(`/calls/${callId}`);
    for (const name of ["alice", "bob"]) ids[name] = participants.find((person) => person.display_name.toLowerCase().startsWith(name)).identity;
  });
  after(async () => {
    await stage?.strike();
    await coturn?.stop();
  });

  it("they hear each other, Bob by a relay of his and Alice straight", async () => {
    await hearEachOther();
    assert.deepEqual(await ways(bob), ["relay"]);
    assert.ok(!(await ways(alice)).includes("relay"), "who can reach the node takes no detour");
  });

  it("his credentials are his and end within a day", async () => {
    const [server] = await bob.evaluate(() => globalThis.told);
    assert.deepEqual(server.urls, [`turn:${HOST}:${PORT}`]);
    const [expiry, who] = server.username.split(":");
    const life = Number(expiry) - Date.now() / 1000;
    assert.ok(life > 0 && life <= 86_400, server.username);
    assert.match(who, /^PA_/);
    assert.ok(coturn.output.includes(server.username), "coturn took no one else's");
  });

  it("a TURN server that is started again carries him again", async () => {
    const noticed = await noticesLoss(bob);
    await coturn.stop();
    await noticed();
    coturn = await new Coturn().ready();
    await bob.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 120_000 });
    await until("Bob hears Alice again", async () => {
      await hearEachOther();
      return true;
    }, 60_000);
    assert.deepEqual(await ways(bob), ["relay"]);
  });
});
