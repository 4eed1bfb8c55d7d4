/** Visible text by key, in the person's language. English is complete by definition; others are checked against it by the compiler. */
import { load, save } from '../state/storage'
import { en } from './en'

export type Key = keyof typeof en
export type Dictionary = Record<Key, string>
type Params = Record<string, string | number>

/** Keys that exist in a form for one and a form for many. */
type Counted = Key extends infer K ? (K extends `${infer Stem}.one` ? Stem : never) : never

export const LANGUAGES = [
  { code: 'en', name: 'English' },
  { code: 'de', name: 'Deutsch' },
] as const
export type Language = (typeof LANGUAGES)[number]['code']

const loaders: Partial<Record<Language, () => Promise<Dictionary>>> = {
  de: async () => (await import('./de')).de,
}

class I18n {
  language: Language = $state('en')
  dictionary: Dictionary = $state.raw(en)
  /** The language with the person's region: dates in British and American English differ. */
  locale: string = $derived(navigator.languages.find((name) => name === this.language || name.startsWith(`${this.language}-`)) ?? this.language)

  async use(language: Language): Promise<void> {
    this.dictionary = (await loaders[language]?.()) ?? en
    this.language = language
    document.documentElement.lang = language
    save('language', language)
  }

  /** The saved language, else the browser's, else English. */
  async start(): Promise<void> {
    const wanted = [load('language') ?? '', ...navigator.languages.map((name) => name.slice(0, 2))]
    const found = wanted.map((code) => LANGUAGES.find((language) => language.code === code)).find(Boolean)
    if (found && found.code !== 'en') await this.use(found.code).catch(() => undefined)
  }
}

export const i18n = new I18n()

export function t(key: Key, params: Params = {}): string {
  return i18n.dictionary[key].replace(/\{(\w+)\}/g, (whole, name: string) => (name in params ? String(params[name]) : whole))
}

export function tn(stem: Counted, n: number, params: Params = {}): string {
  const form = new Intl.PluralRules(i18n.language).select(n) === 'one' ? 'one' : 'other'
  return t(`${stem}.${form}` as Key, { n: number(n), ...params })
}

export const number = (n: number) => n.toLocaleString(i18n.locale)
