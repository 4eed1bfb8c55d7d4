// Debian's Chromium and Firefox, as people would use them.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";

const which = (program) => execFileSync("which", [program], { encoding: "utf8" }).trim();

/**
 * A Chromium. `wav`: what the fake microphone plays in a loop; without one, `withVoice` gives the page a microphone that speaks on demand.
 * `loopback: false`: media goes by the machine's other addresses, as outside of tests.
 */
export async function openChromium({ wav, loopback = true, args = [] } = {}) {
  return chromium.launch({
    executablePath: which("chromium"),
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--autoplay-policy=no-user-gesture-required", ...(loopback ? ["--allow-loopback-in-peer-connection"] : []),
      "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding", "--disable-background-timer-throttling",
      "--use-fake-device-for-media-stream",
      ...(wav ? [`--use-file-for-fake-audio-capture=${wav}`] : []),
      // The real tab is shared only without the fake permission dialog; microphone and camera are granted by the context.
      "--auto-accept-this-tab-capture",
      ...args,
    ],
  });
}

/** A page of its own person (own cookies), with every page error kept in `page.problems`. */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({ permissions: ["microphone", "camera"], viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(String(error)));
  return page;
}

export async function signIn(page, system, username, password) {
  await page.goto(`${system.http}/signin`);
  await page.getByTestId("username").fill(username);
  await page.getByTestId("password").fill(password);
  await page.getByTestId("submit").click();
  await page.waitForURL((url) => !url.pathname.startsWith("/signin"));
}

/**
 * Gives the page a microphone that says recorded speech when told to, so that a story knows who spoke when. Everything
 * behind `getUserMedia` is the browser's own: track, Opus, SRTP.
 */
export async function withVoice(page) {
  await page.addInitScript(() => {
    const real = navigator.mediaDevices?.getUserMedia?.bind(navigator.mediaDevices);
    if (!real) return;
    let mouth;
    const open = () => {
      if (mouth) return mouth;
      const context = new AudioContext({ sampleRate: 48_000 });
      const out = context.createMediaStreamDestination();
      // A microphone is never digitally silent: faint noise keeps the encoder honest.
      const noise = context.createBuffer(1, 48_000, 48_000);
      const samples = noise.getChannelData(0);
      let seed = 1;
      for (let i = 0; i < samples.length; i++) {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        samples[i] = (seed / 1_073_741_824 - 1) * 0.0005;
      }
      const floor = context.createBufferSource();
      floor.buffer = noise;
      floor.loop = true;
      floor.connect(out);
      floor.start();
      mouth = { context, out };
      return mouth;
    };
    globalThis.say = async (base64) => {
      const { context, out } = open();
      await context.resume();
      const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
      const source = context.createBufferSource();
      source.buffer = await context.decodeAudioData(bytes.buffer);
      source.connect(out);
      await new Promise((done) => {
        source.onended = done;
        source.start();
      });
    };
    navigator.mediaDevices.getUserMedia = async (wish) => {
      if (!wish?.audio) return real(wish);
      const stream = wish.video ? await real({ video: wish.video }) : new MediaStream();
      const { context, out } = open();
      await context.resume();
      for (const track of out.stream.getAudioTracks()) stream.addTrack(track.clone());
      return stream;
    };
  });
}

/** Speaks a WAV file into the page's microphone; returns when it is said. */
export async function say(page, file) {
  await page.evaluate((bytes) => globalThis.say(bytes), fs.readFileSync(file).toString("base64"));
}

/** From the call's page to being in it. */
export async function joinCall(page, system, callId) {
  await page.goto(`${system.http}/call/${callId}`);
  await page.getByTestId("join-call").click();
  await page.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor({ timeout: 30_000 });
}

/**
 * Starts to record everybody the page hears; `stop()` gives the file. Each track is recorded as it comes out of the
 * jitter buffer: through an AudioContext it would be stretched and doubled where the machine is busy (measured: 3 to 7
 * of 10 words left), and no listener hears that.
 */
export async function listen(page, file) {
  await page.evaluate(() => {
    const recorders = new Map();
    const begun = performance.now();
    const record = (track) => {
      const recorder = new MediaRecorder(new MediaStream([track]), { mimeType: "audio/webm;codecs=opus", audioBitsPerSecond: 96_000 });
      const pieces = [];
      recorder.ondataavailable = (event) => pieces.push(event.data);
      recorder.start(500);
      recorders.set(track.id, { recorder, pieces, after: performance.now() - begun });
    };
    const join = () => {
      for (const element of document.querySelectorAll("audio, video")) {
        if (!(element.srcObject instanceof MediaStream) || element.muted) continue;
        for (const track of element.srcObject.getAudioTracks()) {
          if (!recorders.has(track.id) && track.readyState === "live") record(track);
        }
      }
    };
    join();
    const timer = setInterval(join, 100);
    const base64 = async (pieces) => {
      const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
      let text = "";
      for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
      return btoa(text);
    };
    globalThis.stopListening = () => {
      clearInterval(timer);
      return Promise.all([...recorders.values()].map(async ({ recorder, pieces, after }) => {
        // A recorder ends by itself with its track.
        if (recorder.state !== "inactive") {
          const stopped = new Promise((done) => recorder.addEventListener("stop", done, { once: true }));
          recorder.stop();
          await stopped;
        }
        return { sound: await base64(pieces), after };
      }));
    };
  });
  return async () => {
    const voices = (await page.evaluate(() => globalThis.stopListening())).filter((voice) => voice.sound !== "");
    const inputs = voices.flatMap((voice, at) => {
      const part = `${file}.${at}`;
      fs.writeFileSync(part, Buffer.from(voice.sound, "base64"));
      return ["-i", part];
    });
    if (voices.length === 0) inputs.push("-f", "lavfi", "-t", "1", "-i", "anullsrc=r=48000:cl=mono");
    const placed = voices.map((voice, at) => `[${at}]adelay=${Math.round(voice.after)}:all=1[v${at}];`).join("");
    const mix = voices.length === 0 ? "anull" : `${placed}${voices.map((_, at) => `[v${at}]`).join("")}amix=inputs=${voices.length}:normalize=0`;
    execFileSync("ffmpeg", ["-nostdin", "-loglevel", "error", "-y", ...inputs, "-filter_complex", mix, "-ac", "1", "-c:a", "pcm_s16le", file]);
    return file;
  };
}

