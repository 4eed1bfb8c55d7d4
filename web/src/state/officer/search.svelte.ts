/** The officer's search: the address holds the filters, the server holds the answers, this holds the page in between. */
import * as api from '../../api/officer'
import type { RecordingSummary } from '../../api/types'

export interface Filters {
  q: string
  person: string
  channel: string
  /** Days as the date fields give them, in the officer's own time zone. */
  from: string
  to: string
}

export const NO_FILTERS: Filters = { q: '', person: '', channel: '', from: '', to: '' }
const PAGE_SIZE = 25

export function filtersOf(query: URLSearchParams): Filters {
  const read = (name: keyof Filters) => query.get(name) ?? ''
  return { q: read('q'), person: read('person'), channel: read('channel'), from: read('from'), to: read('to') }
}

export const isEmpty = (filters: Filters) => Object.values(filters).every((value) => value === '')

export function queryOf(filters: Filters): api.SearchQuery {
  return { q: filters.q, person: filters.person, channel: filters.channel, from: dayStart(filters.from), to: dayEnd(filters.to) }
}

function dayStart(day: string): number | undefined {
  const at = Date.parse(`${day}T00:00:00`)
  return Number.isNaN(at) ? undefined : at
}

/** "To" means the whole of that day, also when the clocks change. */
function dayEnd(day: string): number | undefined {
  const at = dayStart(day)
  if (at === undefined) return undefined
  const next = new Date(at)
  next.setDate(next.getDate() + 1)
  return next.getTime() - 1
}

export class Search {
  results: RecordingSummary[] = $state.raw([])
  cursor: string | null = $state(null)
  busy = $state(false)
  error: unknown = $state.raw(null)
  asked: Filters | null = $state.raw(null)
  #turn = 0

  async run(filters: Filters): Promise<void> {
    const turn = ++this.#turn
    this.busy = true
    try {
      const page = await api.search({ ...queryOf(filters), limit: PAGE_SIZE })
      if (turn !== this.#turn) return // A newer search has begun; its answer counts.
      this.results = page.recordings
      this.cursor = page.next_cursor
      this.asked = filters
      this.error = null
    } catch (error) {
      if (turn === this.#turn) this.error = error
    }
    if (turn === this.#turn) this.busy = false
  }

  async more(): Promise<void> {
    if (!this.cursor || !this.asked || this.busy) return
    const turn = this.#turn
    this.busy = true
    try {
      const page = await api.search({ ...queryOf(this.asked), limit: PAGE_SIZE, cursor: this.cursor })
      if (turn !== this.#turn) return
      const have = new Set(this.results.map((r) => r.id))
      this.results = [...this.results, ...page.recordings.filter((r) => !have.has(r.id))]
      this.cursor = page.next_cursor
    } catch (error) {
      if (turn === this.#turn) this.error = error
    }
    if (turn === this.#turn) this.busy = false
  }
}
