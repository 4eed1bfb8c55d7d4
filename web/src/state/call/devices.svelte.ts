/** Microphones, cameras and speakers: what there is, what was chosen last, and why one does not work. */
import { load, save } from '../storage'
import type { DeviceChoice } from './media'

export interface Device {
  id: string
  label: string
}

/** `gone`: it worked, and then was unplugged or taken back. */
export type DeviceProblem = 'denied' | 'missing' | 'busy' | 'insecure' | 'gone' | 'unknown'

export function problemOf(error: unknown): DeviceProblem {
  const name = error instanceof Error || error instanceof DOMException ? error.name : ''
  switch (name) {
    case 'NotAllowedError':
    case 'PermissionDeniedError':
    case 'SecurityError':
      return 'denied'
    case 'NotFoundError':
    case 'OverconstrainedError':
    case 'DevicesNotFoundError':
      return 'missing'
    case 'NotReadableError':
    case 'AbortError':
    case 'TrackStartError':
      return 'busy'
    default:
      return 'unknown'
  }
}

export class Devices {
  microphones: Device[] = $state.raw([])
  cameras: Device[] = $state.raw([])
  speakers: Device[] = $state.raw([])
  choice: DeviceChoice = $state({ microphone: load('microphone'), camera: load('camera'), speaker: load('speaker') })

  /** Without HTTPS (or localhost) browsers give no devices at all. */
  get available(): boolean {
    return typeof navigator.mediaDevices?.getUserMedia === 'function'
  }

  async refresh(): Promise<void> {
    if (!this.available) return
    const all = await navigator.mediaDevices.enumerateDevices().catch(() => [])
    const of = (kind: MediaDeviceKind) =>
      all.filter((device) => device.kind === kind && device.deviceId).map((device) => ({ id: device.deviceId, label: device.label }))
    this.microphones = of('audioinput')
    this.cameras = of('videoinput')
    this.speakers = of('audiooutput')
  }

  choose(kind: keyof DeviceChoice, id: string): void {
    this.choice[kind] = id
    save(kind, id)
  }

  /** The device that is really used: a remembered one may be unplugged. */
  effective(kind: keyof DeviceChoice): string {
    const list = kind === 'microphone' ? this.microphones : kind === 'camera' ? this.cameras : this.speakers
    const chosen = this.choice[kind]
    return list.some((device) => device.id === chosen) ? chosen! : (list[0]?.id ?? '')
  }
}
