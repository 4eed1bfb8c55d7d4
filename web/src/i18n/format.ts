/** Times, lengths and sizes as people write them. */
import { i18n } from './index.svelte'

/** 75 000 → "1:15", 3 675 000 → "1:01:15". */
export function clock(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1000))
  const h = Math.floor(total / 3600)
  const m = Math.floor((total % 3600) / 60)
  const s = String(total % 60).padStart(2, '0')
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${s}` : `${m}:${s}`
}

export function time(ms: number): string {
  return new Intl.DateTimeFormat(i18n.locale, { hour: '2-digit', minute: '2-digit' }).format(ms)
}

export function date(ms: number): string {
  return new Intl.DateTimeFormat(i18n.locale, { dateStyle: 'medium' }).format(ms)
}

/** For plans: until when a link works. */
export function dayAndTime(ms: number): string {
  return new Intl.DateTimeFormat(i18n.locale, { dateStyle: 'medium', timeStyle: 'short' }).format(ms)
}

/** With the zone's name: an officer compares times across sites. */
export function dateTime(ms: number): string {
  return new Intl.DateTimeFormat(i18n.locale, {
    year: 'numeric',
    month: 'short',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    timeZoneName: 'short',
  }).format(ms)
}

export function zone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone
}

export function sameDay(a: number, b: number): boolean {
  return new Date(a).toDateString() === new Date(b).toDateString()
}

const scaled = (value: number, step: number, units: string[], digits = 1) => {
  let unit = 0
  while (value >= step && unit < units.length - 1) {
    value /= step
    unit += 1
  }
  return `${value.toLocaleString(i18n.locale, { maximumFractionDigits: unit === 0 || value >= 100 ? 0 : digits })} ${units[unit]}`
}

export const bytes = (n: number) => scaled(n, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB'])
export const bitrate = (bps: number) => scaled(bps, 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s'])
export const percent = (share: number) => share.toLocaleString(i18n.locale, { style: 'percent', maximumFractionDigits: share < 0.1 ? 1 : 0 })
export const ms = (n: number) => `${Math.round(n).toLocaleString(i18n.locale)} ms`

export function age(seconds: number): string {
  const d = Math.floor(seconds / 86_400)
  const h = Math.floor((seconds % 86_400) / 3_600)
  const m = Math.floor((seconds % 3_600) / 60)
  if (d > 0) return `${d} d ${h} h`
  if (h > 0) return `${h} h ${m} min`
  return m > 0 ? `${m} min` : `${Math.floor(seconds)} s`
}

export function initials(name: string): string {
  // "Gina (guest)": what stands in brackets is about the name, not of it.
  const words = name.replace(/\(.*?\)/g, ' ').trim().split(/\s+/).filter(Boolean)
  const first = words[0]?.[0] ?? '?'
  const last = words.length > 1 ? (words[words.length - 1]?.[0] ?? '') : ''
  return (first + last).toUpperCase()
}
