// axe-core over every page in both themes, narrow and wide: `npm run axe`. Any violation fails.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { createServer } from 'vite'
import { openBrowser, openPage, PAGES } from './browser.mjs'
import { startFake } from './fake.mjs'

const source = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const wanted = process.argv.slice(2)
const fake = await startFake()
const vite = await createServer({ root: fileURLToPath(new URL('..', import.meta.url)), server: { port: 0, host: '127.0.0.1', proxy: { '/api': { target: fake.url, ws: true } } }, logLevel: 'silent' })
await vite.listen()
const base = vite.resolvedUrls.local[0].replace(/\/$/, '')
const browser = await openBrowser()
let violations = 0
let looked = 0
for (const entry of PAGES) {
  if (wanted.length > 0 && !wanted.includes(entry[0])) continue
  for (const [colorScheme, width] of [['light', 1280], ['dark', 1280], ['light', 360], ['dark', 360]]) {
    const { page, context, problems } = await openPage(browser, base, entry, { viewport: { width, height: 800 }, colorScheme, reducedMotion: 'reduce' }, fake)
    await page.evaluate(source)
    const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }))
    looked += 1
    for (const v of result.violations) {
      violations += 1
      console.log(`${entry[0]} ${colorScheme} ${width}: ${v.id} (${v.impact}) ${v.help}`)
      for (const node of v.nodes.slice(0, 3)) console.log(`   ${node.target.join(' ')}  ${node.html.slice(0, 140)}  ${(node.failureSummary ?? '').split('\n')[1] ?? ''}`)
    }
    for (const problem of problems) console.log(`${entry[0]} ${colorScheme} ${width}: ${problem}`)
    violations += problems.length
    await context.close()
  }
}
await browser.close()
await vite.close()
fake.close()
console.log(`${looked} page views, ${violations} findings`)
process.exit(violations > 0 ? 1 : 0)
