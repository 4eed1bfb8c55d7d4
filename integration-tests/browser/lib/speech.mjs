// Real recorded speech as microphones, and what was heard as words.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { bin, models, root } from "./system.mjs";

export const speech = path.join(root, "integration-tests/speech");

/** What the stories say: per line the recording (in `speech`), its text, and a word that no other line has. */
export const LINES = JSON.parse(fs.readFileSync(new URL("lines.json", import.meta.url), "utf8"));

/** File → 48 kHz mono 16 bit, which is what Chromium's fake microphone takes. */
export function microphone(file, folder) {
  const out = path.join(folder, `${path.basename(file, ".wav")}-48k.wav`);
  if (!fs.existsSync(out)) execFileSync("sox", [file, "-r", "48000", "-c", "1", "-b", "16", out]);
  return out;
}

/** What our own recogniser hears in an audio file of any kind, as plain text. */
export function recognise(file) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "heard-"));
  const wav = path.join(folder, "16k.wav");
  execFileSync("ffmpeg", ["-nostdin", "-loglevel", "error", "-y", "-i", file, "-ac", "1", "-ar", "16000", wav]);
  const sums = fs.readFileSync(path.join(models, "SHA256SUMS"), "utf8").split("\n").map((line) => line.split("  ")[1]).filter(Boolean);
  const model = (part) => path.join(models, sums.find((name) => name.includes(part)));
  const out = execFileSync(path.join(bin, "offload-worker"), ["recognise", wav, "--model", model("tiny.en"), "--vad", model("silero")], { encoding: "utf8", maxBuffer: 1 << 26 });
  fs.rmSync(folder, { recursive: true });
  return JSON.parse(out).segments.map((segment) => segment.text).join(" ");
}

// British spellings of the readings, American ones of the model.
const SPELL = { mr: "mister", mrs: "missus", rumours: "rumors", practised: "practiced", neighbours: "neighbors", flavour: "flavor" };
/** Lower case, no punctuation, a few spellings made one. */
export function words(text) {
  return text.toLowerCase().replace(/[’']/g, "").replace(/[^a-z0-9 ]+/g, " ").split(/\s+/).filter(Boolean).map((word) => SPELL[word] ?? word);
}

/** Word error rate of `heard` against `said`: edit distance over the number of words said. */
export function wordErrorRate(said, heard) {
  const a = words(said), b = words(heard);
  let row = b.map((_, j) => j + 1);
  row.unshift(0);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length] / Math.max(1, a.length);
}

/** Share of the distinct longer words said that were also heard: robust against loops and cut ends. */
export function wordsFound(said, heard) {
  const want = new Set(words(said).filter((word) => word.length > 3)), got = new Set(words(heard));
  return [...want].filter((word) => got.has(word)).length / Math.max(1, want.size);
}
