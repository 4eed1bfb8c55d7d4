// Somebody without an account is let into one call by a link: name, devices, talk, other devices, leave. And nothing else.
import assert from "node:assert/strict";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { HEARD, axe, framesOf, joinCall, loudness, openChromium, openPage, say, shot, signIn, tilesOf } from "../lib/browser.mjs";
import { LINES, speech } from "../lib/speech.mjs";
import { Stage } from "../lib/stage.mjs";
import { PASSWORD, until } from "../lib/system.mjs";

describe("a guest", { concurrency: false, timeout: 300_000 }, () => {
  let stage, alice, guest, browser, rest, callId, link, guestId;

  before(async () => {
    stage = await Stage.set();
    rest = await stage.person("alice");
    callId = await stage.call(rest);
    alice = await stage.page("alice");
    await joinCall(alice, stage.system, callId);
    // The guest's devices are Chromium's own: microphones that beep, cameras that draw a clock.
    browser = await openChromium({ args: ["--use-fake-device-for-media-stream=device-count=3"] });
    stage.closers.push(() => browser.close());
    guest = await openPage(browser, { locale: "de-DE", colorScheme: "dark", viewport: { width: 360, height: 740 } });
  });
  after(() => stage?.strike());

  /** The page is clean and fits, in German, in the dark, on a phone. */
  const fits = async (name) => {
    const overflow = await guest.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${name} scrolls sideways by ${overflow}px`);
    assert.deepEqual(await axe(guest), [], name);
    await shot(guest, `guest-${name}`);
  };
  const aliceSeesTheGuestMove = async () => {
    const before = await until("the guest's picture", () => framesOf(alice, guestId), 30_000);
    await until("it moves", async () => (await framesOf(alice, guestId)) > before + 5, 30_000);
  };
  const aliceHearsTheGuest = () => until("Alice hears the guest", async () => {
    const stop = await loudness(alice);
    await alice.waitForTimeout(1_500); // the microphones beep once a second
    return ((await stop())[guestId] ?? 0) > HEARD;
  });

  it("gets a link from the host", async () => {
    await alice.getByTestId("more-menu").click();
    await alice.getByTestId("guest-link").click();
    link = await alice.getByTestId("guest-link-url").inputValue();
    assert.match(link, /\/join\/\S{20,}$/);
    await alice.keyboard.press("Escape");
  });

  it("is asked for a name and for nothing else", async () => {
    await guest.goto(link);
    await guest.getByTestId("display-name").waitFor();
    await fits("door");
    await guest.getByTestId("submit").click();
    await guest.getByTestId("form-error").waitFor();
    await guest.getByTestId("display-name").fill("Grete");
    await guest.keyboard.press("Enter");
    await guest.getByTestId("prejoin").waitFor();
    assert.equal(await guest.getByRole("link").count(), 0, "there is nowhere else to go");
    await guest.getByTestId("prejoin-camera").click();
    await guest.locator("video").waitFor();
    await fits("prejoin");
  });

  it("joins, and both hear and see each other", async () => {
    // On a phone the way in is in sight without scrolling.
    const box = await guest.getByTestId("join-call").boundingBox();
    assert.ok(box.y + box.height <= 740, JSON.stringify(box));
    await guest.getByTestId("join-call").click();
    await guest.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor();
    guestId = await until("Alice sees the guest's tile", async () => (await tilesOf(alice)).find((identity) => identity.startsWith("g-")));
    await alice.locator(`[data-testid="tile"][data-identity="${guestId}"]`, { hasText: "Grete (guest)" }).waitFor();
    await aliceSeesTheGuestMove();
    await aliceHearsTheGuest();
    const stop = await loudness(guest);
    await say(alice, path.join(speech, LINES.a3.file));
    assert.ok(Math.max(...Object.values(await stop())) > HEARD);
    await fits("call");
  });

  it("switches the camera off and on", async () => {
    await guest.getByTestId("camera-toggle").click();
    await alice.locator(`[data-testid="tile"][data-identity="${guestId}"]:not(:has(video))`).waitFor();
    await guest.getByTestId("camera-toggle").click();
    await aliceSeesTheGuestMove();
  });

  it("changes camera and microphone in the call", async () => {
    await guest.getByTestId("more-menu").click();
    await guest.getByTestId("settings").click();
    const select = guest.getByTestId("camera-select");
    await until("the cameras are listed", async () => (await select.locator("option").count()) === 3);
    await fits("settings");
    const wanted = await select.locator("option").last().innerText();
    await select.selectOption({ label: wanted });
    await until("the other camera is used", async () => (await guest.locator(`[data-testid="tile"][data-identity="${guestId}"] video`).evaluate((video) => video.srcObject.getVideoTracks()[0].label)) === wanted);
    await guest.getByTestId("mic-select").selectOption({ index: 2 });
    await guest.keyboard.press("Escape");
    await aliceSeesTheGuestMove();
    await aliceHearsTheGuest();
  });

  it("writes and reads in the call's chat", async () => {
    await guest.getByTestId("chat-toggle").click();
    await guest.getByTestId("chat-input").fill("Guten Tag");
    await guest.getByTestId("chat-send").click();
    await alice.getByTestId("chat-toggle").click();
    await alice.getByTestId("chat-message").filter({ hasText: "Guten Tag" }).waitFor();
    await fits("chat");
    await guest.getByTestId("chat-toggle").click();
  });

  it("finds every other door closed", async () => {
    const other = (await stage.admin.post("/channels", { name: "secret", topic: "" })).id;
    const { call } = await rest.post(`/channels/${other}/call`);
    for (const route of ["/channels", `/calls/${call.id}`, `/channels/${stage.channel}/messages`, "/recordings", "/users", "/ops/calls"]) {
      const status = await guest.evaluate(async (url) => (await fetch(url)).status, `/api/v1${route}`);
      assert.ok(status === 403 || status === 404, `${route}: ${status}`);
    }
    const refused = [];
    guest.on("response", (response) => { if (response.status() === 403) refused.push(response.url()); });
    for (const route of ["/", "/officer", `/call/${call.id}`]) {
      await guest.goto(`${stage.system.http}${route}`);
      await guest.getByTestId("prejoin").waitFor();
      assert.equal(new URL(guest.url()).pathname, `/call/${callId}`);
    }
    assert.deepEqual(refused, [], "the page asks for what a guest may not have");
  });

  it("leaves, and may come back", async () => {
    await joinCall(guest, stage.system, callId);
    await guest.getByTestId("leave").click();
    await guest.getByTestId("call-ended").waitFor();
    await fits("left");
    await until("Alice is alone", async () => (await tilesOf(alice)).length === 1);
    await guest.getByTestId("rejoin").click();
    await guest.getByTestId("join-call").click();
    await guest.locator('[data-testid="call-page"][data-phase="in"][data-media="connected"]').waitFor();
    await until("Alice sees the guest again", async () => (await tilesOf(alice)).includes(guestId));
  });

  it("is out with the call's end, and the link is dead", async () => {
    await rest.post(`/calls/${callId}/end`);
    await guest.getByTestId("call-ended").waitFor();
    await guest.goto(link);
    await guest.getByTestId("display-name").fill("Grete");
    await guest.getByTestId("submit").click();
    await guest.getByTestId("form-error").waitFor();
    await fits("late");
    for (const page of [alice, guest]) assert.deepEqual(page.problems, []);
  });

  it("a colleague who opens a guest link is told that it would sign them out", async () => {
    const page = await openPage(browser);
    await signIn(page, stage.system, "bob", PASSWORD);
    await page.goto(link);
    await page.getByText("You are signed in as Bob").waitFor();
    await page.context().close();
  });
});
