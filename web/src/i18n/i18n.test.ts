import { describe, expect, it } from 'vitest'
import { ID } from '../testids'
import { clock, initials } from './format'
import { de } from './de'
import { en } from './en'
import { i18n, t, tn, type Key } from './index.svelte'

describe('text', () => {
  it('fills in and counts', () => {
    expect(t('ring.title', { name: 'Ann' })).toBe('Ann is calling')
    expect(tn('channels.people', 1)).toBe('1 person')
    expect(tn('channels.people', 1_200)).toMatch(/^1,?200 people$/)
  })
  it('leaves an unknown placeholder visible', () => expect(t('ring.title')).toBe('{name} is calling'))
})

describe('languages', () => {
  it('have the same placeholders as English', () => {
    const names = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(String).sort()
    for (const key of Object.keys(en) as Key[]) expect([key, names(de[key])]).toEqual([key, names(en[key])])
  })
  it('switch while the page stands', async () => {
    await i18n.use('de')
    expect(t('signin.submit')).toBe('Anmelden')
    expect(document.documentElement.lang).toBe('de')
    await i18n.use('en')
    expect(t('signin.submit')).toBe('Sign in')
  })
})

describe('format', () => {
  it.each([[0, '0:00'], [75_000, '1:15'], [3_675_000, '1:01:15'], [-5, '0:00']])('%i ms', (ms, text) => expect(clock(ms)).toBe(text))
  it.each([['Maria Keller', 'MK'], ['Plato', 'P'], ['', '?'], ['Ana de la Cruz', 'AC'], ['Gina (guest)', 'G']])('initials of "%s"', (name, text) => expect(initials(name)).toBe(text))
})

describe('test ids', () => {
  it('are unique', () => expect(new Set(Object.values(ID)).size).toBe(Object.keys(ID).length))
})
