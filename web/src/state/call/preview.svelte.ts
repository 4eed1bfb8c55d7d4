/** One's own microphone and camera before joining: asked for one by one, so that one failing does not take the other along. */
import { problemOf, type Devices, type DeviceProblem } from './devices.svelte'
import { meter } from './level'

type Kind = 'microphone' | 'camera'

interface Capture {
  wanted: boolean
  on: boolean
  stream: MediaStream | null
  problem: DeviceProblem | null
}

/** Speech is well above this on the meter; a muted headset stays below. */
const HEARD_LEVEL = 0.35
/** After this long without a sound we say that something may be wrong. */
const QUIET_MS = 6_000

export class Preview {
  microphone: Capture = $state(nothing())
  camera: Capture = $state(nothing())
  level = $state(0)
  heard = $state(false)
  quiet = $state(false)
  readonly #devices: Devices
  #stopMeter: (() => void) | null = null
  #quietTimer: ReturnType<typeof setTimeout> | undefined
  #stopped = false
  /** Counts the wishes of each kind: the answer to an older one comes too late. */
  readonly #wishes = { microphone: 0, camera: 0 }

  constructor(devices: Devices) {
    this.#devices = devices
  }

  async start(want: { microphone: boolean; camera: boolean }): Promise<void> {
    this.#stopped = false
    const before = this.#wishes.camera
    await this.set('microphone', want.microphone)
    if (this.#stopped) return
    // While the browser asked about the microphone, somebody may have pressed the camera's button.
    if (before === this.#wishes.camera) await this.set('camera', want.camera)
    await this.#devices.refresh()
  }

  async set(kind: Kind, wanted: boolean): Promise<void> {
    const wish = ++this.#wishes[kind]
    this.#release(kind)
    this[kind].wanted = wanted
    this[kind].problem = null
    if (!wanted) return
    if (!this.#devices.available) {
      this[kind].wanted = false
      this[kind].problem = 'insecure'
      return
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia(this.#constraints(kind))
      if (this.#stopped || wish !== this.#wishes[kind]) return stopTracks(stream)
      this[kind].stream = stream
      this[kind].on = true
      if (kind === 'microphone') this.#listen(stream)
      // Names of devices are only told after a permission.
      void this.#devices.refresh()
    } catch (error) {
      if (wish !== this.#wishes[kind]) return
      this[kind].wanted = false
      this[kind].problem = problemOf(error)
    }
  }

  async restart(kind: Kind): Promise<void> {
    if (this[kind].wanted) await this.set(kind, true)
  }

  stop(): void {
    this.#stopped = true
    this.#release('microphone')
    this.#release('camera')
  }

  #constraints(kind: Kind): MediaStreamConstraints {
    const chosen = this.#devices.choice[kind]
    // Not `exact`: a remembered device that is unplugged must not keep the others from being used.
    const device = chosen ? { deviceId: { ideal: chosen } } : {}
    return kind === 'microphone'
      ? { audio: { ...device, echoCancellation: true, noiseSuppression: true, autoGainControl: true } }
      : { video: { ...device, width: { ideal: 1280 }, height: { ideal: 720 } } }
  }

  #listen(stream: MediaStream): void {
    this.heard = false
    this.quiet = false
    this.#stopMeter = meter(stream, (level) => {
      this.level = level
      if (level > HEARD_LEVEL) this.heard = true
    })
    this.#quietTimer = setTimeout(() => (this.quiet = true), QUIET_MS)
  }

  #release(kind: Kind): void {
    if (kind === 'microphone') {
      this.#stopMeter?.()
      this.#stopMeter = null
      clearTimeout(this.#quietTimer)
      this.level = 0
    }
    const stream = this[kind].stream
    if (stream) stopTracks(stream)
    this[kind].stream = null
    this[kind].on = false
  }
}

const nothing = (): Capture => ({ wanted: false, on: false, stream: null, problem: null })

function stopTracks(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop()
}
