// How much of what one says another understands, over whatever lies between them; and who is behind it.
import path from "node:path";
import { joinCall, listen, say } from "./browser.mjs";
import { BadLink, allHeard, behind } from "./link.mjs";
import { LINES, recognise, speech, wordErrorRate, words } from "./speech.mjs";
import { Stage } from "./stage.mjs";

/** On a machine that is busy with other things, browsers drop sounds that the link did not: then it is said again. */
const TIMES_MAX = 3;

/**
 * Wrong words of the lines that people say (`[page, line]`), at `listener`, and of the same recordings where nothing is lost; each line is said
 * until no more than `factor` times as many are wrong, three times at most. The best counts.
 */
export async function wrongWords(talks, listener, folder, factor) {
  const sum = { wrong: 0, clean: 0 };
  for (const [talker, line] of talks) {
    const { file, text } = LINES[line];
    const wrongIn = (heard) => Math.round(wordErrorRate(text, heard) * words(text).length);
    const clean = wrongIn(recognise(path.join(speech, file)));
    let best = Infinity;
    for (let said = 1; said <= TIMES_MAX && best > factor * clean; said++) {
      const stop = await listen(listener, path.join(folder, `${line}-${said}.wav`));
      await say(talker, path.join(speech, file));
      await allHeard(listener);
      const heard = recognise(await stop());
      best = Math.min(best, wrongIn(heard));
      console.log(`# ${line}, said ${said} times: ${wrongIn(heard)} of ${words(text).length} words wrong, clean ${clean}: ${heard}`);
    }
    sum.wrong += best;
    sum.clean += clean;
  }
  return sum;
}

/** Some people in a call of Alice's, Bob behind a bad link that is good as yet: `{ stage, link, pages }`. */
export async function bobBehindALink(names) {
  const stage = await Stage.set();
  const link = await BadLink.open();
  stage.closers.push(() => link.close());
  const callId = await stage.call(await stage.person("alice"));
  const pages = {};
  for (const name of names) pages[name] = await stage.page(name);
  await behind(pages.bob, link);
  for (const page of Object.values(pages)) await joinCall(page, stage.system, callId);
  await pages.bob.locator('[data-testid="tile"]').nth(names.length - 1).waitFor();
  return { stage, link, pages };
}
