// A bad link between one page and the media node: the profiles of integration-tests/profiles, in force at a word.
import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { bin } from "./system.mjs";

export class BadLink {
  /** A link to the media node's port; good, until a profile is in force. `seed`: the same one has the same losses. */
  static async open({ node = 8443, seed = 1 } = {}) {
    const link = new BadLink();
    link.process = spawn(path.join(bin, "bad-link"), [`127.0.0.1:${node}`, String(seed)], { stdio: ["pipe", "pipe", "inherit"] });
    link.lines = createInterface({ input: link.process.stdout })[Symbol.asyncIterator]();
    link.port = (await link.read()).port;
    return link;
  }

  async read() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error("bad-link ended: its last words are above");
    return JSON.parse(value);
  }

  /** The profile is in force from now on, its cuts count from now. Gives what the one before did. "": a good link. */
  async use(profile) {
    this.process.stdin.write(`${profile}\n`);
    return this.read();
  }

  async close() {
    this.process.stdin.end();
    await new Promise((done) => { if (this.process.exitCode === null) this.process.once("exit", done); else done(); });
  }
}

/** Ask before the page joins: its media takes this link, and no other way. */
export async function behind(page, link) {
  await page.addInitScript((port) => {
    const real = RTCPeerConnection.prototype.setRemoteDescription;
    RTCPeerConnection.prototype.setRemoteDescription = function (description, ...rest) {
      if (!description?.sdp) return real.call(this, description, ...rest);
      let taken = 0;
      const lines = description.sdp.split("\r\n").flatMap((line) => {
        if (!line.startsWith("a=candidate:")) return [line];
        const words = line.split(" ");
        if (words[2].toLowerCase() !== "udp" || words[4].includes(":") || taken++ > 0) return [];
        [words[4], words[5]] = ["127.0.0.1", String(port)];
        return [words.join(" ")];
      });
      return real.call(this, { type: description.type, sdp: lines.join("\r\n") }, ...rest);
    };
  }, link.port);
  await watchConnections(page);
}

/** Ask before the page joins: keeps its connections, so that their figures can be read. */
export async function watchConnections(page) {
  await page.addInitScript(() => {
    const Real = globalThis.RTCPeerConnection;
    globalThis.connections = [];
    globalThis.RTCPeerConnection = class extends Real {
      constructor(...rest) {
        super(...rest);
        globalThis.connections.push(this);
      }
    };
  });
}

/** The page's figures of the one picture it gets. */
export function pictureFigures(page) {
  return page.evaluate(async () => {
    const found = { wide: 0, frames: 0, keys: 0, plis: 0, freezes: 0, codec: "" };
    for (const connection of globalThis.connections ?? []) {
      if (connection.connectionState === "closed") continue;
      const stats = await connection.getStats();
      for (const entry of stats.values()) {
        if (entry.type !== "inbound-rtp" || entry.kind !== "video" || !entry.framesDecoded) continue;
        found.wide = entry.frameWidth;
        found.frames += entry.framesDecoded;
        found.keys += entry.keyFramesDecoded;
        found.plis += entry.pliCount;
        found.freezes += entry.freezeCount;
        found.codec = stats.get(entry.codecId)?.mimeType ?? "";
      }
    }
    return found;
  });
}

/**
 * The page's figures of all sound it gets, added up. `spare`: sounds that came along with a later packet (RFC 2198), were taken out of it, and were
 * there already. (Chromium names `audio/opus` as the codec of such packets too, and counts their sounds in no `fec` figure.)
 */
export function soundFigures(page) {
  return page.evaluate(async () => {
    const sum = { received: 0, lost: 0, spare: 0, concealed: 0 };
    for (const connection of globalThis.connections ?? []) {
      if (connection.connectionState === "closed") continue;
      for (const entry of (await connection.getStats()).values()) {
        if (entry.type !== "inbound-rtp" || entry.kind !== "audio") continue;
        sum.received += entry.packetsReceived;
        sum.lost += entry.packetsLost;
        sum.spare += entry.packetsDiscarded;
        sum.concealed += (entry.concealedSamples - entry.silentConcealedSamples) / 960;
      }
    }
    return sum;
  });
}

/** Waits until no sound of talk comes any more (of a silent microphone one packet a second does) and the jitter buffers are played out. */
export async function allHeard(page) {
  let last = (await soundFigures(page)).received;
  for (let still = 0; still < 2;) {
    await page.waitForTimeout(1_000);
    const { received } = await soundFigures(page);
    still = received - last < 10 ? still + 1 : 0;
    last = received;
  }
  await page.waitForTimeout(2_000);
}
