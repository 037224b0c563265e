// Panels of the book. They answer without a kernel, from states that were computed when the book was made.
(() => {
  const part = (tag, look = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), look);
    made.append(...inside);
    return made;
  };
  const bytes = text => new DataView(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer);
  const quoted = names => names.map(name => `“${name}”`).join(' and ');

  // ---- one control: a label, a part that the reader moves, and what it stands at ----------------------------------
  function field(control, moved) {
    const { kind, label, texts } = control;
    if (kind === 'toggle') {
      const box = part('input', { type: 'checkbox' });
      box.addEventListener('change', () => moved(Number(box.checked)));
      return { row: part('label', { className: 'convkit-toggle' }, box, ` ${label}`), show: at => { box.checked = at === 1; } };
    }
    if (kind === 'button') {
      const button = part('button', { type: 'button', className: 'convkit-button', textContent: label });
      button.addEventListener('click', () => moved(1));
      return { row: button, show: at => { button.disabled = at === 1; } };
    }
    const words = part('span', { className: 'convkit-label' }, label);
    if (kind === 'choice') {
      const list = part('select', {}, ...texts.map((text, place) => new Option(text, place)));
      list.addEventListener('change', () => moved(Number(list.value)));
      return { row: part('label', {}, words, list), show: at => { list.value = at; } };
    }
    const slider = part('input', { type: 'range', min: 0, max: texts.length - 1, step: 1 });
    const read = part('span', { className: 'convkit-read', ariaHidden: 'true' });
    slider.addEventListener('input', () => moved(Number(slider.value)));
    const show = at => {
      slider.value = at;
      slider.setAttribute('aria-valuetext', texts[at]);
      read.textContent = texts[at];
    };
    slider.setAttribute('aria-label', label);  // without what it stands at
    return { row: part('label', {}, words, slider, read), show };
  }

  function notes({ all, controls, thinned, fixed }) {
    const found = [];
    if (!all && controls.length > 1) found.push('Here one control is moved at a time: the others go back to their first values.');
    if (thinned.length) found.push(`Of ${quoted(thinned)} not every value is here.`);
    if (fixed.length) found.push(`In the notebook ${quoted(fixed)} can be changed as well.`);
    return found.join(' ');
  }

  // ---- a panel ----------------------------------------------------------------------------------------------------
  function build(place, panel) {
    const data = bytes(panel.data);
    const listeners = new Set(), at = panel.controls.map(control => control.at), first = [...at];
    let scene = null;
    const model = {  // what drawing.js asks of one: scenes come from here, nothing goes anywhere
      get: name => (name === 'scene' ? scene : undefined),
      set: () => {},
      save_changes: () => {},
      on: (name, call) => name === 'change:scene' && listeners.add(call),
      off: (_, call) => listeners.delete(call),
    };
    const fields = panel.controls.map((control, number) => field(control, where => move(number, where)));

    function paint(state = panel.states[at.join()]) {
      scene = state.data ? { ...state, data: bytes(state.data) } : { ...state, data, axes: state.axes.map(at => panel.axes[at]) };
      fields.forEach(({ show }, number) => show(state.places[number]));
      for (const call of listeners) call();
    }
    function move(number, where) {
      if (!panel.all) first.forEach((start, other) => { at[other] = start; });
      at[number] = where;
      for (let other = at.length - 1; panel.all && other > number && panel.states[at.join()].fault; other--)
        at[other] = first[other];  // a page that the chosen list does not have
      paint();
    }
    const reset = part('button', { type: 'button', className: 'convkit-button', textContent: 'Reset' });
    const back = state => { first.forEach((start, number) => { at[number] = start; }); paint(state); };
    reset.addEventListener('click', () => back());
    const ready = Object.entries(panel.ready).map(([words, state]) => {
      const button = part('button', { type: 'button', className: 'convkit-button', textContent: words });
      button.addEventListener('click', () => back(state));
      return button;
    });
    const box = part('div', { className: 'convkit-drawn' });
    const labels = panel.controls.filter(({ kind }) => kind !== 'toggle' && kind !== 'button').map(({ label }) => label.length);
    const root = part('div', { className: 'convkit-panel', role: 'group', ariaLabel: panel.title },
      part('p', { className: 'convkit-title', textContent: panel.title }),
      part('div', { className: 'convkit-controls' }, ...fields.map(({ row }) => row), reset),
      ...(ready.length ? [part('div', { className: 'convkit-ready' }, 'show: ', ...ready)] : []),
      box, part('p', { className: 'convkit-note', textContent: notes(panel) }));
    root.style.setProperty('--convkit-label', `${Math.max(0, ...labels)}ch`);
    paint();
    place.replaceChildren(root);
    window.convkitDraw.render({ model, el: box });
  }

  // ---- the page ---------------------------------------------------------------------------------------------------
  const places = name => document.querySelectorAll(`[data-panel="${CSS.escape(name)}"]`);
  window.convkitPanel = (name, panel) => places(name).forEach(place => build(place, panel));

  function begin() {
    const folder = `${document.documentElement.dataset.content_root ?? ''}_static/panels/`;
    const near = new IntersectionObserver(seen => seen.filter(one => one.isIntersecting).forEach(({ target }) => {
      near.unobserve(target);
      document.head.append(part('script', { src: `${folder}${target.dataset.panel}.js` }));
    }), { rootMargin: '800px' });
    document.querySelectorAll('[data-panel]').forEach(place => near.observe(place));
    // drawing.js looks for JupyterLab's theme at the body; this page has its own at the root
    const dress = () => { document.body.dataset.jpThemeName = document.documentElement.dataset.theme ?? ''; };
    new MutationObserver(dress).observe(document.documentElement, { attributeFilter: ['data-theme'] });
    dress();
  }
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin);
  else begin();
})();
