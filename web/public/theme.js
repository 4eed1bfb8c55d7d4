// Sets the theme before the first paint. A file of its own because the page's policy forbids inline scripts.
;(function () {
  try {
    var chosen = localStorage.getItem('conclave.theme')
    if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen
  } catch (_) {
    // Storage switched off: the system's preference applies.
  }
})()
