// LiveKit's own client in a page, and its server API, against the media node alone: no message server, nothing of ours in between.
import { createHmac } from "node:crypto";
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { bin, root, until } from "./system.mjs";

const KEY = "APIstory";
const SECRET = "the-secret-of-the-stories-key";
const dist = path.join(root, "web/node_modules/livekit-client/dist");
const PAGE = `<!doctype html><meta charset="utf-8"><title>livekit-client</title><style>body { margin: 0 }</style><script src="/livekit-client.umd.js"></script><script>
globalThis.log = [];
globalThis.enter = async (url, token, { key, ...options } = {}) => {
  const { ExternalE2EEKeyProvider, Room, RoomEvent } = LivekitClient;
  if (key) {
    const keyProvider = new ExternalE2EEKeyProvider();
    options.encryption = { keyProvider, worker: new Worker("/livekit-client.e2ee.worker.js") };
    await keyProvider.setKey(key);
  }
  const room = new Room(options);
  globalThis.room = room;
  for (const name of ["Reconnecting", "SignalReconnecting", "Reconnected", "Disconnected", "EncryptionError", "ParticipantConnected"])
    room.on(RoomEvent[name], (what) => log.push([name, what?.identity ?? what?.message ?? what]));
  room.on(RoomEvent.DataReceived, (bytes, from, kind, topic) => log.push(["Data", new TextDecoder().decode(bytes), from?.identity, topic]));
  room.on(RoomEvent.TrackSubscribed, (track, publication, from) => {
    // The client takes tracks of somebody who starts over off their elements without a word.
    for (const element of document.querySelectorAll("audio, video")) if (!element.srcObject) element.remove();
    const element = track.attach();
    element.dataset.identity = from.identity;
    document.body.append(element);
  });
  room.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
  await room.connect(url, token);
  if (key) await room.setE2EEEnabled(true);
};
// Sends numbered frames on a data track of ours, ten a second, every tenth one in several packets.
globalThis.stream = async (name) => {
  const track = await room.localParticipant.publishDataTrack({ name });
  let number = 0;
  setInterval(() => {
    const payload = new Uint8Array(number % 10 ? 4 : 50_000).fill(number % 251);
    new DataView(payload.buffer).setUint32(0, number++);
    // Fails while the client starts over.
    try { track.tryPush({ payload }); } catch {}
  }, 100);
};
// Frames of somebody's data track as they come: their number, and their length where what is in them is whole.
globalThis.follow = async (identity, name) => {
  const track = await room.remoteParticipants.get(identity).dataTracks.getDeferred(name);
  const frames = (globalThis.frames = []);
  const reader = track.subscribe().getReader();
  const read = async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      const { payload } = next.value;
      const number = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
      frames.push([number, payload.subarray(4).every((byte) => byte === number % 251) ? payload.length : -1]);
    }
  };
  read().then(() => frames.push("over"), (error) => frames.push(String(error)));
};
globalThis.logged = (name) => log.filter((entry) => entry[0] === name);
// How large a person's picture is shown, in CSS pixels; not at all with a width of 0. Adaptive streams go by it.
globalThis.picture = (identity) => [...document.querySelectorAll("video")].find((video) => video.dataset.identity === identity && video.srcObject?.active);
globalThis.show = (identity, width) => {
  const { style } = picture(identity);
  Object.assign(style, { display: width ? "block" : "none", width: width + "px", height: (width * 9) / 16 + "px" });
};
// What leaves this page of a source, by rid ("" where there is one layer only), and what of it the client switched off.
globalThis.sent = async (source) => {
  const { track } = room.localParticipant.getTrackPublication(source);
  const layers = {};
  for (const report of (await track.getRTCStatsReport()).values())
    if (report.type === "outbound-rtp") layers[report.rid ?? ""] = { frames: report.framesSent ?? 0, packets: report.packetsSent, wide: report.frameWidth ?? 0 };
  for (const { rid, active, maxFramerate } of track.sender.getParameters().encodings)
    if (layers[rid ?? ""]) Object.assign(layers[rid ?? ""], { active, maxFramerate });
  return layers;
};
// What comes of a person's source, and what the decoder made of it; held: seconds that its frames waited, all together.
globalThis.got = async (identity, source) => {
  const found = { frames: 0, wide: 0, energy: 0, packets: 0, codec: "", held: 0, emitted: 0 };
  const track = room.remoteParticipants.get(identity)?.getTrackPublication(source)?.track;
  const reports = await track?.getRTCStatsReport();
  for (const report of reports?.values() ?? [])
    if (report.type === "inbound-rtp")
      Object.assign(found, {
        frames: report.framesDecoded, wide: report.frameWidth ?? 0, energy: report.totalAudioEnergy, packets: report.packetsReceived,
        codec: reports.get(report.codecId)?.mimeType ?? "", held: report.jitterBufferDelay ?? 0, emitted: report.jitterBufferEmittedCount ?? 0,
      });
  return found;
};
</script>`;

/** What the media node and its offloader know of each other. */
const TAP_SECRET = "the secret of the stories' taps, long enough";
const OFFLOADER_TOKEN = "the token of the stories' offloader";
const OFFLOADER = "http://127.0.0.1:8075";

