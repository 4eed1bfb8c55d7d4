// Debian's Chromium through playwright-core, with the flags that keep it quiet and offline.
import { execFileSync } from 'node:child_process'
import { chromium } from 'playwright-core'
import { NOW } from './data.mjs'

export function openBrowser() {
  const executablePath = process.env.CHROMIUM ?? execFileSync('which', ['chromium']).toString().trim()
  return chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--autoplay-policy=no-user-gesture-required', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  })
}

/** The pages worth looking at: [name, path, user or null, what to do first]. */
export const PAGES = [
  ['signin', '/signin', null],
  ['setup', '/setup?token=abc', null],
  ['join', '/join/8Kd0sJx2Lm', null],
  ['channels', '/', 'maria'],
  ['channel', '/?channel=ch-water', 'maria'],
  ['prejoin', '/call/c-7f3a91d2', 'maria', async (page) => void (await page.waitForTimeout(900))],
  ['call-1', '/call/c-7f3a91d2?demo=1', 'maria'],
  ['call-3', '/call/c-7f3a91d2?demo=3', 'maria'],
  ['call-8', '/call/c-7f3a91d2?demo=8', 'maria', async (page) => void (await page.getByTestId('chat-toggle').click())],
  ['call-14', '/call/c-7f3a91d2?demo=14', 'maria'],
  ['call-share', '/call/c-7f3a91d2?demo=6&share=1', 'maria', async (page) => {
    await page.getByTestId('more-menu').waitFor()
    if (page.viewportSize().width > 700) await page.getByTestId('people-toggle').click()
  }],
  ['call-more', '/call/c-7f3a91d2?demo=4', 'maria', async (page) => void (await page.getByTestId('more-menu').click())],
  ['call-consent', '/call/c-7f3a91d2?demo=4', 'aylin', null, { consent: 'none' }],
  ['missing', '/nowhere', 'maria'],
  ['officer', '/officer', 'maria'],
  ['officer-hits', '/officer?q=valve', 'maria'],
  ['recording', '/officer/r-1?q=valve', 'maria', async (page) => {
    await page.getByTestId('verify').click()
    await page.getByTestId('verify-result').waitFor()
  }],
  ['ops', '/ops', 'maria'],
  ['people', '/people', 'maria'],
]

export async function openPage(browser, base, [, path, user, act, change], options, fake) {
  const context = await browser.newContext({ ...options, locale: 'en-GB', timezoneId: 'Europe/Berlin', permissions: ['microphone', 'camera'], baseURL: base })
  if (user) await context.addCookies([{ name: 'conclave_session', value: user, url: base }])
  if (change) for (const p of fake.state.call.participants) p.consent = change.consent
  const page = await context.newPage()
  await page.clock.setFixedTime(NOW)
  const problems = []
  page.on('console', (message) => message.type() === 'error' && !/status of 401/.test(message.text()) && problems.push(message.text()))
  page.on('pageerror', (error) => problems.push(String(error)))
  await page.goto(path)
  await page.waitForLoadState('networkidle')
  await page.evaluate(() => document.fonts.ready)
  await act?.(page)
  await page.waitForTimeout(450)
  if (change) for (const p of fake.state.call.participants) p.consent = 'granted'
  return { page, context, problems }
}
