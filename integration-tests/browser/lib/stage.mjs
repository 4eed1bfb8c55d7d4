// What most stories begin with: a running system, people with accounts, a channel, a call.
import path from "node:path";
import fs from "node:fs";
import { joinCall, openChromium, openPage, signIn, withVoice } from "./browser.mjs";
import { PASSWORD, Person, System, populate } from "./system.mjs";

export const CAST = [
  ["alice", "Alice Host", ["user", "host"]],
  ["bob", "Bob", ["user"]],
  ["carol", "Carol", ["user"]],
  ["olga", "Olga Officer", ["user", "officer"]],
  ["otto", "Otto Ops", ["user", "ops"]],
];

export class Stage {
  static async set(options = {}) {
    const stage = new Stage();
    stage.closers = [];
    stage.system = await new System(options).start();
    stage.admin = await populate(stage.system, CAST);
    stage.channel = (await stage.admin.post("/channels", { name: "planning", topic: "What we do next" })).id;
    stage.folder = path.join(stage.system.data, "story");
    fs.mkdirSync(stage.folder);
    return stage;
  }

  /** The Chromium of this story: everybody has a profile of their own in it, and so a renderer process. */
  async chromium() {
    this.browser ??= await openChromium();
    return this.browser;
  }

  /** A signed-in page of that person, with a microphone that speaks on demand. `stored`: the page's own settings. */
  async page(name, { stored = {}, ...options } = {}) {
    const page = await openPage(await this.chromium(), options);
    await withVoice(page);
    await page.addInitScript((settings) => {
      for (const [key, value] of Object.entries(settings)) localStorage.setItem(`conclave.${key}`, value);
    }, { share: "tab", ...stored });
    await signIn(page, this.system, name, PASSWORD);
    return page;
  }

  /** A REST client of that person. */
  async person(name) {
    const person = new Person(this.system, name);
    await person.post("/session", { username: name, password: PASSWORD });
    return person;
  }

  /** The call of the channel, started by `person`. */
  async call(person) {
    const { call } = await person.post(`/channels/${this.channel}/call`);
    return call.id;
  }

  /** Alice and Bob are in the channel's call; `rest` is Alice's REST client. */
  async aliceAndBob() {
    const rest = await this.person("alice");
    const callId = await this.call(rest);
    const [alice, bob] = [await this.page("alice"), await this.page("bob")];
    for (const page of [alice, bob]) await joinCall(page, this.system, callId);
    return { rest, callId, alice, bob };
  }

  async strike() {
    // Pages that say good-bye: a media node with people in calls gives them time when it is asked to end.
    const pages = this.browser?.contexts().flatMap((context) => context.pages()) ?? [];
    await Promise.all(pages.map((page) => page.goto("about:blank", { timeout: 5_000 }).catch(() => {})));
    for (const close of this.closers.reverse()) await close().catch(() => {});
    await this.browser?.close().catch(() => {});
    await this.system.stop();
  }
}
