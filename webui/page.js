// What the components lack: names for assistive programs, and a place that stays. Runs once, when the page is loaded.
() => {
  const label = (e) => e.closest('.block')?.querySelector('label')?.textContent.trim() || 'Picture';
  const mend = () => {
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((e) => e.setAttribute('role', 'img'));
    document.querySelectorAll('input.search-input:not([aria-label])').forEach((e) => e.setAttribute('aria-label', e.title || 'Filter'));
    document.querySelectorAll('button:not([aria-label]):not([title]):has(img:not([alt]), img[alt=""])').forEach((e) => {
      if (!e.textContent.trim()) e.setAttribute('aria-label', label(e));
    });
  };
  // the tab that was open comes back after a reload, and captions that are not saved are not left without a word
  const tabs = () => [...(document.querySelector('#tabs [role="tablist"]')?.querySelectorAll('[role="tab"]') || [])];
  const name = (e) => e.textContent.trim();
  document.addEventListener('click', (event) => {
    const button = event.target.closest('#tabs [role="tab"], #tabs .overflow-dropdown button');
    if (button && tabs().some((tab) => name(tab) === name(button))) sessionStorage.setItem('sd_lora.tab', name(button));
  }, true);
  tabs().find((tab) => name(tab) === sessionStorage.getItem('sd_lora.tab'))?.click();
  // fields come back as they were left (remembered.py); a first visit has nothing to fill in
  try {
    if (localStorage.getItem('sd_lora.visited')) document.querySelectorAll('[id^="recall-"]').forEach((e) => e.click());
    localStorage.setItem('sd_lora.visited', 'yes');
  } catch { /* a browser that keeps nothing */ }
  let typed = false;  // since a button of that tab was pressed; from then on the list of drafts tells
  document.addEventListener('input', (event) => { if (event.target.closest('#dataset-caption')) typed = true; }, true);
  document.addEventListener('click', (event) => {
    if (event.target.closest('button')?.closest('[role="tabpanel"]')?.querySelector('#dataset-caption')) typed = false;
  }, true);
  window.addEventListener('beforeunload', (event) => {
    if (typed || document.querySelector('.drafts')?.textContent.trim()) event.preventDefault();
  });
  let waiting = false;
  mend();
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mend(); });
  }).observe(document.body, { childList: true, subtree: true });
}
