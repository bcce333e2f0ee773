// What assistive programs need and the components lack: names for what has none. Runs once, when the page is loaded.
() => {
  const mend = () => {
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((e) => e.setAttribute('role', 'img'));
    document.querySelectorAll('input.search-input:not([aria-label])').forEach((e) => e.setAttribute('aria-label', e.title || 'Filter'));
  };
  mend();
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
