// Screenshots of every page in light and dark, at 360 px and at 1920 px: `npm run shots [name…]`, into web/shots/ (not committed).
// Pages are served by Vite, because the made-up call exists in development builds only.
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createServer } from 'vite'
import { openBrowser, openPage, PAGES } from './browser.mjs'
import { startFake } from './fake.mjs'

const out = process.env.OUT ?? fileURLToPath(new URL('../shots', import.meta.url))
mkdirSync(out, { recursive: true })
const wanted = process.argv.slice(2)
const fake = await startFake()
process.env.CONCLAVE_API = fake.url
const vite = await createServer({ root: fileURLToPath(new URL('..', import.meta.url)), server: { port: 0, host: '127.0.0.1', proxy: { '/api': { target: fake.url, ws: true } } }, logLevel: 'warn' })
await vite.listen()
const base = vite.resolvedUrls.local[0].replace(/\/$/, '')
const browser = await openBrowser()
let bad = 0
for (const entry of PAGES) {
  if (wanted.length > 0 && !wanted.includes(entry[0])) continue
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1280, 1920]) {
      if (process.env.WIDTH && !process.env.WIDTH.split(',').includes(String(width))) continue
      if (process.env.THEME && process.env.THEME !== colorScheme) continue
      const viewport = { width, height: width === 360 ? 740 : width === 1280 ? 800 : 1080 }
      const { page, context, problems } = await openPage(browser, base, entry, { viewport, colorScheme }, fake)
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      if (wide > 0) problems.push(`wider than the window by ${wide} px`)
      for (const problem of problems) console.log(`${entry[0]} ${colorScheme} ${width}: ${problem}`)
      bad += problems.length
      await page.screenshot({ path: `${out}/${entry[0]}-${colorScheme}-${width}.png`, fullPage: !entry[0].startsWith('call') && process.env.FULL !== '0' })
      await context.close()
    }
  }
}
await browser.close()
await vite.close()
fake.close()
process.exit(bad > 0 ? 1 : 0)
