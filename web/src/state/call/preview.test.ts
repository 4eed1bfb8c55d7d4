import { afterEach, describe, expect, it, vi } from 'vitest'
import { Devices } from './devices.svelte'
import { Preview } from './preview.svelte'

/** A browser that answers when told to. */
function browser() {
  const asked: { kind: 'microphone' | 'camera'; answer: () => void; stopped: () => boolean }[] = []
  const getUserMedia = (wish: MediaStreamConstraints) =>
    new Promise<MediaStream>((resolve) => {
      let stopped = false
      const stream = { getTracks: () => [{ stop: () => (stopped = true) }] } as unknown as MediaStream
      asked.push({ kind: wish.video ? 'camera' : 'microphone', answer: () => resolve(stream), stopped: () => stopped })
    })
  vi.stubGlobal('navigator', { ...navigator, mediaDevices: { getUserMedia, enumerateDevices: async () => [] } })
  return asked
}
const settle = () => new Promise((done) => setTimeout(done))

describe('preview', () => {
  afterEach(() => vi.unstubAllGlobals())

  it('keeps a camera that was switched on while the browser asked about the microphone', async () => {
    const asked = browser()
    const preview = new Preview(new Devices())
    void preview.start({ microphone: false, camera: false })
    const on = preview.set('camera', true)
    await settle()
    asked[0]?.answer()
    await on
    await settle()
    expect(preview.camera).toMatchObject({ wanted: true, on: true })
    expect(asked.map((one) => one.kind)).toEqual(['camera'])
  })

  it('does not ask for a camera once the page is gone', async () => {
    const asked = browser()
    const preview = new Preview(new Devices())
    void preview.start({ microphone: true, camera: true })
    preview.stop()
    asked[0]?.answer()
    await settle()
    expect(asked.map((one) => one.kind)).toEqual(['microphone'])
    expect(asked[0]?.stopped()).toBe(true)
  })

  it('lets go of a device whose turn has passed', async () => {
    const asked = browser()
    const preview = new Preview(new Devices())
    const first = preview.set('camera', true)
    void preview.set('camera', false)
    const second = preview.set('camera', true)
    asked[1]?.answer()
    await second
    asked[0]?.answer()
    await first
    expect([asked[0]?.stopped(), asked[1]?.stopped()]).toEqual([true, false])
    expect(preview.camera.on).toBe(true)
  })
})
