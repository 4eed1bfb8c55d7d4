// How much of what one says another understands, over whatever lies between them.
import path from "node:path";
import { listen, say } from "./browser.mjs";
import { allHeard } from "./link.mjs";
import { LINES, recognise, speech, wordErrorRate, words } from "./speech.mjs";

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
