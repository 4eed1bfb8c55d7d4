// Every page, in light and dark, narrow and wide: readable, reachable, clean for axe-core.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { axe, joinCall, openPage, shot } from "../lib/browser.mjs";
import { Stage } from "../lib/stage.mjs";

describe("pages", { concurrency: false, timeout: 300_000 }, () => {
  let stage, callId, browser;

  before(async () => {
    stage = await Stage.set();
    callId = await stage.call(await stage.person("alice"));
    browser = await stage.chromium();
  });
  after(() => stage?.strike());

  const PAGES = [
    ["signin", null, "/signin"],
    ["channels", "alice", "/"],
    ["prejoin", "alice", () => `/call/${callId}`],
    ["call", "alice", () => `/call/${callId}`, (page) => joinCall(page, stage.system, callId)],
    ["officer", "olga", "/officer"],
    ["ops", "otto", "/ops"],
    ["people", "admin", "/people"],
  ];
  for (const [name, person, where, act] of PAGES) {
    it(`${name} is clean for axe-core, readable at 360 px and 1920 px, in light and dark`, async () => {
      const page = person ? await stage.page(person) : await openPage(browser);
      const route = typeof where === "function" ? where() : where;
      for (const [colorScheme, width] of [["light", 1920], ["dark", 1920], ["light", 360], ["dark", 360]]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: width === 360 ? 740 : 1080 });
        // In a call nobody reloads to change the theme or to turn the phone.
        if (!act) await page.goto(`${stage.system.http}${route}`);
        else if (colorScheme === "light" && width === 1920) await act(page);
        await page.locator("main, [role=main]").first().waitFor();
        // With the page's own content; a page that still loads has no heading.
        await page.locator("h1").first().waitFor({ state: "attached" });
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(overflow <= 0, `${name} at ${width}px scrolls sideways by ${overflow}px`);
        assert.deepEqual(await axe(page), [], `${name} ${colorScheme} ${width}`);
        await shot(page, `${name}-${colorScheme}-${width}`);
      }
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });
  }

  it("a channel is read back to its first message, and what is being read stays where it is", async () => {
    const bob = await stage.person("bob");
    const channel = (await bob.post("/channels", { name: "long", topic: "" })).id;
    for (let n = 1; n <= 250; n++) await bob.post(`/channels/${channel}/messages`, { text: `message ${n}` });
    const page = await stage.page("alice");
    await page.goto(`${stage.system.http}/?channel=${channel}`);
    await page.getByText("message 250", { exact: true }).waitFor();
    const list = page.getByTestId("message-list");
    assert.equal(await page.getByTestId("message").count(), 100);
    const read = page.getByText("message 151", { exact: true });
    await list.evaluate((box) => box.scrollTo({ top: 0 }));
    // By scrolling alone; the message that was on top is where it was, with older ones above it.
    await page.getByText("message 52", { exact: true }).waitFor({ state: "attached" });
    assert.ok(await read.evaluate((text) => {
      const box = text.closest("[role=log]").getBoundingClientRect();
      const { top, bottom } = text.getBoundingClientRect();
      return top >= box.top && bottom <= box.bottom;
    }), "the message that was read has moved out of sight");
    await shot(page, "channel-read-back");
    // By the keyboard alone.
    await page.getByTestId("messages-earlier").focus();
    await page.keyboard.press("Enter");
    await page.getByText("message 1", { exact: true }).waitFor({ state: "attached" });
    await page.getByTestId("messages-earlier").waitFor({ state: "detached" });
    assert.equal(await page.getByTestId("message").count(), 250);
    assert.deepEqual(await axe(page), []);
    await bob.post(`/channels/${channel}/messages`, { text: "something new" });
    await page.getByText("something new", { exact: true }).waitFor({ state: "attached" });
    assert.equal(await page.getByTestId("message").count(), 251);
    assert.deepEqual(page.problems, []);
    await page.context().close();
  });

  it("the sign-in form works with the keyboard alone", async () => {
    const page = await openPage(browser);
    await page.goto(`${stage.system.http}/signin`);
    await page.getByTestId("username").focus();
    await page.keyboard.type("bob");
    await page.keyboard.press("Tab");
    await page.keyboard.type("wrong password entirely");
    await page.keyboard.press("Enter");
    await page.getByTestId("form-error").waitFor();
  });
});
