// Makes vectors.json: frames encrypted by livekit-client's own worker, as its package ships it, run in Node.
//   node offloader/worker/tests/sealed/make.mjs web/node_modules/livekit-client > offloader/worker/tests/sealed/vectors.json
// Synchronisation source 0 with timestamp 0 puts zeros into the IV, so that H.264's escaping is needed every time.
import fs from "node:fs";
import path from "node:path";
import { createHash } from "node:crypto";

const folder = process.argv[2];
const code = fs.readFileSync(path.join(folder, "dist/livekit-client.e2ee.worker.js"), "utf8");
const { version } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));

/** One worker with its options; `ask` waits until what was told before is done, since messages are taken in turn. */
class Cryptor {
  constructor(options) {
    const waiting = [];
    const postMessage = (message) => { if (message.kind === "enable") waiting.shift()?.(); if (message.kind === "error") console.error(message.data.error); };
    // It takes its messages by a global of its own.
    globalThis.onmessage = null;
    new Function("self", "postMessage", code)({}, postMessage);
    this.onmessage = globalThis.onmessage;
    this.waiting = waiting;
    this.tell("init", { loglevel: 5, keyProviderOptions: { sharedKey: true, ratchetSalt: "LKFrameEncryptionKey", ratchetWindowSize: 0, failureTolerance: -1, keyringSize: 16, keySize: 128, ...options } });
  }
  tell(kind, data) { this.onmessage({ data: { kind, data } }); }
  async told() { await new Promise((done) => { this.waiting.push(done); this.tell("enable", { enabled: true, participantIdentity: "ann" }); }); }
  async key(key, keyIndex) {
    const material = typeof key === "string"
      ? await crypto.subtle.importKey("raw", new TextEncoder().encode(key), { name: "PBKDF2" }, false, ["deriveBits", "deriveKey"])
      : await crypto.subtle.importKey("raw", key, "HKDF", false, ["deriveBits", "deriveKey"]);
    this.tell("setKey", { key: material, keyIndex, participantIdentity: "ann", updateCurrentKeyIndex: true });
    await this.told();
  }
  async ratchet() { this.tell("ratchetRequest", { participantIdentity: "ann" }); await this.told(); }
  async encrypt(plain, { type, mimeType }) {
    const track = `t${Math.random()}`;
    const frame = { data: new Uint8Array(plain).buffer, timestamp: 0, getMetadata: () => ({ synchronizationSource: 0, payloadType: 96, ...(mimeType && { mimeType }) }), ...(type && { type }) };
    const out = [];
    this.tell("encode", {
      participantIdentity: "ann", trackId: track,
      readableStream: new ReadableStream({ start(controller) { controller.enqueue(frame); controller.close(); } }),
      writableStream: new WritableStream({ write(frame) { out.push(Buffer.from(frame.data)); } }),
    });
    for (let wait = 0; wait < 500 && out.length === 0; wait++) await new Promise((done) => setTimeout(done, 10));
    if (out.length !== 1) throw new Error(`nothing came of a frame of ${mimeType ?? "sound"}`);
    return out[0];
  }
}

/** Bytes that differ at every place and are the same every time. */
const bytes = (length, seed) => Buffer.concat(Array.from({ length: Math.ceil(length / 32) }, (_, n) => createHash("sha256").update(`${seed}-${n}`).digest())).subarray(0, length);
const code4 = Buffer.from([0, 0, 0, 1]), code3 = Buffer.from([0, 0, 1]);
const sps = Buffer.concat([code4, Buffer.from([0x67, 0x42, 0xc0, 0x1f]), bytes(8, "sps").map((byte) => byte | 0x10)]);
const pps = Buffer.concat([code4, Buffer.from([0x68, 0xce, 0x3c, 0x80])]);
const slice = (header, length, start = code4) => Buffer.concat([start, Buffer.from([header, 0x88]), bytes(length, header).map((byte) => byte | 0x10)]);
const FRAMES = [
  { name: "sound", codec: "opus", plain: Buffer.concat([Buffer.from([0x78]), bytes(80, "opus")]) },
  { name: "VP8, key frame", codec: "vp8", type: "key", mimeType: "video/VP8", plain: Buffer.concat([Buffer.from([0x10, 2, 0, 0x9d, 1, 0x2a, 0x40, 1, 0xb4, 0]), bytes(3_000, "vp8")]) },
  { name: "VP8, delta frame", codec: "vp8", type: "delta", mimeType: "video/VP8", plain: Buffer.concat([Buffer.from([0x11, 3, 0]), bytes(200, "vp8d")]) },
  { name: "VP9", codec: "vp9", type: "key", mimeType: "video/VP9", plain: bytes(500, "vp9") },
  { name: "H.264, key frame", codec: "h264", type: "key", mimeType: "video/H264", plain: Buffer.concat([sps, pps, slice(0x65, 2_500)]) },
  { name: "H.264, delta frame", codec: "h264", type: "delta", mimeType: "video/H264", plain: slice(0x41, 300) },
  { name: "H.264 of two slices, short start codes", codec: "h264", type: "key", mimeType: "video/H264", plain: Buffer.concat([sps, pps, slice(0x65, 700, code3), slice(0x65, 600, code3)]) },
];
const KEYS = [
  { name: "passphrase", key: "correct horse battery staple", index: 0, options: {}, frames: FRAMES },
  { name: "raw bytes, another index and salt", key: Buffer.from(bytes(32, "raw")), index: 7, options: { ratchetSalt: "another salt" }, frames: FRAMES.slice(0, 2) },
  { name: "256 bits", key: "long", index: 1, options: { keySize: 256 }, frames: FRAMES.slice(0, 1) },
  { name: "ratcheted three times", key: "first", index: 2, ratchet: 3, options: {}, frames: FRAMES.slice(0, 1) },
  { name: "raw bytes, ratcheted once", key: Buffer.from(bytes(16, "element")), index: 3, ratchet: 1, options: {}, frames: FRAMES.slice(0, 1) },
];
const vectors = [];
for (const { name, key, index, options, ratchet = 0, frames } of KEYS) {
  const cryptor = new Cryptor(options);
  await cryptor.key(key, index);
  for (let n = 0; n < ratchet; n++) await cryptor.ratchet();
  for (const frame of frames) {
    const sealed = await cryptor.encrypt(frame.plain, frame);
    vectors.push({
      name: `${frame.name}, ${name}`, codec: frame.codec, key_index: index, ratchet, key_bits: options.keySize ?? 128, salt: options.ratchetSalt ?? "LKFrameEncryptionKey",
      ...(typeof key === "string" ? { passphrase: key } : { raw: key.toString("hex") }), plain: frame.plain.toString("hex"), sealed: sealed.toString("hex"),
    });
  }
}
console.log(JSON.stringify({ made_by: `livekit-client ${version}, e2ee worker, Node ${process.version}`, vectors }, null, 1));
process.exit(0);
