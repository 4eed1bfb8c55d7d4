import { describe, expect, it } from 'vitest'
import api from '../../../../message-server/openapi.json'
import { en } from '../../i18n/en'
import { toneOf, verdictOf, VERDICTS, worseOf } from './verdict'

describe('verdicts', () => {
  it('are exactly those of the API', () => {
    const text = api.components.schemas.Diagnosis.description
    const named = text.slice(text.indexOf(':') + 1).match(/[a-z_]+/g)
    expect([...VERDICTS].sort()).toEqual(named?.sort())
  })
  it('each have a sentence that says what to do next', () => {
    for (const verdict of VERDICTS) expect(en[`verdictNext.${verdict}`].split(' ').length).toBeGreaterThan(5)
  })
  it('of a newer node are not guessed at', () => expect(verdictOf('moon_phase')).toBeNull())
  it('show the direction that is broken', () => {
    expect(worseOf('flows', 'no_checks')).toBe('no_checks')
    expect(worseOf('packets_refused', 'lower_layer')).toBe('packets_refused')
    expect(worseOf('nothing_published', 'flows')).toBe('flows')
    expect(toneOf('muted')).toBe('')
  })
})
