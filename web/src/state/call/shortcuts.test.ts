import { describe, expect, it } from 'vitest'
import { commandFor, SHORTCUTS } from './shortcuts'

const press = (key: string, target: HTMLElement = document.body, more: KeyboardEventInit = {}) => {
  document.body.append(target)
  let command: ReturnType<typeof commandFor> = null
  target.addEventListener('keydown', (event) => (command = commandFor(event)))
  target.dispatchEvent(new KeyboardEvent('keydown', { key, ...more }))
  return command
}

describe('shortcuts', () => {
  it('has no key twice', () => {
    expect(new Set(SHORTCUTS.map((s) => s.key)).size).toBe(SHORTCUTS.length)
  })
  it('acts on a plain key, also with caps lock', () => {
    expect(press('m', document.createElement('div'))).toBe('microphone')
    expect(press('M', document.createElement('div'))).toBe('microphone')
  })
  it('leaves typing alone', () => {
    for (const name of ['input', 'textarea', 'select']) expect(press('m', document.createElement(name))).toBeNull()
  })
  it("leaves the browser's own shortcuts alone", () => {
    expect(press('c', document.createElement('div'), { ctrlKey: true })).toBeNull()
    expect(press('r', document.createElement('div'), { metaKey: true })).toBeNull()
  })
})
