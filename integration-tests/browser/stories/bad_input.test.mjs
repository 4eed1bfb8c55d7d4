// Hostile input while a call runs: the call goes on, errors are clear, counters move.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, listen, loudness, say } from "../lib/browser.mjs";
import { LINES, recognise, speech, wordsFound } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { Person, metric } from "../lib/system.mjs";

// 250 000 datagrams of random length and content in 5 s from many source ports, to the media port of our own system.
const FLOOD = `
import os, random, socket, time
rng = random.Random(7)
noise = os.urandom(65536)
senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(32)]
sent = 0
begin = time.monotonic()
while sent < 250_000 and time.monotonic() - begin < 20:
    for _ in range(500):
        at = rng.randrange(60000); length = rng.randrange(1, 1400)
        packet = bytearray(noise[at:at + length])
        kind = rng.randrange(4)
        if kind == 0: packet[0] = 0x00
        elif kind == 1: packet[0] = 22
        elif kind == 2: packet[0] = 0x80
        try: senders[sent % 32].sendto(packet, ("127.0.0.1", 8443))
        except OSError: pass
        sent += 1
    ahead = sent / 50_000 - (time.monotonic() - begin)
    if ahead > 0: time.sleep(ahead)
print(sent)
`;

describe("bad input", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, bob, rest, callId;

  before(async () => {
    stage = await Stage.set();
    ({ alice, bob, rest, callId } = await stage.aliceAndBob());
  });
  after(() => stage?.strike());

  it("50 000 garbage datagrams a second for 5 s leave the call unharmed", async () => {
    const before = await metric(/^conclave_rtcd_.*drop|^conclave_rtcd_.*(unknown|bad|garbage|invalid)/);
    const stop = await listen(bob, path.join(stage.folder, "flood.wav"));
    const flood = spawn("python3", ["-c", FLOOD], { stdio: ["ignore", "pipe", "inherit"] });
    let sent = "";
    flood.stdout.on("data", (bytes) => { sent += bytes; });
    await say(alice, path.join(speech, LINES.a1.file));
    await new Promise((done) => (flood.exitCode === null ? flood.on("close", done) : done()));
    const heard = recognise(await stop());
    assert.equal(Number(sent), 250_000);
    assert.ok(wordsFound(LINES.a1.text, heard) >= 0.6, `heard: ${heard}`);
    assert.ok((await metric(/^conclave_rtcd_.*drop|^conclave_rtcd_.*(unknown|bad|garbage|invalid)/)) > before, "no counter moved");
  });

  it("expired, foreign and malformed tokens get a clear error", async () => {
    const { token } = await rest.post(`/calls/${callId}/join`);
    const [head, body, signature] = token.split(".");
    const foreign = `${head}.${Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(body, "base64url")), sub: "somebody-else" })).toString("base64url")}.${signature}`;
    for (const bad of ["", "x", "a.b.c", foreign]) {
      const response = await fetch(`${stage.system.http}/livekit/rtc/validate?access_token=${encodeURIComponent(bad)}`);
      assert.equal(response.status, 401, `token ${bad.slice(0, 12)}`);
      assert.ok((await response.text()).length > 10, "the error says nothing");
    }
    const stranger = new Person(stage.system, "stranger");
    stranger.cookie = "conclave_session=0000000000000000";
    await assert.rejects(stranger.get("/channels"), (error) => error.status === 401);
  });

  it("oversized and malformed bodies get a clear error", async () => {
    await assert.rejects(rest.post(`/channels/${stage.channel}/messages`, { text: "x".repeat(5_000_000) }), (error) => error.status === 413 || error.status === 400);
    const response = await fetch(`${stage.system.http}/api/v1/channels`, {
      method: "POST", headers: { "content-type": "application/json", origin: stage.system.http, cookie: rest.cookie }, body: "{not json",
    });
    assert.equal(response.status, 400);
    assert.ok((await response.json()).error.message.length > 10);
  });

  it("malformed signalling frames end one session, not the call", async () => {
    const carol = await stage.person("carol");
    const page = await stage.page("carol");
    const frames = [
      ["no protobuf", "ffffffff", "leave"],
      ["too large", "07".repeat(300_000), "closed 1008"],
      ["an offer that is no SDP", "0a0d0a056f666665721204763d300d", "leave"],
    ];
    for (const [what, frame, expected] of frames) {
      const { token, url } = await carol.post(`/calls/${callId}/join`);
      const ended = await page.evaluate(async ({ url, token, frame }) => {
        const socket = new WebSocket(`${location.origin.replace("http", "ws")}${url}/rtc?access_token=${token}&protocol=16&auto_subscribe=1&sdk=js`);
        socket.binaryType = "arraybuffer";
        const first = await new Promise((done) => { socket.onmessage = () => done("joined"); socket.onclose = (event) => done(`closed ${event.code}`); });
        if (first !== "joined") return first;
        const answered = new Promise((done) => {
          socket.onclose = (event) => done(`closed ${event.code}`);
          // SignalResponse.leave has the number 8: go, or start over.
          socket.onmessage = ({ data }) => { if (new Uint8Array(data)[0] === 8 * 8 + 2) done("leave"); };
        });
        socket.send(Uint8Array.from(frame.match(/../g), (byte) => parseInt(byte, 16)));
        const answer = await answered;
        socket.close();
        return answer;
      }, { url, token, frame });
      assert.equal(ended, expected, what);
    }
    const stop = await loudness(bob);
    await say(alice, path.join(speech, LINES.a3.file));
    const heard = await stop();
    assert.ok(Object.values(heard).some((level) => level > HEARD), JSON.stringify(heard));
    for (const part of ["rtcd", "message-server"]) assert.doesNotMatch(stage.system.log(part), /panicked at/);
  });
});
