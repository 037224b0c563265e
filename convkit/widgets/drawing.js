// Draws a scene (see drawing.py) as SVG. Sizes of letters and lines are in points, as in Matplotlib.
const PT = 4 / 3, NS = 'http://www.w3.org/2000/svg', REACH = 24;  // REACH: how near, in pixels, the mouse must be
const SUPER = '⁰¹²³⁴⁵⁶⁷⁸⁹';
const STYLE = `
.convkit-box { position: relative; line-height: normal; font-family: var(--jp-ui-font-family, sans-serif) }
.convkit-box svg { display: block; max-width: 100%; height: auto; touch-action: pan-y; user-select: none }
.convkit-entry { cursor: pointer }
.convkit-pane { pointer-events: none }
.convkit-steered { pointer-events: all; cursor: grab }
.convkit-entry:focus-visible, .convkit-pane:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2) }
.convkit-player { display: flex; align-items: center; gap: 4px 12px; flex-wrap: wrap; margin: 4px 0 }
.convkit-player[hidden] { display: none }
.convkit-player button { min-width: 7em }
.convkit-player input { flex: 1 1 8em; min-width: 8em; accent-color: var(--jp-brand-color1, #1976d2) }
.convkit-player output { min-width: 4.5em; font-variant-numeric: tabular-nums }
.convkit-tip { position: absolute; pointer-events: none; padding: 2px 6px; white-space: pre; z-index: 5;
  border: 1px solid; border-radius: 3px; font-size: 12px; line-height: 1.35 }
button.convkit-whole[hidden] { display: none }
.convkit-whole { position: absolute; right: 0; top: 0 }
.convkit-box[aria-busy=true] svg { opacity: 0.3 }
.convkit-words { margin: 0; line-height: 1.4 }
.convkit-words[role=alert] { color: #b3001b;
  color: color-mix(in srgb, #d0021b 60%, var(--jp-content-font-color1, #222)) }`;

// ---- colors: those of the page's theme, and marks that stand out from it ------------------------------------------
const parse = color => {
  if (color.startsWith('#')) return [1, 3, 5].map(at => parseInt(color.slice(at, at + 2), 16));
  const [r, g, b] = color.match(/[\d.]+/g) ?? [0, 0, 0];
  return [+r, +g, +b];
};
const css = rgb => `rgb(${rgb.map(Math.round)})`;
const mix = (a, b, part) => a.map((value, i) => value + part * (b[i] - value));
const luminance = rgb => {
  const [r, g, b] = rgb.map(value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};

function themeOf(el) {
  let node = el, paper = 'rgb(255, 255, 255)';
  for (; node; node = node.parentElement) {
    const color = getComputedStyle(node).backgroundColor;
    if (!/, 0\)$|transparent/.test(color)) { paper = color; break; }
  }
  paper = parse(paper);
  const dark = luminance(paper) < 0.3, ink = dark ? [238, 238, 238] : [34, 34, 34], known = new Map();
  const cached = (kind, make) => color => {
    if (!known.has(kind + color)) known.set(kind + color, css(make(parse(color))));
    return known.get(kind + color);
  };
  const base = rgb => css(rgb) === 'rgb(34,34,34)' ? ink : css(rgb) === 'rgb(255,255,255)' ? paper : rgb;
  const soft = rgb => dark ? mix(paper, ink, Math.min(0.5, 2 * (1 - (Math.max(...rgb) + Math.min(...rgb)) / 510))) : rgb;
  const clear = ratio => rgb => {  // AA: 3 to 1 for what is drawn, 4.5 to 1 for words; what is pale is background
    let found = base(rgb);
    if (found === rgb && luminance(rgb) > 0.8) return soft(rgb);
    for (let part = 0.05; found !== paper && part < 1 && contrast(found, paper) < ratio; part += 0.05)
      found = mix(base(rgb), ink, part);
    return found;
  };
  const signed = rgb => dark ? rgb.map(value => value + 255 - Math.max(...rgb) - Math.min(...rgb)) : rgb;
  return {
    dark, ink: css(ink), paper: css(paper), faint: css(mix(paper, ink, 0.25)),
    mark: cached('mark', clear(3)), words: cached('words', clear(4.5)), soft: cached('soft', soft),
    exact: cached('exact', base), map: (rgb, both) => both ? signed(rgb) : rgb,
  };
}

// ---- numbers ------------------------------------------------------------------------------------------------------
const short = value => Number.isFinite(value) ? String(Number(value.toPrecision(4))) : 'none';

function unpack(scene) {
  const view = scene.data, bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const line = ([kind, at, count, low, step]) => kind === 4
    ? new Float32Array(bytes, at, count)
    : Float64Array.from(new Uint16Array(bytes, at, count), code => code === 65535 ? NaN : low + step * code);
  const mark = one => {
    const found = { ...one };
    for (const name of ['x', 'y', 'z', 'x1', 'y1']) if (one[name]) found[name] = line(one[name]);
    if (one.image) {
      const [kind, at, whole, [rows, columns], channels] = one.image, count = rows * columns * channels;
      const codes = kind === 4 ? new Float32Array(bytes, at, count) : new Uint8Array(bytes, at, count);
      const [low, high] = one.range ?? [0, 255];
      const values = channels > 1 || kind === 4 ? codes
        : Float64Array.from(codes, code => code === 255 ? NaN : low + (high - low) * code / 254);
      Object.assign(found, { values, rows, columns, channels, whole, about: kind !== 4 });
    }
    return found;
  };
  return { ...scene, texts: scene.texts.map(mark), axes: scene.axes.map(ax => ({ ...ax, marks: ax.marks.map(mark) })) };
}

