import { describe, expect, it } from 'vitest'
import type { Caption } from '../../api/types'
import { Captions, SHOW_MS } from './captions.svelte'

const caption = (more: Partial<Caption>): Caption => ({
  call_id: 'c', identity: 'u-1', display_name: 'Ada', track_sid: 't', segment_id: 's1', committed: '', pending: '', final: false, language: 'en', start_ms: 0, end_ms: 0, delay_ms: 0, ...more,
})

describe('captions', () => {
  it('replaces a line of the same segment and keeps others', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ pending: 'We begin' }), 0)
    captions.handleCaption(caption({ segment_id: 's2', committed: 'Yes.' }), 1)
    captions.handleCaption(caption({ committed: 'We begin', pending: ' with the' }), 2)
    expect(captions.lines.map((line) => line.committed + line.pending)).toEqual(['We begin with the', 'Yes.'])
  })

  it('never takes back committed text when a late copy comes over the other path', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'We begin with', pending: '' }), 0)
    captions.handleSpoken({ identity: 'u-1', trackSid: 't', segmentId: 's1', text: 'We begin with the dam', final: false, language: 'en' }, 'Ada', 1)
    expect(captions.lines[0]).toMatchObject({ committed: 'We begin with', pending: ' the dam' })
  })

  it('changes nothing after the final word', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'Done.', final: true }), 0)
    captions.handleCaption(caption({ committed: 'Do', pending: 'ne' }), 1)
    expect(captions.lines[0]).toMatchObject({ committed: 'Done.', pending: '', final: true })
  })

  it('announces each finished sentence once, with its speaker', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ pending: 'Do' }), 0)
    expect(captions.announced).toBeNull()
    captions.handleCaption(caption({ committed: 'Done.', final: true }), 1)
    expect(captions.announced?.text).toBe('Ada: Done.')
  })

  it('completes a line that a break cut short, and leaves what came live meanwhile', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'We begin', pending: ' wi' }), 0)
    captions.handleCaption(caption({ segment_id: 's2', committed: 'Yes, of course.', pending: ' And' }), 1)
    captions.handleEarlier(caption({ committed: 'We begin with the dam.', final: true }))
    captions.handleEarlier(caption({ segment_id: 's2', committed: 'Yes,', pending: ' of' }))
    expect(captions.lines.map((line) => line.committed + line.pending)).toEqual(['We begin with the dam.', 'Yes, of course. And'])
  })

  it('goes on with a line that was not finished when one joined', () => {
    const captions = new Captions()
    captions.handleEarlier(caption({ committed: 'We begin', pending: ' wi' }))
    captions.handleCaption(caption({ committed: 'We begin with the dam.', final: true }), 1)
    expect(captions.lines.map((line) => line.committed)).toEqual(['We begin with the dam.'])
  })

  it('puts missed lines where they belong and keeps no more than the newest thousand', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ segment_id: 'last', committed: 'Last.' }), 5_000)
    for (let i = 0; i < 1_005; i += 1) captions.handleEarlier(caption({ segment_id: `e${i}`, committed: `${i}`, final: true, end_ms: i }))
    expect(captions.lines.length).toBe(1_000)
    expect(captions.lines.slice(-2).map((line) => line.committed)).toEqual(['1004', 'Last.'])
  })

  it('shows a line for a while after its last change, newest last', () => {
    const captions = new Captions()
    captions.handleCaption(caption({ committed: 'Old' }), 0)
    captions.handleCaption(caption({ segment_id: 's2', committed: 'New' }), SHOW_MS)
    expect(captions.visible(SHOW_MS + 1, 3).map((line) => line.committed)).toEqual(['New'])
  })
})
