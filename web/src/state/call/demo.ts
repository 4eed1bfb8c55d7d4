/** Made-up people for designing the call page without a media node: `/call/ID?demo=8`, development builds only. */
import { messages } from '../../api/channels'
import type { CallModel } from './call.svelte'
import type { MediaPerson, MediaTrack } from './media'

const NAMES = ['Maria Keller', 'Jonas Brandt', 'Aylin Demir', 'Samuel Okafor', 'Chiara Rossi', 'Piotr Nowak', 'Hanna Virtanen', 'Luc Moreau', 'Nadia Haddad', 'Tom Weber', 'Ingrid Solberg', 'Mateo García', 'Wei Zhang', 'Eva Horváth', 'Owen Hughes', 'Zofia Lis']

export async function startDemo(model: CallModel, count: number): Promise<void> {
  const share = new URLSearchParams(location.search).has('share')
  const listed = model.call?.participants ?? []
  const order = [...listed.filter((p) => p.identity === model.identity), ...listed.filter((p) => p.identity !== model.identity)]
  const people = Array.from({ length: count }, (_, i): MediaPerson => ({
    identity: i === 0 ? model.identity : (order[i]?.identity ?? `u-demo-${i}`),
    name: order[i]?.display_name ?? NAMES[i % NAMES.length] ?? `Person ${i}`,
    local: i === 0,
    speaking: i === 2,
    quality: i === 5 ? 'poor' : i % 3 === 0 ? 'good' : 'excellent',
    joinedAt: 0,
    tracks: {
      microphone: { key: `mic-${i}`, muted: i % 4 === 3 || i === 0, ended: false, attach: () => () => undefined },
      ...(i % 3 !== 1 && i !== 4 ? { camera: picture(`cam-${i}`, paintFace(i)) } : {}),
      ...(share && i === 1 ? { screen: picture(`screen-${i}`, paintSheet) } : {}),
    },
  }))
  model.chat = await messages(model.call?.channel_id ?? '', model.id)
  model.captionsShown = true
  model.phase = 'in'
  model.mediaPhase = 'connected'
  model.people = people
  model.recentSpeakers = people.filter((p) => p.speaking).map((p) => p.identity)
  model.stats = { rttMs: 23, lossIn: 0.002, lossOut: 0.001, jitterMs: 4, sendBps: 812_000, receiveBps: 2_140_000, limitedBy: null, protocol: 'udp' }
  if (model.call?.captions.enabled) {
    const now = Date.now()
    const line = { call_id: model.id, track_sid: '', language: 'en', start_ms: now, end_ms: now, delay_ms: 900 }
    model.captions.handleCaption({ ...line, identity: people[1]?.identity ?? '', display_name: people[1]?.name ?? '', segment_id: 'a', committed: 'The pumping station is back on line since seven this morning.', pending: '', final: true }, now)
    model.captions.handleCaption({ ...line, identity: people[2]?.identity ?? '', display_name: people[2]?.name ?? '', segment_id: 'b', committed: 'Good. Then we can lift the restriction', pending: ' for the northern districts', final: false }, now)
  }
}

function picture(key: string, paint: (c: CanvasRenderingContext2D) => void): MediaTrack {
  return {
    key,
    muted: false,
    ended: false,
    attach(element) {
      const canvas = document.createElement('canvas')
      canvas.width = 1280
      canvas.height = 720
      const context = canvas.getContext('2d')!
      paint(context)
      element.srcObject = canvas.captureStream(5)
      const timer = setInterval(() => paint(context), 500)
      return () => {
        clearInterval(timer)
        element.srcObject = null
      }
    },
  }
}

const paintFace = (seed: number) => (c: CanvasRenderingContext2D) => {
  const hue = (seed * 67) % 360
  const sky = c.createLinearGradient(0, 0, 0, 720)
  sky.addColorStop(0, `hsl(${hue} 25% 62%)`)
  sky.addColorStop(1, `hsl(${hue} 28% 40%)`)
  c.fillStyle = sky
  c.fillRect(0, 0, 1280, 720)
  c.fillStyle = `hsl(${(hue + 30) % 360} 30% 28%)`
  c.beginPath()
  c.ellipse(640, 760, 360, 280, 0, 0, 7)
  c.fill()
  c.fillStyle = `hsl(${20 + (seed * 7) % 20} 45% ${40 + (seed * 11) % 35}%)`
  c.beginPath()
  c.ellipse(640, 360, 135, 170, 0, 0, 7)
  c.fill()
}

function paintSheet(c: CanvasRenderingContext2D): void {
  c.fillStyle = '#fbfcfd'
  c.fillRect(0, 0, 1280, 720)
  c.fillStyle = '#0d5c66'
  c.fillRect(0, 0, 1280, 64)
  c.fillStyle = '#fff'
  c.font = '600 28px sans-serif'
  c.fillText('Water supply, situation 21 November', 32, 42)
  const bars = [60, 92, 78, 110, 140, 121, 160, 171, 150, 190]
  bars.forEach((value, i) => {
    c.fillStyle = i === bars.length - 1 ? '#c98a12' : '#3a8f98'
    c.fillRect(80 + i * 84, 600 - value * 2, 52, value * 2)
  })
  c.fillStyle = '#4f5d6a'
  c.font = '22px sans-serif'
  ;['Reservoir level (cm)', 'Repair crews: 4 of 5 on site', 'Next briefing 14:00'].forEach((line, i) => c.fillText(line, 940, 160 + i * 44))
}
