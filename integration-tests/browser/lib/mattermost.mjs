// A Mattermost site around the real rtcd: its settings, its plugin, and a page that does what the Calls client does.
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Encoder, decodeMulti } from "@msgpack/msgpack";
import WebSocket from "ws";
import { openPage, withVoice } from "./browser.mjs";
import { bin, until } from "./system.mjs";

const KEY = "a key of at least thirty-two characters";
const HERE = path.dirname(fileURLToPath(import.meta.url));
const MSGPACK = path.join(HERE, "../node_modules/@msgpack/msgpack/dist.umd/msgpack.min.js");

/** The numbers of `rtc` messages. */
export const RTC = { ice: 1, sdp: 2, mute: 3, unmute: 4, screen_on: 5, screen_off: 6, voice_on: 7, voice_off: 8, video_on: 9, video_off: 10 };

/** rtcd with Mattermost's settings, from the environment alone. */
export class Rtcd {
  static async start(env = {}) {
    const rtcd = new Rtcd();
    rtcd.folder = fs.mkdtempSync(path.join(os.tmpdir(), "rtcd-story-"));
    rtcd.output = "";
    rtcd.process = spawn(path.join(bin, "rtcd"), [], {
      cwd: rtcd.folder,
      env: {
        PATH: process.env.PATH,
        RTCD_API_HTTP_LISTENADDRESS: "127.0.0.1:8045",
        RTCD_API_SECURITY_ALLOWSELFREGISTRATION: "true",
        RTCD_RTC_ICEADDRESSUDP: "127.0.0.1",
        RTCD_RTC_ICEADDRESSTCP: "127.0.0.1",
        RTCD_STORE_DATASOURCE: path.join(rtcd.folder, "store"),
        RTCD_LOGGER_ENABLEFILE: "false",
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [rtcd.process.stdout, rtcd.process.stderr]) stream.on("data", (bytes) => { rtcd.output += bytes; });
    await until("rtcd answers", async () => {
      if (rtcd.process.exitCode !== null) throw new Error(rtcd.output);
      return (await fetch("http://127.0.0.1:8045/version")).ok;
    });
    return rtcd;
  }

  ended() {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }

  async stop() {
    if (!this.ended()) this.process.kill("SIGKILL");
    await until("rtcd is gone", () => this.ended());
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The plugin's connection to rtcd. Carries what pages say, and what rtcd says to the page it is for. */
export class Plugin {
  static async connect(client) {
    const plugin = new Plugin();
    plugin.client = client;
    plugin.pages = new Map();
    plugin.heard = [];
    await fetch("http://127.0.0.1:8045/register", { method: "POST", body: JSON.stringify({ clientID: client, authKey: KEY }) });
    await plugin.dial();
    return plugin;
  }

  async dial() {
    const authorization = `Basic ${Buffer.from(`${this.client}:${KEY}`).toString("base64")}`;
    this.socket = new WebSocket("ws://127.0.0.1:8045/ws", { headers: { authorization } });
    this.socket.on("message", (frame) => this.take(frame));
    await new Promise((done, fail) => this.socket.once("open", done).once("error", fail));
  }

  take(frame) {
    const [kind, data] = decodeMulti(frame);
    this.heard.push({ kind, session: data.session_id ?? data.sessionID, type: data.type });
    // What rtcd says as `signal` goes to the browser verbatim, as text.
    if (kind === "rtc") this.pages.get(data.session_id)?.fromPlugin(Buffer.from(data.data).toString("utf8"));
  }

  send(kind, data) {
    const encoder = new Encoder();
    this.socket.send(Buffer.concat([encoder.encode(kind), encoder.encode(data)].map((bytes) => Buffer.from(bytes))), { binary: true });
  }

  rtc(session, type, data) {
    this.send("rtc", {
      group_id: "", user_id: "", session_id: session, call_id: "", type,
      ...(data === undefined ? {} : { data: Buffer.from(typeof data === "string" ? data : JSON.stringify(data)) }),
    });
  }

  /** How often rtcd said this of a session. */
  count(kind, session, type) {
    return this.heard.filter((one) => one.kind === kind && one.session === session && (type === undefined || one.type === type)).length;
  }

  async sessions(call) {
    const authorization = `Basic ${Buffer.from(`${this.client}:${KEY}`).toString("base64")}`;
    const response = await fetch(`http://127.0.0.1:8045/calls/${call}/sessions`, { headers: { authorization } });
    return response.ok ? response.json() : [];
  }
}

/** An origin for the pages: browsers give microphones to pages of an address, not to blank ones. */
export async function openOrigin() {
  const server = http.createServer((_, response) => response.setHeader("content-type", "text/html").end("<!doctype html><title>call</title>"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

/** Somebody's page in a call, connected: what the plugin's page and Mattermost's server do between them. `prepare`: is given it before. */
export async function joinCalls(browser, origin, plugin, call, session, { dcSignaling = true, locking = true, prepare } = {}) {
  const page = await openPage(browser);
  await withVoice(page);
  await prepare?.(page);
  await page.exposeFunction("toPlugin", (type, data) => plugin.rtc(session, type, data));
  await page.goto(origin.url);
  await page.addScriptTag({ path: MSGPACK });
  await page.addScriptTag({ path: path.join(HERE, "calls_page.js") });
  plugin.pages.set(session, { fromPlugin: (text) => page.evaluate((text) => globalThis.calls.fromPlugin(text), text).catch(() => {}) });
  plugin.send("join", { callID: call, userID: `user-${session}`, sessionID: session, channelID: "channel", av1Support: false, dcSignaling });
  await page.evaluate((options) => globalThis.calls.connect(options), { dcSignaling, locking });
  await until(`${session} is connected`, () => page.evaluate(() => globalThis.calls.state() === "connected/open"), 15_000);
  return page;
}