// ---- moments: where they differ, a film has {each: [...]} ---------------------------------------------------------
const moment = (value, at) => {
  if (value === null || typeof value !== 'object' || ArrayBuffer.isView(value)) return value;
  if (value.each) return value.each[at];
  return Array.isArray(value) ? value.map(part => moment(part, at))
    : Object.fromEntries(Object.entries(value).map(([name, part]) => [name, moment(part, at)]));
};
const between = (a, b, part) => {  // numbers change evenly, all else is that of a
  if (typeof a === 'number' && typeof b === 'number') return a + part * (b - a);
  if (!a || !b || typeof a !== 'object' || typeof b !== 'object' || a.length !== b.length) return a;
  if (a.map) return a.map((value, i) => between(value, b[i], part));
  return Object.fromEntries(Object.entries(a).map(([name, value]) => [name, name in b ? between(value, b[name], part) : value]));
};

function ticks(side, [low, high], pixels, across) {
  const [a, b] = [Math.min(low, high), Math.max(low, high)], slack = 1e-9 * (b - a);
  const inside = values => values.filter(value => value >= a - slack && value <= b + slack);
  if (side.at) {
    const at = side.log ? side.at.map(Math.log10) : side.at;
    const label = i => side.labels ? side.labels[i] : short(side.at[i]);
    return at.map((value, i) => [value, label(i)]).filter(([value]) => inside([value]).length);
  }
  if (side.log) {
    const power = k => k >= -3 && k <= 3 ? short(10 ** k)
      : `10${k < 0 ? '⁻' : ''}${[...String(Math.abs(k))].map(digit => SUPER[digit]).join('')}`;
    const every = Math.max(1, Math.ceil((b - a) / Math.max(2, pixels / 45)));
    const powers = [];
    for (let k = Math.ceil(a); k <= b; k++) if (k % every === 0) powers.push([k, power(k)]);
    if (b - a > 1.5) return powers;
    const fine = [];
    for (let k = Math.floor(a); k <= b; k++) for (const d of [1, 2, 5]) fine.push(k + Math.log10(d));
    return inside(fine).map(value => [value, short(10 ** value)]);
  }
  const most = Math.max(1, Math.min(side.most || 9, Math.floor(pixels / (across ? 44 : 30))));
  const rough = (b - a) / most, power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].map(digit => digit * power).find(size => size >= rough * (1 - 1e-9));
  if (side.integer) step = Math.max(1, Number.isInteger(step) ? step : Math.ceil(step));
  const found = [];
  for (let k = Math.ceil((a - slack) / step); k * step <= b + slack; k++) found.push(k * step);
  const digits = Math.max(0, ...found.map(value => (String(Number(value.toPrecision(6))).split('.')[1] ?? '').length));
  return found.map(value => [value, value.toFixed(Math.min(digits, 6)).replace('-', '−')]);
}