/** A manifest's lines; of one that is being written, the whole ones. */
export const parse = (manifest) => manifest.slice(0, manifest.lastIndexOf("\n") + 1).split("\n").filter(Boolean).map((line) => JSON.parse(line));

/** The offloader of a media node: what egresses write is in `files`. */
export class Recorder {
  /** For `MediaNode.start`. */
  static env = { RTCD_TAP_SECRET: TAP_SECRET, RTCD_OFFLOADER_URL: OFFLOADER, RTCD_OFFLOADER_TOKEN: OFFLOADER_TOKEN };

  static async start() {
    const recorder = new Recorder();
    recorder.folder = fs.mkdtempSync(path.join(os.tmpdir(), "recorder-story-"));
    recorder.files = path.join(recorder.folder, "egress");
    recorder.data = path.join(recorder.folder, "offloader");
    recorder.process = spawn(path.join(bin, "offloader"), [], {
      cwd: recorder.folder,
      env: {
        ...process.env, OFFLOADER_LISTEN: new URL(OFFLOADER).host, OFFLOADER_TOKEN, OFFLOADER_TAP_SECRET: TAP_SECRET, OFFLOADER_DATA: recorder.data,
        OFFLOADER_EGRESS_DIR: recorder.files, OFFLOADER_RTCD: "http://127.0.0.1:8045", OFFLOADER_POLL_MS: "200",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    recorder.output = "";
    for (const stream of [recorder.process.stdout, recorder.process.stderr]) stream.on("data", (bytes) => { recorder.output += bytes; });
    await until("the offloader is healthy", async () => {
      if (recorder.process.exitCode !== null) throw new Error(recorder.output);
      return (await fetch(`${OFFLOADER}/healthz`)).ok;
    });
    return recorder;
  }

  /** The manifest's lines of each recording that is not sealed yet. */
  manifests() {
    const recordings = path.join(this.data, "recordings");
    const files = fs.existsSync(recordings) ? fs.readdirSync(recordings).map((id) => path.join(recordings, id, "manifest.jsonl")) : [];
    return files.filter((file) => fs.existsSync(file)).map((file) => parse(fs.readFileSync(file, "utf8")));
  }

  /** An answer of the offloader's own API. */
  async get(route) {
    const response = await fetch(`${OFFLOADER}${route}`, { headers: { authorization: `Bearer ${OFFLOADER_TOKEN}`, "x-conclave-actor": "story" } });
    if (!response.ok) throw new Error(`${route}: ${response.status} ${await response.text()}`);
    return response;
  }

  async stop() {
    this.process.kill("SIGINT");
    await until("the offloader ends", () => this.process.exitCode !== null || this.process.signalCode !== null, 40_000);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A media node with an API key, and the server of the page. */
export class MediaNode {
  static async start(env = {}) {
    const node = new MediaNode();
    node.folder = fs.mkdtempSync(path.join(os.tmpdir(), "livekit-story-"));
    node.process = spawn(path.join(bin, "rtcd"), ["--config", path.join(node.folder, "none.toml")], {
      cwd: node.folder,
      env: { ...process.env, LIVEKIT_KEYS: `${KEY}: ${SECRET}`, RTCD_MATTERMOST_ENABLE: "false", RTCD_API_HTTP_LISTENADDRESS: "127.0.0.1:8045", RUST_LOG_FORMAT: "json", ...env },
      stdio: ["ignore", "ignore", "pipe"],
    });
    node.output = "";
    node.process.stderr.on("data", (bytes) => { node.output += bytes; });
    await until("the media node is ready", () => {
      if (node.process.exitCode !== null) throw new Error(node.output);
      return node.output.includes('"message":"ready"');
    });
    node.pages = http.createServer((request, response) => {
      if (request.url === "/") return response.setHeader("content-type", "text/html").end(PAGE);
      const file = path.join(dist, path.basename(request.url));
      if (!fs.existsSync(file)) return response.writeHead(404).end();
      response.setHeader("content-type", "text/javascript").end(fs.readFileSync(file));
    });
    await new Promise((listening) => node.pages.listen(0, "127.0.0.1", listening));
    node.page = `http://localhost:${node.pages.address().port}/`;
    node.url = "ws://127.0.0.1:8045";
    return node;
  }

  /** A token that joins `room`; `grant` and `claims` say more. */
  token(room, identity, grant = {}, claims = {}) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const now = Math.floor(Date.now() / 1000);
    const video = { roomJoin: true, room, ...grant };
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ iss: KEY, sub: identity, name: identity, nbf: now, exp: now + 600, video, ...claims })}`;
    return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
  }

  /** A call of the server's API. */
  async server(method, body, service = "RoomService") {
    // As LiveKit's server SDKs: what is done in a room is asked with a grant of that room.
    const token = this.token(body.room ?? "", "", { roomJoin: false, roomCreate: true, roomList: true, roomAdmin: true, roomRecord: true });
    const response = await fetch(`http://127.0.0.1:8045/twirp/livekit.${service}/${method}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method}: ${answer.code} ${answer.msg}`);
    return answer;
  }

  async stop() {
    this.pages.closeAllConnections();
    this.pages.close();
    this.process.kill("SIGINT");
    await until("the media node ends", () => this.process.exitCode !== null || this.process.signalCode !== null, 40_000);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}
