// What the components lack: names for assistive programs, and a tab that survives a reload. Runs once, when the page is loaded.
() => {
  const label = (e) => e.closest('.block')?.querySelector('label, [data-testid="block-info"]')?.textContent.trim() || 'Picture';
  const addNames = () => {
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((e) => e.setAttribute('role', 'img'));
    document.querySelectorAll('input.search-input:not([aria-label])').forEach((e) => e.setAttribute('aria-label', e.title || 'Filter'));
    document.querySelectorAll('button:not([aria-label]):not([title]):has(img:not([alt]), img[alt=""])').forEach((e) => {
      if (!e.textContent.trim()) e.setAttribute('aria-label', label(e));
    });
    document.querySelectorAll('fieldset:has(input[type="radio"]):not([role])').forEach((group) => {
      group.setAttribute('role', 'radiogroup');
      group.setAttribute('aria-label', label(group));
    });
  };
  // arrow keys lead through the choices of a radio: Gradio gives each a name of its own, and a new one after each choice
  document.addEventListener('keydown', () => document.querySelectorAll('fieldset:has(input[type="radio"])').forEach((group) => {
    const radios = [...group.querySelectorAll('input[type="radio"]')];
    radios.forEach((e) => { e.name = radios[0].name; });
  }), true);
  // help of more than a line is behind a "?"; one that says why a setting is off is always shown
  const shorten = () => document.querySelectorAll('#train-more .settings-section .block').forEach((block) => {
    const info = [...block.querySelectorAll('.info-text, [data-testid="block-info"] ~ div')].find((e) => e.textContent.trim());
    if (!info) return;
    const off = info.textContent.startsWith('Off: ');
    let button = block.querySelector('.help');
    if (!button && !off && info.textContent.length > 45) {
      button = document.createElement('button');
      button.type = 'button';
      button.className = 'help';
      button.textContent = '?';
      button.setAttribute('aria-label', `More about ${block.querySelector('[data-testid="block-info"], label span')?.textContent.trim()}`);
      button.setAttribute('aria-expanded', 'false');
      info.before(button);
      button.addEventListener('click', (event) => {
        event.preventDefault();
        button.setAttribute('aria-expanded', button.getAttribute('aria-expanded') === 'false');
        shorten();
      });
    }
    info.classList.toggle('help-is-short', Boolean(button) && !off && button.getAttribute('aria-expanded') === 'false');
  });
  // the fields that an error is about
  const mark = () => {
    const ids = [...document.querySelectorAll('.form-message[data-marks]')].flatMap((e) => e.dataset.marks.split(' '));
    document.querySelectorAll('.is-marked').forEach((e) => { if (!ids.includes(e.id)) {
      e.classList.remove('is-marked');
      e.querySelectorAll('[aria-invalid]').forEach((i) => i.removeAttribute('aria-invalid'));
    } });
    ids.forEach((id) => {
      const e = document.getElementById(id);
      e?.classList.add('is-marked');
      e?.querySelectorAll('input, textarea').forEach((i) => i.setAttribute('aria-invalid', 'true'));
    });
  };
  // the step of the samples that is shown large; once moved it stays, else it is the newest
  let chosenStep = '';
  const showStep = () => document.querySelectorAll('.samples').forEach((samples) => {
    const slider = samples.querySelector('input[type="range"]');
    const steps = (slider?.dataset.steps || samples.querySelector('li')?.dataset.step || '').split(' ');
    const step = steps.includes(chosenStep) ? chosenStep : steps[steps.length - 1];
    if (slider && slider.value !== String(steps.indexOf(step))) slider.value = steps.indexOf(step);
    samples.querySelectorAll('li').forEach((e) => e.classList.toggle('is-shown', e.dataset.step === step));
    const output = samples.querySelector('output');
    if (output && output.textContent !== Number(step).toLocaleString('en')) output.textContent = Number(step).toLocaleString('en');
  });
  document.addEventListener('input', (event) => {
    if (event.target.matches('.samples input[type="range"]')) {
      chosenStep = event.target.dataset.steps.split(' ')[event.target.value];
      showStep();
      document.querySelectorAll('.samples li.is-shown').forEach((e) => e.scrollIntoView({ block: 'nearest', inline: 'nearest' }));
    }
    if (event.target.closest('#train-search')) search(event.target.value);
  }, true);
  // settings are found by their label, their help and their name
  const search = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    document.querySelectorAll('.settings-section').forEach((section) => {
      const fields = [...section.querySelectorAll('.block[id^="train-"]')];
      fields.forEach((e) => {
        const known = `${e.id.replaceAll('-', ' ')} ${e.textContent}`.toLowerCase();
        e.classList.toggle('is-left-out', !words.every((word) => known.includes(word)));
      });
      section.classList.toggle('is-left-out', fields.every((e) => e.classList.contains('is-left-out')));
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
  // pictures are dropped anywhere on the Dataset tab: on the gallery they are added, elsewhere they are a new dataset
  const input = (id) => {  // of an upload button it is beside it
    const e = document.getElementById(id), beside = e?.previousElementSibling;
    return e?.querySelector('input[type="file"]') || (beside?.matches('input[type="file"]') ? beside : null);
  };
  const opened = async (id, accordion) => {  // what is in a closed accordion does not exist
    if (!input(id)) document.querySelector(`#${accordion} button.label-wrap`)?.click();
    for (let tries = 0; tries < 50 && !input(id); tries++) await new Promise((done) => setTimeout(done, 40));
    return input(id);
  };
  const filesIn = async (entry) => {
    if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
    const reader = entry.createReader(), all = [];
    for (;;) {  // it gives a hundred at a time
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return all;
      for (const inner of some) if (!inner.name.startsWith('.')) all.push(...await filesIn(inner));
    }
  };
  const panel = (event) => event.target.closest?.('[role="tabpanel"]')?.querySelector('#dataset-choice') && event.dataTransfer?.types.includes('Files');
  document.addEventListener('dragover', (event) => { if (panel(event)) event.preventDefault(); }, true);
  document.addEventListener('drop', async (event) => {
    if (!panel(event)) return;
    event.preventDefault();
    event.stopPropagation();
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    const adds = event.target.closest('#dataset-area');
    const target = await opened(adds ? 'dataset-add' : 'dataset-upload', adds ? 'dataset-more' : 'dataset-adding');
    const given = new DataTransfer();
    if (entries.length) for (const entry of entries) for (const file of await filesIn(entry)) given.items.add(file);
    else plain.forEach((file) => given.items.add(file));
    if (!target || !given.files.length) return;
    target.files = given.files;
    target.dispatchEvent(new Event('change', { bubbles: true }));
    window.sdLoraFolder = entries.length === 1 && entries[0].isDirectory ? entries[0].name : '';
  }, true);
  // Ctrl+Enter draws and Esc stops, on the tab that is open
  const seen = (ids) => ids.map((id) => document.getElementById(id)).find((e) => e?.offsetParent);
  const draws = ['preview-generate', 'compare-draw', 'mix-generate'], stops = ['preview-stop', 'compare-run-stop', 'mix-stop'];
  document.addEventListener('keydown', (event) => {
    const inRun = event.target.closest('[id^="compare-run"]');
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const button = seen(inRun ? ['compare-run-generate'] : draws);
      if (button) { event.preventDefault(); event.stopPropagation(); button.click(); }  // else a checkbox is turned
    } else if (event.key === 'Escape' && event.target.getAttribute('aria-expanded') !== 'true' && !document.fullscreenElement) {
      seen(stops)?.click();
    }
  }, true);
  document.addEventListener('change', (event) => {
    if (event.target.type === 'file') window.sdLoraFolder = event.target.files[0]?.webkitRelativePath.split('/').slice(0, -1)[0] || '';
  }, true);
  // what buttons among the findings ask for; the number makes the same question a new one
  let asked = 0;
  document.addEventListener('click', (event) => {
    const button = event.target.closest('button.act');
    if (!button) return;
    if (button.dataset.act === 'trigger') { document.querySelector('#dataset-trigger :is(input, textarea)')?.focus(); return; }
    const field = document.querySelector('#dataset-act :is(input, textarea)');
    field.value = `${button.dataset.act} ${button.dataset.name}\n${++asked}`;
    field.dispatchEvent(new Event('input', { bubbles: true }));
    document.querySelector('#dataset-caption textarea')?.focus();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || !event.target.closest('#dataset-caption')) return;
    event.preventDefault();
    document.querySelector('#dataset-save')?.click();
  }, true);
  // a caption that was typed and is not saved yet, or could not be
  document.addEventListener('input', (event) => { if (event.target.closest('#dataset-caption')) window.sdLoraTyped = true; }, true);
  window.addEventListener('beforeunload', (event) => {
    if (window.sdLoraTyped || document.querySelector('.drafts')?.textContent.trim()) event.preventDefault();
  });
  let waiting = false;
  const tend = () => { addNames(); mark(); showStep(); shorten(); readOut(); };
  tend();
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; tend(); });
  }).observe(document.body, { childList: true, subtree: true });
}
