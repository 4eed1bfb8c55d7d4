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
