/** Turns an error into the sentence a person reads. */
import { ApiError } from '../api/http'
import { t } from '../i18n/index.svelte'

export function failureText(error: unknown): string {
  if (!(error instanceof ApiError)) return t('error.unexpected')
  if (error.message) return error.message
  if (error.code === 'timeout') return t('error.timeout')
  if (error.status === 0) return t('error.unreachable')
  if (error.status === 401) return t('error.signedOut')
  if (error.status === 403) return t('error.forbidden')
  if (error.status === 404) return t('error.notFound')
  if (error.status === 429) return t('error.tooMany')
  return t('error.server', { status: error.status })
}
