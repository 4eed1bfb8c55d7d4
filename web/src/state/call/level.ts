/** Loudness of a microphone, for the meter before joining. */

/** Speech at arm's length sits between these; below is room noise. */
const FLOOR_DB = -60
const FULL_DB = -12

export function levelOf(samples: Float32Array): number {
  let sum = 0
  for (const sample of samples) sum += sample * sample
  const db = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-12)
  return Math.min(1, Math.max(0, (db - FLOOR_DB) / (FULL_DB - FLOOR_DB)))
}

export function meter(stream: MediaStream, onLevel: (level: number) => void): () => void {
  const context = new AudioContext()
  const analyser = context.createAnalyser()
  analyser.fftSize = 1024
  context.createMediaStreamSource(stream).connect(analyser)
  const samples = new Float32Array(analyser.fftSize)
  let frame = 0
  const tick = () => {
    analyser.getFloatTimeDomainData(samples)
    onLevel(levelOf(samples))
    frame = requestAnimationFrame(tick)
  }
  tick()
  return () => {
    cancelAnimationFrame(frame)
    void context.close()
  }
}

/** Two soft notes for the speaker test and for an incoming call. Silent if the browser has not seen a click yet. */
export async function chime(speaker?: string): Promise<boolean> {
  const context = new AudioContext()
  try {
    const sink = context as AudioContext & { setSinkId?: (id: string) => Promise<void> }
    if (speaker) await sink.setSinkId?.(speaker).catch(() => undefined)
    await Promise.race([context.resume(), new Promise((done) => setTimeout(done, 300))])
    if (context.state !== 'running') return false
    const gain = context.createGain()
    gain.connect(context.destination)
    ;[523.25, 659.25].forEach((frequency, i) => {
      const note = context.createOscillator()
      const start = context.currentTime + i * 0.22
      note.frequency.value = frequency
      note.connect(gain)
      gain.gain.setValueAtTime(0.0001, start)
      gain.gain.exponentialRampToValueAtTime(0.18, start + 0.03)
      gain.gain.exponentialRampToValueAtTime(0.0001, start + 0.4)
      note.start(start)
      note.stop(start + 0.45)
    })
    await new Promise((done) => setTimeout(done, 800))
    return true
  } finally {
    void context.close()
  }
}
