/** Live captions: lines by segment, committed text that never changes, pending text that may. */
import type { Caption } from '../../api/types'
import type { SpokenLine } from './media'

export interface CaptionLine {
  id: string
  identity: string
  name: string
  committed: string
  pending: string
  final: boolean
  language: string
  at: number
}

/** One hour of talk is about 900 lines; older ones are in the transcript. */
const LINES_MAX = 1_000
/** A finished line stays readable this long after its last change. */
export const SHOW_MS = 7_000

export class Captions {
  lines: CaptionLine[] = $state.raw([])
  /** The newest committed sentence, for the live region: each is announced once. */
  announced: { id: string; text: string } | null = $state.raw(null)

  handleCaption(caption: Caption, now: number): void {
    this.#put({
      id: caption.segment_id,
      identity: caption.identity,
      name: caption.display_name,
      committed: caption.committed,
      pending: caption.pending,
      final: caption.final,
      language: caption.language,
      at: now,
    })
  }

  /** The same words over the media path, used while the event stream is away. It does not tell pending from committed. */
  handleSpoken(line: SpokenLine, name: string, now: number): void {
    this.#put({
      id: line.segmentId,
      identity: line.identity,
      name,
      committed: line.final ? line.text : '',
      pending: line.final ? '' : line.text,
      final: line.final,
      language: line.language,
      at: now,
    })
  }

  /** A line from before one joined or from a break: to read up, not to announce. */
  handleEarlier(caption: Caption): void {
    const known = this.lines.findIndex((other) => other.id === caption.segment_id)
    const before = this.lines[known]
    if (before) {
      // What came live meanwhile is newer, unless the break cut it short.
      if (before.final || (!caption.final && caption.committed.length <= before.committed.length)) return
      this.lines = this.lines.with(known, { ...before, committed: caption.committed, pending: '', final: caption.final })
      return
    }
    if (!caption.committed) return
    const line = { id: caption.segment_id, identity: caption.identity, name: caption.display_name, committed: caption.committed, pending: '', final: caption.final, language: caption.language, at: caption.end_ms }
    const at = this.lines.findIndex((other) => other.at > line.at)
    this.lines = (at < 0 ? [...this.lines, line] : this.lines.toSpliced(at, 0, line)).slice(-LINES_MAX)
  }

  /** The lines worth showing over the picture. */
  visible(now: number, most: number): CaptionLine[] {
    return this.lines.filter((line) => now - line.at < SHOW_MS && (line.committed || line.pending)).slice(-most)
  }

  clear(): void {
    this.lines = []
    this.announced = null
  }

  #put(line: CaptionLine): void {
    const index = this.lines.findIndex((other) => other.id === line.id)
    const before = index < 0 ? undefined : this.lines[index]
    // A late copy from the other path must not take back what was committed.
    if (before && (before.final || (!line.final && line.committed.length < before.committed.length && before.committed.startsWith(line.committed)))) {
      if (before.final || !line.pending) return
      line = { ...line, committed: before.committed, pending: rest(before.committed, line.committed + line.pending) }
    }
    if (line.final && line.committed) this.announced = { id: line.id, text: `${line.name}: ${line.committed}` }
    this.lines = index < 0 ? [...this.lines, line].slice(-LINES_MAX) : this.lines.with(index, line)
  }
}

function rest(committed: string, text: string): string {
  return text.startsWith(committed) ? text.slice(committed.length) : ''
}