// ---- shapes -------------------------------------------------------------------------------------------------------
const f = value => Math.round(value * 10) / 10;
const escaped = words => String(words).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`);
const polygon = (x, y, corners, r, turn = -90, inner = 1) => {
  let path = '';
  for (let i = 0; i < corners; i++) {
    const angle = (turn + 360 * i / corners) * Math.PI / 180, far = i % 2 ? r * inner : r;
    path += `${i ? 'L' : 'M'}${f(x + far * Math.cos(angle))} ${f(y + far * Math.sin(angle))}`;
  }
  return path + 'Z';
};
const rectangle = (x0, y0, x1, y1) => `M${f(x0)} ${f(y0)}H${f(x1)}V${f(y1)}H${f(x0)}Z`;
const cross = (x, y, r) => `M${f(x - r)} ${f(y - r)}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
const plus = (x, y, r) => `M${f(x - r)} ${f(y)}h${2 * r}M${f(x)} ${f(y - r)}v${2 * r}`;
const SHAPES = {
  o: (x, y, r) => `M${f(x - r)} ${f(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
  s: (x, y, r) => rectangle(x - r, y - r, x + r, y + r),
  '^': (x, y, r) => polygon(x, y, 3, 1.15 * r), v: (x, y, r) => polygon(x, y, 3, 1.15 * r, 90),
  D: (x, y, r) => polygon(x, y, 4, 1.3 * r), '|': (x, y, r) => `M${f(x)} ${f(y - r)}v${2 * r}`,
  x: cross, X: cross, '+': plus, P: plus,
};
const shape = (kind, x, y, r) =>
  (SHAPES[kind] ?? ((a, b, c) => polygon(a, b, 2 * parseInt(kind.slice(4) || 5), c, -90, 0.5)))(x, y, f(r));
const STROKES = { x: 1, '|': 1, '+': 1, X: 2.5, P: 2.5 };

function markerLook(mark, theme) {
  const edge = theme.mark(mark.edge), fill = mark.fill === 'none' ? 'none' : theme.mark(mark.fill);
  return mark.marker in STROKES
    ? `fill="none" stroke="${edge}" stroke-width="${(mark.border || 1) * STROKES[mark.marker] * PT}"`
    : `fill="${fill}" stroke="${edge}" stroke-width="${(mark.border || 0) * PT}"`;
}

function lineLook(mark, theme) {
  const dash = mark.dash?.length ? `stroke-dasharray="${mark.dash.map(part => f(part * mark.width * PT))}"` : '';
  return `fill="none" stroke="${theme.mark(mark.color)}" stroke-width="${mark.width * PT}" stroke-linejoin="round" ${dash}`;
}

function words(x, y, mark, theme, turned = '') {
  const size = mark.size * PT, color = theme.words(mark.color), anchor = { center: 'middle', right: 'end' }[mark.ha];
  const rise = { center: 0.35, top: 0.8, bottom: -0.2 }[mark.va] ?? 0;
  const look = `${mark.style === 'italic' ? 'font-style="italic"' : ''} ${mark.weight === 'bold' ? 'font-weight="bold"' : ''}`;
  const halo = mark.halo ? `paint-order="stroke" stroke="${theme.paper}" stroke-opacity="0.8" stroke-width="5"` : '';
  const lines = escaped(mark.words).replace(/\$(\w)_(\w)\$/g,
    '<tspan font-style="italic">$1</tspan><tspan dy="3" font-size="70%">$2</tspan>').split('\n');
  const rows = lines.map((line, i) =>
    `<tspan x="${f(x)}" y="${f(y + size * (rise + i * (mark.leading ?? 1.2)))}">${line}</tspan>`);
  return `<text font-size="${f(size)}" fill="${color}" text-anchor="${anchor ?? 'start'}" ${look} ${halo} ${turned}>${rows.join('')}</text>`;
}

const scratch = document.createElement('canvas'), ruler = document.createElement('canvas').getContext('2d');
let family = '';
const widthOf = (text, size) => { ruler.font = `${size}px ${family || 'sans-serif'}`; return ruler.measureText(text).width; };

function picture(mark, X, Y, theme) {
  const { values, rows, columns, channels, extent: [left, right, bottom, top] } = mark;
  scratch.width = columns; scratch.height = rows;
  const g = scratch.getContext('2d'), pixels = g.createImageData(columns, rows), [low, high] = mark.range ?? [0, 1];
  const dots = new Uint32Array(pixels.data.buffer), dot = ([r, g, b]) => 255 << 24 | b << 16 | g << 8 | r;
  const stops = (mark.colors ?? []).map(color => theme.map(parse(color), mark.signed)), most = stops.length - 1;
  const shades = Uint32Array.from({ length: mark.colors ? 256 : 0 }, (_, i) => {
    const at = i / 255 * most, k = Math.floor(at);
    return dot(mix(stops[k], stops[Math.min(k + 1, most)], at - k).map(Math.round));
  });
  const scale = 255 / (high - low || 1);
  for (let i = 0; i < rows * columns; i++) {
    const at = i * channels;
    if (channels === 4) dots[i] = dot(parse(theme.mark(`rgb(${values.slice(at, at + 3)})`)));  // the colors of curves
    else if (channels > 1) dots[i] = dot(values.slice(at, at + 3));
    else if (!Number.isNaN(values[i])) dots[i] = shades[Math.min(255, Math.max(0, Math.round((values[i] - low) * scale)))];
  }
  g.putImageData(pixels, 0, 0);
  const [x, y, w, h] = [X(left), Y(top), X(right) - X(left), Y(bottom) - Y(top)];
  let found = `<image x="${f(x)}" y="${f(y)}" width="${f(w)}" height="${f(h)}" preserveAspectRatio="none"
    style="image-rendering: pixelated" href="${scratch.toDataURL()}"/>`;
  if (mark.grid) {
    let path = '';
    for (let i = 0; i <= columns; i++) path += `M${f(x + i * w / columns)} ${f(y)}v${f(h)}`;
    for (let i = 0; i <= rows; i++) path += `M${f(x)} ${f(y + i * h / rows)}h${f(w)}`;
    found += `<path d="${path}" fill="none" stroke="${theme.faint}" stroke-width="${mark.width * PT}"/>`;
  }
  return found;
}

function surface({ x, y, z, columns, colors, codes }, X, Y, theme) {
  const faces = [...codes].map((code, i) => {
    const a = i + Math.floor(i / columns), at = [a, a + 1, a + columns + 2, a + columns + 1];
    const side = (i, j) => [x, y, z].map(line => line[at[j]] - line[at[i]]), [p, q] = [side(0, 2), side(1, 3)];
    const normal = [0, 1, 2].map(k => p[(k + 1) % 3] * q[(k + 2) % 3] - p[(k + 2) % 3] * q[(k + 1) % 3]);
    const facing = Math.abs(normal[2]) / (Math.hypot(...normal) || 1);
    return { at, facing, color: colors[code], depth: at.reduce((sum, j) => sum + z[j], 0) };
  });
  return faces.sort((a, b) => a.depth - b.depth).map(({ at, facing, color }) => {
    const path = at.map(j => `${f(X(x[j]))} ${f(Y(y[j]))}`).join('L'), fill = css(mix([34, 34, 34], parse(color), 0.45 + 0.55 * facing));
    return `<path d="M${path}Z" fill="${fill}" stroke="${theme.paper}" stroke-width="0.7" stroke-linejoin="round"/>`;
  }).join('');
}

function markPath(mark, X, Y, room, theme) {
  const { x, y } = mark, [left, top, width, height] = room;
  const limit = value => Math.max(-9999, Math.min(9999, value));
  if (mark.kind === 'line') {
    let path = '', dots = '', pen = 'M';
    if (mark.dash) for (let i = 0; i < x.length; i++) {
      if (Number.isNaN(x[i]) || Number.isNaN(y[i])) { pen = 'M'; continue; }
      path += `${pen}${f(limit(X(x[i])))} ${f(limit(Y(y[i])))}`;
      pen = 'L';
    }
    if (mark.marker) for (let i = 0; i < x.length; i += mark.every)
      if (!Number.isNaN(x[i]) && !Number.isNaN(y[i]))
        dots += shape(mark.marker, limit(X(x[i])), limit(Y(y[i])), mark.size * PT / 2);
    return (path && `<path d="${path}" ${lineLook(mark, theme)}/>`) + (dots && `<path d="${dots}" ${markerLook(mark, theme)}/>`);
  }
  if (mark.kind === 'rule') {
    const path = x ? `M${f(X(x[0]))} ${top}v${height}` : `M${left} ${f(Y(y[0]))}h${width}`;
    return `<path d="${path}" ${lineLook(mark, theme)}/>`;
  }
  if (mark.kind === 'bars') return [...x].map((_, i) =>
    `<path d="${rectangle(X(x[i]), Y(y[i]), X(mark.x1[i]), Y(mark.y1[i]))}" fill="${theme.mark(mark.colors[i % mark.colors.length])}"/>`).join('');
  if (mark.kind === 'span')
    return `<path d="${rectangle(left, Y(y[0]), left + width, Y(y[1]))}" fill="${theme.soft(mark.color)}"/>`;
  if (mark.kind === 'area')
    return `<path d="M${[...x].map((_, i) => `${f(X(x[i]))} ${f(Y(y[i]))}`).join('L')}Z" fill="${mark.color}" opacity="${mark.alpha}"/>`;
  if (mark.kind === 'arrow') {
    const [x0, y0, x1, y1] = [X(x[0]), Y(y[0]), X(x[1]), Y(y[1])], turn = Math.atan2(y1 - y0, x1 - x0);
    const far = Math.min(8, Math.hypot(x1 - x0, y1 - y0));
    const barb = side => `L${f(x1 - far * Math.cos(turn + side))} ${f(y1 - far * Math.sin(turn + side))}`;
    return `<path d="M${f(x0)} ${f(y0)}L${f(x1)} ${f(y1)}M${f(x1)} ${f(y1)}${barb(0.45)}M${f(x1)} ${f(y1)}${barb(-0.45)}" ${lineLook(mark, theme)}/>`;
  }
  if (mark.kind === 'image') return picture(mark, X, Y, theme);
  if (mark.kind === 'mesh') return surface(mark, X, Y, theme);
  const [dx, dy] = mark.shift ?? [0, 0];
  return mark.words.map((text, i) => {
    const at = mark.framed ? [left + x[i] * width, top + (1 - y[i]) * height] : [X(x[i]) + dx * PT, Y(y[i]) - dy * PT];
    return text && words(...at, { ...mark, words: text }, theme);
  }).join('');
}

// ---- where the page is narrower than the picture, its columns flow like words -------------------------------------
function flowed(scene, page) {
  const [width, height] = scene.size, columns = [], places = new Map();
  if (!page || page > width - 2 || !scene.axes.length) return scene;
  for (const ax of [...scene.axes].sort((a, b) => a.place[0] - b.place[0])) {
    const [left, right] = [ax.place[0] * width, (ax.place[0] + ax.place[2]) * width], last = columns.at(-1);
    if (last && left < last.right) Object.assign(last, { right: Math.max(last.right, right), axes: [...last.axes, ax] });
    else columns.push({ left, right, axes: [ax] });
  }
  columns.forEach((column, i) => {  // a number below an end of an axis sticks out
    column.end = i + 1 < columns.length ? column.right + Math.min(12, (columns[i + 1].left - column.right) / 2) : width;
    column.begin = i ? columns[i - 1].end : 0;
  });
  let [x, row, wide] = [0, 0, page];
  for (const column of columns) {
    const { begin, end, left, right } = column, own = right - left, rest = end - begin - own;
    const part = Math.min(1, Math.max(0.3, (page - rest) / own)), taken = rest + part * own;  // only the axes shrink
    if (x && x + taken > page) [x, row] = [0, row + 1];
    Object.assign(column, { row, at: value => column.x + (value < left ? value - begin : left - begin + part * (value - left)), x });
    for (const ax of column.axes) places.set(ax, column);
    [x, wide] = [x + taken, Math.max(wide, x + taken)];
  }
  const tall = (row + 1) * height, up = (row, y) => (tall - (row + 1) * height + y * height) / tall;
  const place = ([left, low, w, h], { at, row }) => {
    const [from, to] = [at(left * width), at((left + w) * width)];
    return [from / wide, up(row, low), (to - from) / wide, h * height / tall];
  };
  const text = mark => {
    const value = mark.x[0] * width, column = columns.find(({ end }) => value <= end) ?? columns.at(-1);
    return { ...mark, x: [column.at(value) / wide], y: [up(column.row, mark.y[0])] };
  };
  const axes = scene.axes.map(ax => ({ ...ax, place: place(ax.place, places.get(ax)) }));
  return { ...scene, size: [wide, tall], axes, texts: scene.texts.map(text) };
}

// ---- axes ---------------------------------------------------------------------------------------------------------
function frame(ax, size, zoom) {
  let [left, low, width, height] = ax.place.map((part, i) => part * size[i % 2]);
  let top = size[1] - low - height;
  const x = zoom?.x ?? ax.x.span, y = zoom?.y ?? ax.y.span;
  if (ax.equal) {
    const scale = Math.min(width / Math.abs(x[1] - x[0]), height / Math.abs(y[1] - y[0]));
    const [w, h] = [scale * Math.abs(x[1] - x[0]), scale * Math.abs(y[1] - y[0])];
    [left, top, width, height] = [left + (width - w) / 2, top + (height - h) / 2, w, h];
  }
  return {
    room: [left, top, width, height], x, y,
    X: value => left + (value - x[0]) / (x[1] - x[0]) * width,
    Y: value => top + height - (value - y[0]) / (y[1] - y[0]) * height,
    fromX: at => x[0] + (at - left) / width * (x[1] - x[0]),
    fromY: at => y[0] + (top + height - at) / height * (y[1] - y[0]),
  };
}

function around(ax, { room: [left, top, width, height], x, y, X, Y }, theme) {
  const title = { center: [left + width / 2, 'center'], left: [left, 'left'] }[ax.title.loc];
  const look = { color: '#222222', va: 'baseline' };
  let found = ax.title.words ? words(title[0], top - 6 * PT, { ...look, ...ax.title, ha: title[1] }, theme) : '';
  if (ax.bare) return found;
  let path = '', wide = 0;
  const long = side => side.length * PT, shown = side => side.shown !== false;
  for (const [value, label] of ticks(ax.x, x, width, true)) {
    path += `M${f(X(value))} ${f(top + height)}v${long(ax.x)}`;
    if (shown(ax.x)) found += words(X(value), top + height + long(ax.x) + 3 * PT, { ...look, size: ax.x.size_ticks, words: label, ha: 'center', va: 'top' }, theme);
  }
  for (const [value, label] of ticks(ax.y, y, height, false)) {
    path += `M${left} ${f(Y(value))}h${-long(ax.y)}`;
    if (!shown(ax.y)) continue;
    found += words(left - long(ax.y) - 3 * PT, Y(value), { ...look, size: ax.y.size_ticks, words: label, ha: 'right', va: 'center' }, theme);
    wide = Math.max(wide, widthOf(label, ax.y.size_ticks * PT));
  }
  const tall = shown(ax.x) && ticks(ax.x, x, width, true).length ? (ax.x.size_ticks + 3) * PT : 0;
  if (ax.x.label) found += words(left + width / 2, top + height + long(ax.x) + tall + 4 * PT, { ...look, size: ax.x.size, words: ax.x.label, ha: 'center', va: 'top' }, theme);
  if (ax.y.label) {
    const [lx, ly] = [left - long(ax.y) - wide - 9 * PT, top + height / 2];
    found += words(lx, ly, { ...look, size: ax.y.size, words: ax.y.label, ha: 'center' }, theme, `transform="rotate(-90 ${f(lx)} ${f(ly)})"`);
  }
  const edge = ax.open ? `M${left} ${top}v${height}h${width}` : rectangle(left, top, left + width, top + height);
  return `${found}<path d="${path}${edge}" fill="none" stroke="${theme.ink}" stroke-width="1"/>`;
}

function gridLines(ax, { room: [left, top, width, height], x, y, X, Y }, theme) {
  let path = '';
  if (ax.grid !== 'y') for (const [value] of ticks(ax.x, x, width, true)) path += `M${f(X(value))} ${top}v${height}`;
  if (ax.grid !== 'x') for (const [value] of ticks(ax.y, y, height, false)) path += `M${left} ${f(Y(value))}h${width}`;
  return `<path d="${path}" stroke="${theme.faint}" stroke-width="0.6"/>`;
}

function legend(ax, number, { room: [left, top, width, height], X, Y }, theme, picked) {
  const listed = ax.marks.filter(mark => mark.name && mark.kind !== 'area' && (!ax.legend.names || ax.legend.names.includes(mark.name)));
  if (!listed.length) return '';
  const size = ax.legend.size * PT, row = 1.25 * size, columns = Math.min(ax.legend.columns, listed.length);
  const rows = Math.ceil(listed.length / columns), box = [0, rows * row + 0.6 * size], starts = [];
  for (let column = 0; column < columns; column++) {
    starts.push(box[0] + 8);
    const part = listed.slice(column * rows, (column + 1) * rows);
    box[0] += 2.6 * size + 14 + Math.max(0, ...part.map(mark => widthOf(mark.name, size)));
  }
  const corners = { 'upper right': [1, 0], 'upper left': [0, 0], 'lower left': [0, 1], 'lower right': [1, 1], 'center left': [0, 0.5] };
  const place = ([a, b]) => [left + a * (width - box[0]), top + 4 + b * (height - box[1] - 8)];
  const covered = corner => {  // points below a legend there
    const [x0, y0] = place(corner);
    let count = 0;
    for (const { kind, x, y } of ax.marks) if (kind === 'line') for (let i = 0; i < x.length; i++) {
      const [px, py] = [X(x[i]) - x0, Y(y[i]) - y0];
      if (px >= 0 && px <= box[0] && py >= 0 && py <= box[1]) count += 1;
    }
    return count;
  };
  const best = () => Object.values(corners).reduce((a, b) => covered(b) < covered(a) ? b : a);
  const [x0, y0] = place(corners[ax.legend.loc] ?? best());
  return listed.map((mark, i) => {
    const [x, y] = [x0 + starts[Math.floor(i / rows)], y0 + 0.3 * size + (i % rows + 0.5) * row], end = x + 2 * size;
    const curve = mark.dash ? `<path d="M${f(x)} ${f(y)}H${f(end)}" ${lineLook(mark, theme)}/>` : '';
    const dot = mark.marker ? `<path d="${shape(mark.marker, (x + end) / 2, y, mark.size * PT / 2)}" ${markerLook(mark, theme)}/>` : '';
    const text = words(end + 6, y, { words: mark.name, size: ax.legend.size, color: '#222222', va: 'center', ha: 'left' }, theme);
    const area = rectangle(x - 4, y - row / 2, end + 10 + widthOf(mark.name, size), y + row / 2);
    return `<g class="convkit-entry" role="button" tabindex="0" aria-pressed="${picked === mark.name}" data-name="${escaped(mark.name)}"
      aria-label="pick ${escaped(mark.name)}" opacity="${picked && picked !== mark.name ? 0.5 : 1}"><path d="${area}" fill="transparent"/>${curve}${dot}${text}</g>`;
  }).join('');
}

// ---- the mouse ----------------------------------------------------------------------------------------------------
function tellImage(mark, x, y) {
  const [left, right, bottom, top] = mark.extent, [u, v] = [(x - left) / (right - left), (y - top) / (bottom - top)];
  if (u < 0 || u >= 1 || v < 0 || v >= 1) return null;
  const i = Math.floor(v * mark.rows), j = Math.floor(u * mark.columns), at = (i * mark.columns + j) * mark.channels;
  const [height, width] = mark.whole, place = (value, whole, size) => {
    const each = Math.ceil(whole / size), first = value * each;
    return each > 1 ? `${first}–${Math.min(whole, first + each) - 1}` : first;
  };
  const value = mark.channels > 1 ? [0, 1, 2].map(k => short(mark.values[at + k] / 255)).join(', ') : short(mark.values[at]);
  return `row ${place(i, height, mark.rows)}, column ${place(j, width, mark.columns)}: ${mark.about ? '≈ ' : ''}${value}`;
}

function tell(ax, view, px, py) {
  const say = (side, value) => {
    const label = side.labels?.[side.at.findIndex(at => Math.abs((side.log ? Math.log10(at) : at) - value) < 1e-6)];
    return label ?? short(side.log ? 10 ** value : value);
  };
  const pictured = ax.marks.some(mark => mark.kind === 'image');  // its frames have no names and tell nothing
  let near = REACH, found = null;
  for (const mark of [...ax.marks].reverse()) {
    if (mark.kind === 'line' && (mark.name || !pictured)) for (let i = 0; i < mark.x.length; i++) {
      const far = Math.hypot(view.X(mark.x[i]) - px, view.Y(mark.y[i]) - py);
      if (far < near) {
        const name = mark.name ? `${mark.name}\n` : '';
        [near, found] = [far, { text: `${name}${ax.x.label || 'x'}: ${say(ax.x, mark.x[i])}\n${ax.y.label || ax.title.words || 'y'}: ${say(ax.y, mark.y[i])}`, name: mark.name, x: view.X(mark.x[i]), y: view.Y(mark.y[i]) }];
      }
    }
    if (mark.kind === 'bars' && !found) for (let i = 0; i < mark.x.length; i++) {
      const [a, b, c, d] = [view.X(mark.x[i]), view.Y(mark.y[i]), view.X(mark.x1[i]), view.Y(mark.y1[i])];
      if ((px - a) * (px - c) <= 0 && (py - b) * (py - d) <= 0) {
        const flat = ax.y.labels, value = flat ? say(ax.x, mark.x1[i]) : say(ax.y, mark.y1[i]);
        found = { text: `${flat ? say(ax.y, (mark.y[i] + mark.y1[i]) / 2) : say(ax.x, (mark.x[i] + mark.x1[i]) / 2)}: ${value}` };
      }
    }
    if (mark.kind === 'image' && !found) {
      const text = tellImage(mark, view.fromX(px), view.fromY(py));
      if (text) found = { text };
    }
  }
  return found;
}

// ---- the player: nothing moves before its button is pressed, and it stops at the last moment ----------------------
const make = (tag, name = '') => Object.assign(document.createElement(tag), { className: name });

function player(model, show) {
  const bar = make('div', 'convkit-player'), button = make('button', 'jupyter-button'), slider = make('input');
  const told = make('output'), speed = make('select'), calm = matchMedia('(prefers-reduced-motion: reduce)');
  let film = null, now = 0, last = 0, playing = false, next = 0, seen = -1;
  Object.assign(slider, { type: 'range', min: 0, step: 1 });
  speed.setAttribute('aria-label', 'speed');
  told.setAttribute('aria-live', 'off');  // a slider tells its value
  for (const [times, name] of [[0.5, '½ ×'], [1, '1 ×'], [2, '2 ×']]) speed.append(new Option(name, times, times === 1, times === 1));
  bar.append(button, slider, told, speed);
  const end = () => film.moments - 1;

  function go(to, always = true) {
    now = to;
    const at = Math.floor(now), part = calm.matches ? 0 : now - at, moving = film.rests ? Math.max(0, 2 * part - 1) : part;
    if (at + moving === seen && !always) return;  // it rests
    seen = at + moving;
    slider.value = at;
    told.textContent = `${at} of ${end()}`;
    slider.setAttribute('aria-valuetext', told.textContent);
    const word = playing ? 'Pause' : now < end() ? 'Play' : 'Play again';
    button.textContent = `${playing ? '❚❚' : '▶'} ${word}`;
    button.setAttribute('aria-label', word);
    show(at, film.rests ? moving * moving * (3 - 2 * moving) : moving);
  }
  function tick(time) {
    const passed = Math.min(0.1, Math.max(0, (time - last) / 1000));  // a page that was away goes on where it was
    const to = now + passed * film.pace * speed.value;
    last = time;
    if (to >= end()) return stop(end());
    go(to, false);
    next = requestAnimationFrame(tick);
  }
  function stop(at = Math.round(now)) {
    cancelAnimationFrame(next);
    playing = false;
    go(at);
    model.set?.('value', at);  // a page without a kernel may have nobody to tell
    model.save_changes?.();
  }
  button.addEventListener('click', () => {
    if (playing) return stop();
    [playing, last] = [true, performance.now()];
    go(now < end() ? now : 0);
    next = requestAnimationFrame(tick);
  });
  slider.addEventListener('input', () => {
    if (playing) cancelAnimationFrame(next);
    playing = false;
    go(Number(slider.value));
  });
  slider.addEventListener('change', () => stop(Number(slider.value)));
  bar.addEventListener('keydown', event => {  // JupyterLab would take arrows for itself
    if (!event.shiftKey && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
  });
  return {
    bar, playing: () => playing, close: () => cancelAnimationFrame(next),
    take(given) {
      film = given;
      bar.hidden = !film.moments;
      if (bar.hidden) return show(0, 0);
      slider.max = end();
      slider.setAttribute('aria-label', model.get('description') ?? 'moment');
      go(Math.min(playing ? now : model.get('value') ?? end(), end()));
    },
  };
}

// ---- the view -----------------------------------------------------------------------------------------------------
function render({ model, el }) {
  const uid = `convkit-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const box = make('div', 'convkit-box'), tip = make('div', 'convkit-tip'), line = make('p', 'convkit-words');
  const style = document.createElement('style'), whole = make('button', 'convkit-whole jupyter-button');
  const svg = document.createElementNS(NS, 'svg'), zoom = new Map(), shots = new Map();
  let picked = null, film = null, found = null, scene = null, frames = [], theme = null, start = null, painted = 0, page = 0;
  let drag = null, waiting = false;
  const steers = number => Boolean(model.send) && (model.get('steered') ?? []).includes(number);
  const shot = at => {
    if (!shots.has(at)) shots.set(at, unpack(film.moments ? moment(film, at) : film));
    return shots.get(at);
  };
  const play = player(model, (at, part) => { found = part ? between(shot(at), shot(at + 1), part) : shot(at); draw(); });
  style.textContent = STYLE;
  svg.classList.add('convkit-drawing');
  whole.textContent = 'Whole picture';
  tip.hidden = whole.hidden = true;
  box.append(svg, tip, whole);
  el.append(style, box, play.bar, line);

  function draw() {
    if (!found) return;
    scene = flowed(found, page);
    const [width, height] = scene.size, focus = svg.contains(document.activeElement) && document.activeElement.dataset.name;
    if (zoom.size && Math.max(...zoom.keys()) >= scene.axes.length) zoom.clear();
    frames = scene.axes.map((ax, i) => frame(ax, scene.size, zoom.get(i)));
    let inside = '', over = '';
    scene.axes.forEach((ax, i) => {
      const view = frames[i], [left, top, w, h] = view.room, chosen = picked && ax.marks.some(mark => mark.name === picked);
      const clip = `${uid}-${i}`;
      inside += `<clipPath id="${clip}"><rect x="${left}" y="${top}" width="${w}" height="${h}"/></clipPath>`;
      if (ax.face) inside += `<path d="${rectangle(left, top, left + w, top + h)}" fill="${theme.soft(ax.face)}"/>`;
      if (ax.grid) inside += gridLines(ax, view, theme);
      for (const mark of ax.marks) {
        const other = chosen && ['line', 'area'].includes(mark.kind) && mark.name !== picked;
        const free = mark.free || mark.kind === 'text' || mark.kind === 'arrow';
        inside += `<g ${free ? '' : `clip-path="url(#${clip})"`} opacity="${other ? 0.15 : mark.kind === 'area' ? 1 : mark.alpha ?? 1}">${markPath(mark, view.X, view.Y, view.room, theme)}</g>`;
      }
      inside += around(ax, view, theme);
      if (ax.legend) over += legend(ax, i, view, theme, picked);
      const name = `${ax.title.words || ax.y.label || 'part'} (${i + 1} of ${scene.axes.length})`;
      const steered = steers(i) ? 'a drag or a click here moves controls of the panel; ' : '';
      over += `<rect class="convkit-pane${steered && ' convkit-steered'}" data-name="pane ${i}" data-pane="${i}" tabindex="0" role="application" fill="none"
        aria-label="${escaped(name)}: ${steered}+ and − zoom, arrows move, Home shows all" x="${left}" y="${top}" width="${w}" height="${h}"/>`;
    });
    for (const text of scene.texts) inside += words(text.x[0] * width, (1 - text.y[0]) * height, text, theme);
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    svg.setAttribute('width', width);
    svg.innerHTML = `<g role="img" aria-label="${escaped(scene.words)}">${inside}</g>${over}<rect class="convkit-lasso" fill="none" stroke="${theme.ink}" stroke-dasharray="4 3"/><circle class="convkit-spot" r="6" fill="none" stroke="${theme.ink}" stroke-width="1.5" visibility="hidden"/>`;
    if (focus) svg.querySelector(`[data-name="${CSS.escape(focus)}"]`)?.focus();
    whole.hidden = zoom.size === 0;
    line.style.maxWidth = play.bar.style.maxWidth = `${width}px`;
    if (line.textContent !== scene.words) line.textContent = scene.words;
    line.setAttribute('role', scene.alert ? 'alert' : 'status');
    line.setAttribute('aria-live', play.playing() ? 'off' : scene.alert ? 'assertive' : 'polite');
    svg.dataset.painted = ++painted;
  }

  const take = () => { const next = model.get('scene'); if (next?.data) { film = next; shots.clear(); play.take(film); } };
  const jump = () => { if (film?.moments && !play.playing()) play.take(film); };
  const wait = () => {  // until the next picture the old one is pale, and its words are gone
    const words = model.get('working');
    box.setAttribute('aria-busy', String(Boolean(words)));
    if (words) { line.textContent = words; line.setAttribute('role', 'status'); }
    else setTimeout(() => scene && line.textContent !== scene.words && draw());
  };
  const dress = () => {
    const found = themeOf(el), same = theme && found.ink === theme.ink && found.paper === theme.paper && family;
    if (same) return;
    theme = found;
    family = getComputedStyle(box).fontFamily; Object.assign(tip.style, { background: theme.paper, color: theme.ink });
    draw();
  };

  function at(event) {  // pixels of the scene, and the axes below them
    const bounds = svg.getBoundingClientRect(), scale = scene.size[0] / bounds.width;
    const x = (event.clientX - bounds.left) * scale, y = (event.clientY - bounds.top) * scale;
    const number = frames.findLastIndex(({ room: [left, top, w, h] }) => x >= left - 4 && x <= left + w + 4 && y >= top - 4 && y <= top + h + 4);
    return { x, y, number, scale };
  }

  function hover(event) {
    const { x, y, number, scale } = at(event), spot = svg.querySelector('.convkit-spot');
    if (start && steers(start.number)) return turn({ x, y });
    if (start) {
      const lasso = svg.querySelector('.convkit-lasso'), [a, b] = [Math.min(x, start.x), Math.min(y, start.y)];
      for (const [name, value] of Object.entries({ x: a, y: b, width: Math.abs(x - start.x), height: Math.abs(y - start.y) })) lasso.setAttribute(name, value);
    }
    const found = number < 0 || start ? null : tell(scene.axes[number], frames[number], x, y);
    tip.hidden = !found;
    spot.setAttribute('visibility', found?.x === undefined ? 'hidden' : 'visible');
    if (!found) return;
    tip.textContent = found.text;
    if (found.x !== undefined) { spot.setAttribute('cx', found.x); spot.setAttribute('cy', found.y); }
    const right = x / scale + 14 + tip.offsetWidth > box.clientWidth;
    tip.style.left = `${x / scale + (right ? -tip.offsetWidth - 10 : 14)}px`;
    tip.style.top = `${Math.max(0, y / scale - tip.offsetHeight - 6)}px`;
  }

  // ---- axes that the mouse steers: the kernel gets where the drag is by now, as soon as it has dealt with the last one
  function ask(content) {
    waiting = true;
    try { model.send(content); } catch { waiting = false; }  // the kernel is gone
  }
  function turn(to) {
    if (!drag) {
      if (Math.hypot(to.x - start.x, to.y - start.y) < 6) return;
      drag = { ...start, begins: true };
    }
    drag.to = to;
    tip.hidden = true;
    if (!waiting) tug();
  }
  function tug() {
    const { x, y, to, begins, number } = drag, [, , width, height] = frames[number].room;
    [drag.to, drag.begins] = [null, false];
    ask({ right: (to.x - x) / width, up: (y - to.y) / height, begins });
  }
  const answered = () => {
    waiting = false;
    if (drag?.to) tug();
  };

  function pick(name) { picked = picked === name ? null : name; draw(); }

  function drop(event) {
    const from = start, to = at(event);
    start = null;
    if (!from || from.number < 0) return;
    if (steers(from.number)) {
      if (!drag && !waiting) ask({ x: frames[from.number].fromX(to.x), y: frames[from.number].fromY(to.y) });
      return;
    }
    if (Math.hypot(to.x - from.x, to.y - from.y) < 6) {
      const found = tell(scene.axes[from.number], frames[from.number], to.x, to.y);
      if (found?.name) pick(found.name);
      return;
    }
    const view = frames[from.number], ax = scene.axes[from.number];
    const cut = (a, b, [low, high]) => { const ends = [Math.min(a, b), Math.max(a, b)]; return low < high ? ends : ends.reverse(); };
    let x = cut(view.fromX(from.x), view.fromX(to.x), view.x), y = cut(view.fromY(from.y), view.fromY(to.y), view.y);
    if (ax.equal) {  // as much of both axes as the longer side of the drag
      const part = Math.max((x[1] - x[0]) / (view.x[1] - view.x[0]), (y[1] - y[0]) / (view.y[1] - view.y[0]));
      const about = (ends, whole) => { const m = (ends[0] + ends[1]) / 2, r = part * (whole[1] - whole[0]) / 2; return [m - r, m + r]; };
      [x, y] = [about(x, view.x), about(y, view.y)];
    }
    zoom.set(from.number, { x, y });
    draw();
  }

  const entry = event => event.target.closest?.('.convkit-entry');
  svg.addEventListener('pointermove', hover);
  svg.addEventListener('pointerleave', () => { tip.hidden = true; svg.querySelector('.convkit-spot')?.setAttribute('visibility', 'hidden'); });
  svg.addEventListener('pointerdown', event => {
    if (event.button || entry(event)) return;
    [start, drag] = [at(event), null];
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener('pointerup', drop);
  svg.addEventListener('pointercancel', () => { start = null; draw(); });
  svg.addEventListener('click', event => { if (entry(event)) pick(entry(event).dataset.name); });
  function keyed(event) {  // zoom of the axes that have the focus
    const number = event.target.dataset.pane, view = frames[number];
    const part = { '+': 1 / 1.5, '=': 1 / 1.5, '-': 1.5 }[event.key], zoomed = zoom.has(Number(number));
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!view || !(part || zoomed && (move || event.key === 'Home'))) return;
    event.preventDefault();
    event.stopPropagation();
    const seen = ([low, high], by) => { const m = (low + high) / 2 + 0.2 * by * (high - low), r = (part ?? 1) * (high - low) / 2; return [m - r, m + r]; };
    const [x, y] = [seen(view.x, move?.[0] ?? 0), seen(view.y, move?.[1] ?? 0)], [low, high] = scene.axes[number].x.span;
    if (!part && !move || Math.abs(x[1] - x[0]) > 0.999 * Math.abs(high - low)) zoom.delete(Number(number));
    else zoom.set(Number(number), { x, y });
    draw();
  }
  svg.addEventListener('keydown', keyed);
  svg.addEventListener('keydown', event => {
    if (!entry(event) || !['Enter', ' '].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    pick(entry(event).dataset.name);
  });
  svg.addEventListener('dblclick', () => { zoom.clear(); draw(); });
  whole.addEventListener('click', () => { zoom.clear(); draw(); });

  const watcher = new MutationObserver(() => setTimeout(dress, 50));
  watcher.observe(document.body, { attributeFilter: ['data-jp-theme-name', 'data-jp-theme-light', 'data-vscode-theme-kind'] });
  const light = matchMedia('(prefers-color-scheme: dark)');
  light.addEventListener('change', dress);
  const resized = new ResizeObserver(() => {
    const before = [page, page = el.clientWidth];
    if (found && flowed(found, before[0]) !== flowed(found, page)) draw();
  });
  resized.observe(el);
  model.on('change:scene', take);
  model.on('change:value', jump);
  model.on('change:working', wait);
  model.on('msg:custom', answered);
  theme = themeOf(document.body);
  take();
  wait();
  const first = requestAnimationFrame(dress);  // on the page only now
  return () => {
    cancelAnimationFrame(first);
    watcher.disconnect();
    resized.disconnect();
    play.close();
    light.removeEventListener('change', dress);
    model.off('change:scene', take);
    model.off('change:value', jump);
    model.off('change:working', wait);
    model.off('msg:custom', answered);
  };
}

export default { render };
