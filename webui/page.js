// What assistive programs need and the components lack: names for what has none. Runs once, when the page is loaded.
() => {
  const label = (e) => e.closest('.block')?.querySelector('label')?.textContent.trim() || 'Picture';
  const mend = () => {
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((e) => e.setAttribute('role', 'img'));
    document.querySelectorAll('input.search-input:not([aria-label])').forEach((e) => e.setAttribute('aria-label', e.title || 'Filter'));
    document.querySelectorAll('button:not([aria-label]):not([title]):has(img:not([alt]), img[alt=""])').forEach((e) => {
      if (!e.textContent.trim()) e.setAttribute('aria-label', label(e));
    });
  };
  let waiting = false;
  mend();
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mend(); });
  }).observe(document.body, { childList: true, subtree: true });
}
