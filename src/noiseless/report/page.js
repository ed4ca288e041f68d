// Draws the page's plots, and draws them anew for another axis, another ground, or paper.
"use strict";
(() => {
  const root = document.documentElement;
  const source = JSON.parse(document.getElementById("plots").textContent);
  const asksDark = matchMedia("(prefers-color-scheme: dark)");
  const state = { over: source.over[0], theme: asksDark.matches ? "dark" : "light", hidden: new Set(), printing: false };
  let chosen = false; // whether the reader has chosen a theme, which the system's no longer changes
  const PAPER = 690; // CSS pixels between the margins of a page of A4

  const SVG = {
    name: "svg", title: "Download plot as SVG", icon: Plotly.Icons.disk,
    click: (place) => Plotly.downloadImage(place, { format: "svg", filename: place.id }),
  };
  // All buttons are named: by default plotly has one that sends the plot to its maker's server.
  const FLAT = [["toImage", SVG], ["zoom2d", "pan2d", "resetScale2d"]];
  const DEEP = [["toImage"], ["orbitRotation", "zoom3d", "pan3d", "resetCameraDefault3d"]];
  const config = (plot) => ({
    responsive: true, displaylogo: false, modeBarButtons: plot.surface ? DEEP : FLAT,
    toImageButtonOptions: { format: "png", filename: plot.id, scale: 2 },
  });

  let revision = 0; // tells plotly to compute anew: without it, drawing the same data again loses the axes' ranges

  const theme = () => (state.printing ? "light" : state.theme);

  // A value of the page's JSON with lists put in their places, and colours of the dark ground where that is shown.
  const resolved = (value) => {
    if (typeof value === "string") return theme() === "dark" ? source.palette[value] ?? value : value;
    if (Array.isArray(value)) return value.map(resolved);
    if (value === null || typeof value !== "object") return value;
    if ("$" in value) return source.lists[value.$];
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolved(each)]));
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

  // Surfaces need WebGL, of which a browser gives a page few contexts: those in sight are drawn, the others taken down.
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
    "The surface cannot be drawn: this browser gives the page no WebGL context. The contours beside it show the same values.";
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
  asksDark.addEventListener("change", (asked) => {
    if (!chosen) show((state.theme = asked.matches ? "dark" : "light"));
  });
  addEventListener("beforeprint", () => redraw((state.printing = true)));
  addEventListener("afterprint", () => redraw((state.printing = false)));

  show().then(() => {
    watchSurfaces();
    root.dataset.ready = "yes"; // every flat plot is there
  });
})();
