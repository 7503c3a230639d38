"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  // Everything that a label set gives goes in as text or as an attribute, never as markup.
  const make = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "rect", "path", "image", "g", "title"].includes(tag);
    const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const [short, name] = [0, 1].map((which) => (id) => data.names[id]?.[which] ?? `class ${id}`);
  const percent = (p) => (p >= 0.9995 ? "100%" : p >= 0.0005 ? `${(100 * p).toFixed(1)}%` : p > 0 ? "<0.1%" : "0%");
  const count = (n) => n.toLocaleString("en");
  const folded = (text) => text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();

  // Theme: the reader's choice is kept where the browser allows a local file to keep anything.
  const themes = $("theme");
  const kept = (() => { try { return localStorage.getItem("slg-wds-theme"); } catch { return null; } })();
  const setTheme = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    try { localStorage.setItem("slg-wds-theme", theme); } catch { /* not kept, then */ }
  };
  themes.hidden = false;
  for (const input of themes.querySelectorAll("input")) {
    if (input.value === kept) { input.checked = true; setTheme(kept); }
    input.addEventListener("change", () => setTheme(input.value));
  }

  // The section that is read is marked in the navigation.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) if ($(id)) watch.observe($(id));

  // One image: its picture with the boxes, a strip of its crops, and what the teachers say of the chosen one.
  const mark = (image, crop) => (image.target === null ? "" : crop.t[0].c[0] === image.target ? "alike" : "other");

  const frame = (image, choose) => {
    const [w, h] = image.size;
    const svg = make("svg", { viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true" });
    svg.append(image.src ? make("image", { href: image.src, width: w, height: h, preserveAspectRatio: "none" })
      : make("rect", { class: "void", width: w, height: h }));
    const shade = make("path", { class: "shade", "fill-rule": "evenodd" });
    svg.append(shade);
    const boxes = image.crops.map((crop, at) => {
      const [x, y, width, height] = crop.b;
      const under = make("rect", { class: "under", x, y, width, height });
      const box = make("rect", { class: `box ${mark(image, crop)}`, x, y, width, height });
      box.addEventListener("pointerenter", () => choose(at));
      box.addEventListener("click", () => choose(at));
      return [under, box, width * height];
    });
    // Small boxes last, so that a large one does not lie over them.
    for (const [under, box] of [...boxes].sort((a, b) => b[2] - a[2])) svg.append(under, box);
    const show = (at) => {
      boxes.forEach(([under, box], i) => { under.classList.toggle("chosen", i === at); box.classList.toggle("chosen", i === at); });
      const [x, y, width, height] = image.crops[at].b;
      shade.setAttribute("d", `M0 0H${w}V${h}H0ZM${x} ${y}V${y + height}H${x + width}V${y}Z`);
    };
    return [make("div", { class: image.src ? "frame" : "frame bare" }, svg), show];
  };

  const view = (image, crop) => {
    const [w, h] = image.size, [x, y, width, height] = crop.b;
    if (!image.src) {
      return make("svg", { viewBox: `0 0 ${w} ${h}`, "aria-hidden": "true" }, make("rect", { class: "mini", x, y, width, height }));
    }
    if (crop.v) { // as the teacher saw it
      return make("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, make("image", { href: crop.v, width: 1, height: 1 }));
    }
    const flip = crop.f ? `translate(${2 * x + width} 0) scale(-1 1)` : null;
    return make("svg", { viewBox: `${x} ${y} ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      make("image", { href: image.src, width: w, height: h, preserveAspectRatio: "none", transform: flip }));
  };

  const bar = (kind, label, p, whole = label) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = `${Math.min(100, 100 * p)}%`;
    return make("li", { class: kind }, make("span", { class: "name", title: whole }, label),
      make("div", { class: "track" }, fill), make("span", { class: "p" }, percent(p)));
  };

  const teacher = (image, said, which) => {
    const list = make("ul", { class: "bars" });
    said.c.forEach((id, at) => {
      const kind = image.target === null ? "" : id === image.target ? "goal" : at === 0 ? "wrong" : "";
      if (said.p) list.append(bar(kind, short(id), said.p[at], name(id)));
      else list.append(make("li", { class: kind }, make("span", { class: "name", title: name(id) }, short(id))));
    });
    if (said.p) list.append(bar("rest", "all other classes", Math.max(0, 1 - said.p.reduce((a, b) => a + b, 0))));
    return data.sets.length > 1 ? [make("p", { class: "of" }, make("bdi", {}, data.sets[which])), list] : [list];
  };

  const card = (image) => {
    const facts = make("p", { class: "facts" });
    const bars = make("div", { "aria-live": "off" });
    const strip = make("div", { class: "strip", role: "radiogroup", "aria-label": `Crops of ${image.key}, the least sure first` });
    const choose = (at, focus = false) => {
      const crop = image.crops[at], [, , width, height] = crop.b;
      show(at);
      buttons.forEach((button, i) => {
        button.setAttribute("aria-checked", i === at ? "true" : "false");
        button.tabIndex = i === at ? 0 : -1;
      });
      if (focus) buttons[at].focus();
      facts.textContent = `Crop ${crop.n + 1} of ${count(image.of)}, ${Math.round((100 * width * height) / (image.size[0] * image.size[1]))}% of the image${[crop.f ? "flipped" : [], crop.w ?? []].flat().map((done) => `, ${done}`).join("")}`;
      bars.replaceChildren(...crop.t.flatMap((said, which) => (said ? teacher(image, said, which) : [])));
    };
    const [picture, show] = frame(image, choose);
    const buttons = image.crops.map((crop, at) => {
      const said = crop.t[0];
      const label = `${short(said.c[0])}${said.p ? ` ${percent(said.p[0])}` : ""}`;
      const button = make("button", { type: "button", role: "radio", class: mark(image, crop), "aria-label": label, title: label }, view(image, crop));
      button.addEventListener("click", () => choose(at));
      button.addEventListener("pointerenter", () => choose(at));
      return button;
    });
    strip.append(...buttons);
    strip.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
      if (to === undefined || at < 0) return;
      event.preventDefault();
      choose((to + buttons.length) % buttons.length, true);
    });
    const agrees = image.target === null ? null : image.answer === image.target;
    const title = make("div", { class: "title" }, make("h3", {}, make("bdi", {}, short(image.target ?? image.answer))),
      agrees === null ? null : make("span", { class: agrees ? "verdict" : "verdict other" }, `${Math.round(100 * image.agreement)}% agree`));
    const said = make("p", { class: "said" });
    if (agrees === false) said.append(make("span", {}, "the teacher takes it for "), make("bdi", {}, short(image.answer)));
    else if (data.has_values) said.append(make("span", {}, `mean confidence ${percent(image.confidence)}`));
    const body = make("div", { class: "body" }, title, said, strip, facts, bars, make("p", { class: "path" }, make("bdi", {}, image.key)));
    const article = make("article", { class: "card", "aria-label": `${short(image.target ?? image.answer)}, ${image.key}` }, picture, body);
    choose(image.crops.length - 1); // the surest
    return article;
  };

  // The gallery: some cards at a time, by kind and by what is searched.
  const gallery = $("gallery"), search = $("search"), more = $("more");
  const page = matchMedia("(max-width: 720px)").matches ? 4 : 9;
  const words = (row) => folded([row.key, row.target === null ? "" : name(row.target), name(row.answer)].join("\n"));
  const images = data.images.map((image) => ({ image, text: words(image) }));
  const rows = data.rows.map(([key, target, answer, agreement, confidence]) => {
    const row = { key, target, answer, agreement, confidence };
    return { ...row, text: words(row) };
  });
  let kind = "", shown = page;

  const draw = () => {
    const wanted = folded(search.value.trim());
    const found = images.filter((one) => (!kind || one.image.kinds.includes(kind)) && one.text.includes(wanted));
    gallery.replaceChildren(...found.slice(0, shown).map((one) => card(one.image)));
    if (!found.length) gallery.append(make("p", { class: "none" }, "No image of the gallery matches."));
    more.hidden = found.length <= shown;
    const others = wanted ? rows.filter((row) => row.text.includes(wanted)) : [];
    $("others").hidden = !others.length;
    $("others").querySelector("tbody").replaceChildren(...others.slice(0, 50).map((row) => make("tr", {},
      make("td", {}, make("bdi", {}, row.key)), row.target === null ? null : make("td", {}, make("bdi", {}, short(row.target))),
      make("td", {}, make("bdi", {}, short(row.answer))), row.agreement === null ? null : make("td", { class: "n" }, percent(row.agreement)),
      data.has_values ? make("td", { class: "n" }, percent(row.confidence)) : null)));
    const n = found.length;
    $("count").textContent = `${count(n)} ${n === 1 ? "image" : "images"} of the gallery${others.length ? `, ${count(others.length)} others sampled${others.length > 50 ? " (the first 50 are listed)" : ""}` : ""}`;
  };
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { shown = page; draw(); }, 120); });
  more.addEventListener("click", () => {
    const at = shown;
    shown += page;
    draw();
    gallery.children[at]?.querySelector('[aria-checked="true"]')?.focus();
  });
  const filters = [...document.querySelectorAll(".filters button")];
  const filter = (wanted) => {
    kind = wanted;
    shown = page;
    for (const button of filters) button.setAttribute("aria-pressed", button.dataset.kind === kind ? "true" : "false");
    draw();
  };
  for (const button of filters) button.addEventListener("click", () => filter(button.dataset.kind));
  const seek = (text) => {
    search.value = text;
    filter("");
    $("images").scrollIntoView();
    search.focus({ preventScroll: true });
  };
  for (const button of document.querySelectorAll("[data-search]")) button.addEventListener("click", () => seek(button.dataset.search));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.matches("input, textarea")) {
      event.preventDefault();
      search.focus();
    }
  });
  $("controls").hidden = false;
  draw();

  // The table of classes: sorted by any column, filtered by name.
  const table = $("class-table");
  if (table) {
    const columns = data.columns, body = table.tBodies[0], head = table.tHead.rows[0];
    const classes = data.classes.map((row) => ({ row, text: folded(name(row[0])) }));
    const heads = { count: "n tally", share: "n" };
    const first = 12, every = $("class-more"), find = $("class-search");
    let by = columns.length > 3 ? 3 : 1, down = columns.length <= 3, all = false;
    const cell = (column, row, at) => {
      const value = row[at];
      if (column.kind === "name") {
        const button = make("button", { type: "button" }, make("bdi", {}, name(value)));
        button.addEventListener("click", () => seek(name(value)));
        return make("td", {}, button);
      }
      if (column.kind === "other") return make("td", {}, value === null ? "–" : make("bdi", {}, short(value)));
      if (column.kind === "share") {
        const track = make("i", { "aria-hidden": "true" });
        track.style.setProperty("--share", `${100 * value}%`);
        return make("td", { class: "n" }, make("span", { class: "cell" }, track, percent(value)));
      }
      return make("td", { class: "n tally" }, count(value));
    };
    const order = (a, b) => {
      const [x, y] = [a.row[by], b.row[by]].map((v) => (columns[by].kind === "name" ? name(v) : columns[by].kind === "other" ? (v === null ? "" : name(v)) : v));
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    };
    const list = () => {
      const wanted = folded(find.value.trim());
      const found = classes.filter((one) => one.text.includes(wanted)).sort(order);
      body.replaceChildren(...found.slice(0, all ? 1000 : first).map((one) => make("tr", {}, ...columns.map((column, at) => cell(column, one.row, at)))));
      every.hidden = all || found.length <= first;
      every.textContent = `Show all ${count(found.length)}`;
      $("class-count").textContent = `${count(found.length)} ${found.length === 1 ? "class" : "classes"}`;
      [...head.cells].forEach((th, at) => {
        if (at === by) th.setAttribute("aria-sort", down ? "descending" : "ascending");
        else th.removeAttribute("aria-sort");
      });
    };
    columns.forEach((column, at) => {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => { down = by === at ? !down : column.kind === "count"; by = at; list(); });
      head.append(make("th", { scope: "col", class: heads[column.kind] }, button));
    });
    every.addEventListener("click", () => { all = true; list(); });
    find.addEventListener("input", list);
    $("class-controls").hidden = false;
    list();
  }
})();
