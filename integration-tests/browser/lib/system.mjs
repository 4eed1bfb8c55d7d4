// The system under test: `conclave up` with its own data folder, as a user starts it.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../..");
export const bin = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, "target"), process.env.CONCLAVE_PROFILE ?? "debug");
export const models = process.env.CONCLAVE_MODELS ?? path.join(root, "models");

/** Waits until `check` gives something truthy; fails with `what` after `limitMs`. The only kind of waiting in these stories. */
export async function until(what, check, limitMs = 30_000) {
  const end = Date.now() + limitMs;
  let last;
  for (;;) {
    try {
      const found = await check();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`not within ${limitMs / 1000} s: ${what}${last ? ` (${last.message})` : ""}`);
    await new Promise((wake) => setTimeout(wake, 100));
  }
}

export class System {
  constructor(options = {}) {
    this.data = fs.mkdtempSync(path.join(os.tmpdir(), "conclave-story-"));
    this.http = "http://localhost:8065";
    this.options = options;
    this.output = "";
  }

  async start() {
    this.process = spawn(path.join(bin, "conclave"), ["up", "--data", this.data, "--models", models], {
      env: { ...process.env, ...this.options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (bytes) => { this.output += bytes; };
    this.process.stdout.on("data", keep);
    this.process.stderr.on("data", keep);
    const running = this.output.length;
    await until("conclave up says that it runs", () => {
      if (this.process.exitCode !== null) throw Object.assign(new Error(this.output), { fatal: true });
      return this.output.slice(running).includes("Conclave is running");
    }, 90_000);
    return this;
  }

  /** The one-time link that `conclave up` prints at the first start. */
  firstLink() {
    return this.output.match(/https?:\/\/\S*\/setup\?token=\S+/)?.[0];
  }

  log(part) {
    const file = path.join(this.data, "logs", `${part}.log`);
    return fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
  }

  /** Process ids of one part (or of all worker processes: "offload-worker"), found among our own descendants only. */
  pids(part) {
    const children = new Map();
    for (const entry of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        const stat = fs.readFileSync(`/proc/${entry}/stat`, "utf8");
        const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
        children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
      } catch { /* it ended meanwhile */ }
    }
    const found = [];
    const walk = (pid) => {
      for (const child of children.get(pid) ?? []) {
        try {
          const program = fs.readFileSync(`/proc/${child}/cmdline`, "utf8").split("\0")[0];
          if (path.basename(program) === part) found.push(child);
        } catch { /* it ended meanwhile */ }
        walk(child);
      }
    };
    walk(this.process.pid);
    return found;
  }

  kill(part) {
    const pids = this.pids(part);
    if (pids.length === 0) throw new Error(`no ${part} runs`);
    for (const pid of pids) process.kill(pid, "SIGKILL");
    return pids;
  }

  async stop({ keep = false } = {}) {
    if (this.process && this.process.exitCode === null) {
      this.process.kill("SIGTERM");
      await until("conclave up ends", () => this.process.exitCode !== null || this.process.signalCode !== null, 40_000);
    }
    if (!keep && !process.env.KEEP_STORY_DATA) fs.rmSync(this.data, { recursive: true, force: true });
  }
}

/** Sum over its labels of each of rtcd's metrics that the pattern fits. */
export async function metric(pattern) {
  const text = await (await fetch("http://127.0.0.1:8045/metrics")).text();
  return text.split("\n").filter((line) => !line.startsWith("#") && pattern.test(line)).reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** A person of the REST API: keeps the cookie, speaks JSON. */
export class Person {
  constructor(system, name) {
    this.system = system;
    this.name = name;
    this.cookie = "";
  }

  async call(method, route, body) {
    const response = await fetch(`${this.system.http}/api/v1${route}`, {
      method,
      headers: { "content-type": "application/json", origin: this.system.http, cookie: this.cookie },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    for (const line of response.headers.getSetCookie()) this.cookie = line.split(";")[0];
    const text = await response.text();
    const value = text && response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
    if (!response.ok) throw Object.assign(new Error(`${method} ${route}: ${response.status} ${text}`), { status: response.status, value });
    return value;
  }

  get(route) { return this.call("GET", route); }
  post(route, body = {}) { return this.call("POST", route, body); }
}

export const PASSWORD = "correct horse battery staple 9";

/** First administrator through the one-time link, then one account per name. Returns the administrator. */
export async function populate(system, people) {
  const link = new URL(system.firstLink());
  const admin = new Person(system, "admin");
  await admin.post("/session/setup", { token: link.searchParams.get("token"), username: "admin", display_name: "Ada Admin", password: PASSWORD });
  for (const [username, display_name, roles] of people) {
    await admin.post("/users", { username, display_name, password: PASSWORD, roles });
  }
  return admin;
}
