// Draws the page's plots, and redraws them for another axis, theme, or printing.
"use strict";
(() => {
  const root = document.documentElement;
  const source = JSON.parse(document.getElementById("plots").textContent);
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const state = { over: source.over[0], theme: systemIsDark.matches ? "dark" : "light", hidden: new Set(), printing: false };
  let chosen = false; // whether the reader has chosen a theme; then changes of the system's theme are ignored
  const PAPER = 690; // width between the margins of an A4 page, in CSS pixels

  const SVG = {
    name: "svg", title: "Download plot as SVG", icon: Plotly.Icons.disk,
    click: (place) => Plotly.downloadImage(place, { format: "svg", filename: place.id }),
  };
  // The buttons are listed, because plotly's default has one that sends the plot to a server of its makers.
  const FLAT = [["toImage", SVG], ["zoom2d", "pan2d", "resetScale2d"]];
  const DEEP = [["toImage"], ["orbitRotation", "zoom3d", "pan3d", "resetCameraDefault3d"]];
  const config = (plot) => ({
    responsive: true, displaylogo: false, modeBarButtons: plot.surface ? DEEP : FLAT,
    toImageButtonOptions: { format: "png", filename: plot.id, scale: 2 },
  });

  let revision = 0; // without a new revision, plotly loses the axes' ranges when it draws the same data again

  const theme = () => (state.printing ? "light" : state.theme);

  // A value of the page's JSON, with references replaced by their lists, and colours by those of the dark theme if it is shown.
  const resolved = (value) => {
    if (typeof value === "string") return theme() === "dark" ? source.palette[value] ?? value : value;
    if (Array.isArray(value)) return value.map(resolved);
    if (value === null || typeof value !== "object") return value;
    if ("$" in value) return source.lists[value.$];
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
  };

  const say = (place, text) => {
    place.classList.add("words");
    place.textContent = text;
  };

  const draw = async (plot) => {
    const place = document.getElementById(plot.id);
    const view = plot.views[state.over] ?? Object.values(plot.views)[0];
    const data = resolved(view.data);
    for (const trace of data) trace.visible = !(plot.recipes && state.hidden.has(trace.meta));
    const layout = { ...resolved(view.layout), template: source.templates[theme()], datarevision: ++revision, uirevision: state.over };
    if (state.printing) Object.assign(layout, { width: PAPER, height: Math.min(layout.height ?? 300, 900), autosize: false });
    else layout.autosize = true;
    if (plot.camera) layout.scene.camera = plot.camera;
    try {
      await Plotly.react(place, data, layout, config(plot));
      plot.drawn = true;
    } catch (error) {
      say(place, `This plot could not be drawn: ${error}`);
      root.dataset.failed = Number(root.dataset.failed ?? 0) + 1;
    }
  };

  const flat = source.plots.filter((plot) => !plot.surface);
  const surfaces = source.plots.filter((plot) => plot.surface);
  const redraw = () => Promise.all([...flat, ...surfaces.filter((plot) => plot.drawn && !state.printing)].map(draw));

  // Surfaces need WebGL, and a browser gives a page few contexts. So surfaces in sight are drawn and the others removed.
  const hasWebGL = () => {
    try {
      const canvas = document.createElement("canvas");
      const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
      context?.getExtension("WEBGL_lose_context")?.loseContext();
      return context !== null;
    } catch {
      return false;
    }
  };
  const NO_WEBGL =
    "The surface cannot be drawn, because this browser gives the page no WebGL context. The contours beside it show the same values.";
  const watchSurfaces = () => {
    const places = new Map(surfaces.map((plot) => [document.getElementById(plot.id), plot]));
    if (!hasWebGL()) {
      for (const place of places.keys()) say(place, NO_WEBGL);
      return;
    }
    const seen = async (entries) => {
      for (const { target, isIntersecting } of entries) {
        const plot = places.get(target);
        if (isIntersecting && !plot.drawn) {
          await draw(plot);
          target.on?.("plotly_webglcontextlost", () => {
            Plotly.purge(target);
            plot.drawn = false;
            say(target, NO_WEBGL);
          });
        } else if (!isIntersecting && plot.drawn) {
          plot.camera = target.layout?.scene?.camera;
          Plotly.purge(target);
          plot.drawn = false;
        }
      }
    };
    const observer = new IntersectionObserver(seen, { rootMargin: "200px" });
    for (const place of places.keys()) observer.observe(place);
  };

  const press = (buttons, is) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(is(button)));
  };
  const overs = document.querySelectorAll("button[data-over]");
  const themes = document.querySelectorAll("button[data-theme]");
  const looks = document.querySelectorAll("button[data-look]");
  const show = () => {
    root.dataset.theme = state.theme;
    press(overs, (button) => button.dataset.over === state.over);
    press(themes, (button) => button.dataset.theme === state.theme);
    press(looks, (button) => !state.hidden.has(Number(button.dataset.look)));
    return redraw();
  };
  for (const button of overs) button.onclick = () => ((state.over = button.dataset.over), show());
  for (const button of themes) button.onclick = () => ((chosen = true), (state.theme = button.dataset.theme), show());
  for (const button of looks) {
    const look = Number(button.dataset.look);
    button.onclick = () => (state.hidden.delete(look) || state.hidden.add(look), show());
  }
  systemIsDark.addEventListener("change", (event) => {
    if (!chosen) show((state.theme = event.matches ? "dark" : "light"));
  });
  addEventListener("beforeprint", () => redraw((state.printing = true)));
  addEventListener("afterprint", () => redraw((state.printing = false)));

  show().then(() => {
    watchSurfaces();
    root.dataset.ready = "yes"; // all flat plots are drawn
  });
})();
