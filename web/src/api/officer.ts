/** The archive as a compliance officer sees it. Media and exports are plain links, so that the browser streams them. */
import { BASE, get, path, request } from './http'
import type { Access, RecordingDetail, RecordingSummary, Transcript, VerifyResult } from './types'

export interface SearchQuery {
  q?: string
  person?: string
  channel?: string
  from?: number
  to?: number
  cursor?: string
  limit?: number
}

export const search = (query: SearchQuery) =>
  get<{ recordings: RecordingSummary[]; next_cursor: string | null }>('/recordings', { ...query })
export const one = (id: string) => get<RecordingDetail>(path`/recordings/${id}`)
export const transcript = (id: string) => get<Transcript>(path`/recordings/${id}/transcript.json`)
/** A long recording is many hashes: give the archive two minutes before saying that it did not answer. */
export const verify = (id: string) => request<VerifyResult>('POST', path`/recordings/${id}/verify`, { body: {}, timeoutMs: 120_000 })
export const accesses = async (id: string) => (await get<{ accesses: Access[] }>(path`/recordings/${id}/accesses`)).accesses
export const myAccesses = async () => (await get<{ accesses: Access[] }>('/accesses', { mine: 1 })).accesses

export const mediaUrl = (id: string) => BASE + path`/recordings/${id}/media`
/** The archive notes a download apart from playing. */
export const asDownload = (url: string) => `${url}?download=1`
export const transcriptUrl = (id: string, kind: 'vtt' | 'txt' | 'json') => BASE + path`/recordings/${id}/transcript.` + kind
export const bundleUrl = (id: string) => BASE + path`/recordings/${id}/bundle`
