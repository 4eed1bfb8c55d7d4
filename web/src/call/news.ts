/** Words for what happens in a call. */
import { t } from '../i18n/index.svelte'
import type { CallNews } from '../state/call/call.svelte'
import type { DeviceProblem } from '../state/call/devices.svelte'
import type { Source } from '../state/call/media'
import { failureText } from '../state/failure'
import type { Toast } from '../state/toasts.svelte'

export function problemText(source: Source, problem: DeviceProblem): string {
  if (source === 'screen' || source === 'screen_audio') return t('problem.screen')
  return t(`problem.${source}.${problem}`)
}

export function newsText(news: CallNews): { kind: Toast['kind']; text: string } {
  switch (news.kind) {
    case 'joined':
      return { kind: 'info', text: t('news.joined', { name: news.name }) }
    case 'left':
      return { kind: 'info', text: t('news.left', { name: news.name }) }
    case 'hand':
      return { kind: 'info', text: t('news.hand', { name: news.name }) }
    case 'muted-by-host':
      return { kind: 'info', text: t('news.mutedByHost') }
    case 'recording-started':
      return { kind: 'info', text: t('rec.started') }
    case 'recording-stopped':
      return { kind: 'info', text: t('rec.stopped') }
    case 'captions-on':
      return { kind: 'info', text: t('captions.available') }
    case 'captions-need-host':
      return { kind: 'info', text: t('captions.askHost') }
    case 'share-lost':
      return { kind: 'bad', text: t('news.shareLost') }
    case 'device':
      return { kind: 'bad', text: problemText(news.source, news.problem) }
    case 'failed':
      return { kind: 'bad', text: failureText(news.error) }
  }
}
