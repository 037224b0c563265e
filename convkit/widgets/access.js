// ipywidgets 8 leaves sliders, number fields without a label and read-outs without a name.
const STYLE = `
.convkit-pale .convkit-picture, .convkit-pale svg.convkit-drawing { opacity: 0.3 }
.convkit-lost { margin: 0; font-weight: bold; line-height: 1.4;
  color: #b3001b; color: color-mix(in srgb, #d0021b 60%, var(--jp-content-font-color1, #222)) }
.convkit-faulty { flex-wrap: wrap; height: auto !important }
.convkit-fault { flex: 1 0 100%; line-height: 1.3; white-space: normal;
  color: #b3001b; color: color-mix(in srgb, #d0021b 60%, var(--jp-content-font-color1, #222)) }
[aria-invalid=true] { outline: 2px solid; outline-color: #d0021b }`;

const newId = () => `convkit-${crypto.getRandomValues(new Uint32Array(1))[0]}`;

function name(root) {
  for (const part of root.querySelectorAll('.jupyter-widgets, .widget-inline-hbox')) {
    const label = part.querySelector(':scope > label'), words = label?.innerText.trim();
    if (label?.title === 'null') label.removeAttribute('title');
    const readout = part.querySelector(':scope > .widget-readout');
    if (readout && words && !readout.hasAttribute('aria-label')) {
      readout.id ||= newId();
      readout.setAttribute('aria-label', `${words}, as a number`);
      if (readout.isContentEditable) readout.setAttribute('role', 'textbox');
    }
    for (const handle of part.querySelectorAll('.noUi-handle:not([aria-label])')) {
      if (words) handle.setAttribute('aria-label', words);
      if (readout) handle.setAttribute('aria-describedby', readout.id);
    }
    const field = part.matches('.widget-text') && !words && part.querySelector('input:not([aria-label])');
    const title = part.title || part.querySelector('[title]')?.title;
    if (field && title) field.setAttribute('aria-label', title);
  }
}

const RESTART = 'The kernel was restarted, or the connection to it is lost: run this cell again.';

function render({ model, el }) {
  el.style.display = 'none';
  let root = null, alive = true, lost = false, shown = false;
  const style = document.createElement('style');
  style.textContent = STYLE;
  const watcher = new MutationObserver(() => name(root));

  function mark() {
    for (const old of root.querySelectorAll('.convkit-fault')) old.remove();
    for (const old of root.querySelectorAll('.convkit-faulty')) old.classList.remove('convkit-faulty');
    for (const old of root.querySelectorAll('[aria-invalid]')) old.removeAttribute('aria-invalid');
    const { control, words, fields = [[control, words]] } = model.get('fault');
    root.classList.toggle('convkit-pale', lost || Boolean(words));
    for (const [place, sentence] of fields) if (sentence) markControl(place, sentence);
  }

  function markControl(number, words) {
    const place = root.querySelector(`.convkit-control-${number}`);
    if (!place) return;
    const note = document.createElement('span');
    note.className = 'convkit-fault';
    note.id = newId();
    note.textContent = words;
    place.classList.add('convkit-faulty');
    place.append(note);
    const inputs = [...place.querySelectorAll('input, select, .noUi-handle')];
    const named = inputs.filter(input => words.startsWith(input.getAttribute('aria-label') ?? '\0'));
    for (const input of named.length ? named : inputs) {
      input.setAttribute('aria-invalid', 'true');
      input.setAttribute('aria-errormessage', note.id);
    }
  }

  function connect() {  // ipywidgets marks what has lost its kernel
    const now = el.classList.contains('jupyter-widgets-disconnected') || Boolean(el.closest('.jupyter-widgets-disconnected'));
    if (!root || now === lost) return;
    lost = now;
    root.querySelector('.convkit-lost')?.remove();
    if (lost) {
      const note = Object.assign(document.createElement('p'), { className: 'convkit-lost', textContent: RESTART });
      note.setAttribute('role', 'alert');
      root.prepend(note);
    }
    for (const part of root.querySelectorAll('button, input, select')) part.disabled = lost;
    mark();
  }

  function count(views) {  // a panel that nobody sees any more need not train
    if (!model.get('counted') || lost || shown === views > 0) return;
    shown = views > 0;
    try { model.send({ views }); } catch { /* the kernel is gone */ }
  }

  function begin() {  // the panel is put together after this part of it
    root = el.closest('.convkit-panel, .convkit-live');
    if (!root) return void (alive && setTimeout(begin, 20));
    root.append(style);
    name(root);
    watcher.observe(root, { childList: true, subtree: true });
    mark();
    connect();
    count(1);
  }
  begin();
  const again = () => root && mark(), reconnect = () => setTimeout(connect);
  model.on('change:fault', again);
  model.on('comm_live_update', reconnect);
  return () => {
    alive = false;
    count(-1);
    watcher.disconnect();
    model.off('change:fault', again);
    model.off('comm_live_update', reconnect);
  };
}

export default { render };
