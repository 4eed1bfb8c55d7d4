import '@fontsource-variable/inter/index.css'
import './app.css'
import { mount } from 'svelte'
import App from './App.svelte'
import { i18n } from './i18n/index.svelte'
import { session } from './state/session.svelte'

void session.load()
void i18n.start().finally(() => mount(App, { target: document.getElementById('app')! }))