/** As loud as speech: the noise floor of `withVoice` is below 0.0005, what is said a hundred times as loud. */
export const HEARD = 0.01;

/** Measures how loud each other person is on this page; `stop()` gives the loudest moment (root mean square) by identity. */
export async function loudness(page) {
  await page.evaluate(() => {
    const context = new AudioContext({ sampleRate: 48_000 });
    const meters = new Map(), loudest = {};
    const samples = new Float32Array(4_096);
    const timer = setInterval(() => {
      for (const element of document.querySelectorAll('[data-testid="remote-audio"]')) {
        if (!(element.srcObject instanceof MediaStream) || meters.has(element)) continue;
        const meter = context.createAnalyser();
        meter.fftSize = samples.length;
        context.createMediaStreamSource(element.srcObject).connect(meter);
        meters.set(element, meter);
      }
      for (const [element, meter] of meters) {
        meter.getFloatTimeDomainData(samples);
        const level = Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length);
        loudest[element.dataset.identity] = Math.max(loudest[element.dataset.identity] ?? 0, level);
      }
    }, 50);
    globalThis.stopMeasuring = async () => {
      clearInterval(timer);
      await context.close();
      return loudest;
    };
  });
  return () => page.evaluate(() => globalThis.stopMeasuring());
}

/** Ask before the deed; what it gives ends when the page has noticed that its media is away, even if only for a blink. */
export async function noticesLoss(page) {
  await page.getByTestId("call-page").evaluate((element) => {
    globalThis.lost = new Promise((done) => {
      const observer = new MutationObserver(() => {
        if (element.dataset.media === "connected") return;
        observer.disconnect();
        done();
      });
      observer.observe(element, { attributeFilter: ["data-media"] });
    });
  });
  return () => page.evaluate(() => globalThis.lost);
}

/** Frames decoded so far of a person's camera on this page. */
export function framesOf(page, identity) {
  const video = page.locator(`[data-testid="tile"][data-identity="${identity}"][data-screen="false"] video`);
  return video.evaluate((element) => element.getVideoPlaybackQuality().totalVideoFrames);
}

/** Who has a tile on this page, one entry per tile. */
export function tilesOf(page) {
  return page.locator('[data-testid="tile"]').evaluateAll((tiles) => tiles.map((tile) => tile.dataset.identity));
}

/** Serious findings of axe-core on the page as it is now. */
export async function axe(page) {
  await page.addScriptTag({ path: path.join(import.meta.dirname, "../node_modules/axe-core/axe.min.js") }).catch(async () => {
    // The pages' content policy allows no foreign script; the debugger may.
    await page.evaluate(fs.readFileSync(path.join(import.meta.dirname, "../node_modules/axe-core/axe.min.js"), "utf8"));
  });
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return result.violations.map((found) => `${found.id} (${found.impact}): ${found.help} — ${found.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(" | ")}`);
}

/** Keeps a picture when asked for (`./x shots`, or SHOTS=folder). */
export async function shot(page, name) {
  if (!process.env.SHOTS) return;
  fs.mkdirSync(process.env.SHOTS, { recursive: true });
  await page.screenshot({ path: path.join(process.env.SHOTS, `${name}.png`) });
}

/** Firefox, through WebDriver BiDi (playwright-core cannot drive Debian's). */
export async function firefox(prefs = {}) {
  const { launch } = await import("puppeteer-core");
  return launch({
    browser: "firefox",
    executablePath: which("firefox-esr"),
    headless: true,
    acceptInsecureCerts: true,
    extraPrefsFirefox: {
      "media.navigator.streams.fake": true,
      "media.navigator.permission.disabled": true,
      "media.peerconnection.ice.obfuscate_host_addresses": false,
      "media.autoplay.default": 0,
      "media.autoplay.blocking_policy": 0,
      "app.update.enabled": false,
      "toolkit.telemetry.enabled": false,
      "network.captive-portal-service.enabled": false,
      "network.connectivity-service.enabled": false,
      ...prefs,
    },
  });
}
