/** Where the searched words stand in a text, for marking them. Pure. */

export interface Piece {
  text: string
  hit: boolean
}

/** The words and "phrases" of a query, without operators. */
export function termsOf(query: string): string[] {
  const terms: string[] = []
  for (const match of query.matchAll(/"([^"]+)"|(\S+)/g)) {
    const term = (match[1] ?? match[2] ?? '').replace(/^[-+(]+|[)*]+$/g, '').trim()
    if (term && !/^(AND|OR|NOT|NEAR)$/.test(term)) terms.push(term.toLocaleLowerCase())
  }
  return [...new Set(terms)]
}

/** Splits by offsets (as the archive gives them), by the matched strings, or by the query's own terms. */
export function pieces(text: string, match: [number, number][] | string[] | string | undefined, terms: string[]): Piece[] {
  return cut(text, spansOf(text, match, terms))
}

function spansOf(text: string, match: [number, number][] | string[] | string | undefined, terms: string[]): [number, number][] {
  const list = typeof match === 'string' ? [match] : (match ?? [])
  const spans: [number, number][] = []
  for (const one of list) {
    if (typeof one === 'string') spans.push(...find(text, [one.toLocaleLowerCase()]))
    else if (one[0] >= 0 && one[1] > one[0]) spans.push([one[0], one[1]])
  }
  return spans.length > 0 ? spans : find(text, terms)
}

export function find(text: string, terms: string[]): [number, number][] {
  const lower = text.toLocaleLowerCase()
  const spans: [number, number][] = []
  for (const term of terms) {
    if (!term) continue
    for (let at = lower.indexOf(term); at >= 0; at = lower.indexOf(term, at + term.length)) spans.push([at, at + term.length])
  }
  return spans
}

function cut(text: string, spans: [number, number][]): Piece[] {
  const out: Piece[] = []
  let at = 0
  for (const [start, end] of spans.sort((a, b) => a[0] - b[0])) {
    if (end <= at) continue
    const from = Math.max(at, start)
    if (from > at) out.push({ text: text.slice(at, from), hit: false })
    out.push({ text: text.slice(from, end), hit: true })
    at = end
  }
  if (at < text.length) out.push({ text: text.slice(at), hit: false })
  return out
}
