// What the components lack: names for assistive programs, and a tab that survives a reload. Runs once, when the page is loaded.
() => {
  const label = (e) => e.closest('.block')?.querySelector('label')?.textContent.trim() || 'Picture';
  const addNames = () => {
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((e) => e.setAttribute('role', 'img'));
    document.querySelectorAll('input.search-input:not([aria-label])').forEach((e) => e.setAttribute('aria-label', e.title || 'Filter'));
    document.querySelectorAll('button:not([aria-label]):not([title]):has(img:not([alt]), img[alt=""])').forEach((e) => {
      if (!e.textContent.trim()) e.setAttribute('aria-label', label(e));
    });
  };
  // what changes many times a second is read out only where its meaning changes (messages.py)
  const region = document.createElement('div');
  region.setAttribute('role', 'status');
  region.className = 'read-out';
  document.body.append(region);
  const readOut = () => {
    const said = [...document.querySelectorAll('[data-said]')].filter((e) => e.offsetParent).map((e) => e.dataset.said).join('; ');
    if (region.textContent !== said) region.textContent = said;
  };
  // a reload restores the open tab, and leaving the page with unsaved captions asks first
  const tabs = () => [...(document.querySelector('#tabs [role="tablist"]')?.querySelectorAll('[role="tab"]') || [])];
  const name = (e) => e.textContent.trim();
  document.addEventListener('click', (event) => {
    const button = event.target.closest('#tabs [role="tab"], #tabs .overflow-dropdown button');
    if (button && tabs().some((tab) => name(tab) === name(button))) sessionStorage.setItem('sd_lora.tab', name(button));
  }, true);
  tabs().find((tab) => name(tab) === sessionStorage.getItem('sd_lora.tab'))?.click();
  // fields are restored (browser_state.py); on a first visit there is nothing to fill in
  try {
    if (localStorage.getItem('sd_lora.visited')) document.querySelectorAll('[id^="recall-"]').forEach((e) => e.click());
    localStorage.setItem('sd_lora.visited', 'yes');
  } catch { /* a browser that stores nothing */ }
  // Ctrl+Enter draws and Esc stops, on the tab that is open
  const seen = (ids) => ids.map((id) => document.getElementById(id)).find((e) => e?.offsetParent);
  const draws = ['preview-generate', 'compare-draw', 'mix-generate'], stops = ['preview-stop', 'compare-run-stop', 'mix-stop'];
  document.addEventListener('keydown', (event) => {
    const inRun = event.target.closest('[id^="compare-run"]');
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const button = seen(inRun ? ['compare-run-generate'] : draws);
      if (button) { event.preventDefault(); button.click(); }
    } else if (event.key === 'Escape' && event.target.getAttribute('aria-expanded') !== 'true' && !document.fullscreenElement) {
      seen(stops)?.click();
    }
  }, true);
  let typed = false;  // since a button of that tab was pressed, after which the list of drafts is up to date
  document.addEventListener('input', (event) => { if (event.target.closest('#dataset-caption')) typed = true; }, true);
  document.addEventListener('click', (event) => {
    if (event.target.closest('button')?.closest('[role="tabpanel"]')?.querySelector('#dataset-caption')) typed = false;
  }, true);
  window.addEventListener('beforeunload', (event) => {
    if (typed || document.querySelector('.drafts')?.textContent.trim()) event.preventDefault();
  });
  let waiting = false;
  addNames();
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; addNames(); readOut(); });
  }).observe(document.body, { childList: true, subtree: true });
}
