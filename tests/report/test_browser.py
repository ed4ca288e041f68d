"""The page in a real browser: everything is drawn, nothing is fetched, and each choice changes what is shown."""

from __future__ import annotations

import base64

import pytest
from browser import NO_WEBGL, WEBGL, browser, complaints, needs_browser, open_page, wait
from shown_runs import analysed, row, shown

from noiseless.report import page

pytestmark = needs_browser
HOSTILE = "</script><script>window.hurt=1</script><b>x</b>"
UNDRAWN = """[...document.querySelectorAll('.plot:not(.surface)')].filter(
        (place) => !place.querySelector('.scatterlayer .trace path, .contourlayer path, .heatmaplayer image')
    ).map((place) => place.id)"""
"""ids of plots in which there is no line, point, contour or cell"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two seeds of one recipe and a recipe whose name is meant to hurt, with every analysis."""
    path = tmp_path_factory.mktemp("pages")
    runs = [analysed(path / f"{k}", seed=k, name="fb-clipped", clip=0.25) for k in range(2)]
    page.write(path / "report.html", [*runs, analysed(path / "b", name=HOSTILE)], "Two recipes")
    return path / "report.html"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile"), *WEBGL) as chrome:
        yield chrome


@pytest.fixture
def opened(driver, report):
    open_page(driver, report)
    return driver


def test_every_plot_is_drawn_without_a_complaint_and_nothing_is_fetched(opened):
    count = opened.execute_script("return document.querySelectorAll('.plot:not(.surface)').length")
    assert count > 25
    assert opened.execute_script(f"return {UNDRAWN}") == []
    assert opened.execute_script("return document.documentElement.dataset.failed ?? null") is None
    assert opened.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)") == []
    assert opened.execute_script("return window.hurt ?? null") is None
    assert complaints(opened) == []


def test_each_recipe_has_a_line_and_seeds_have_a_band(opened):
    paths = "document.querySelectorAll('#plot-train-loss .scatterlayer .trace path.js-line').length"
    fills = "document.querySelectorAll('#plot-train-loss .scatterlayer path.js-fill').length"
    assert opened.execute_script(f"return {paths}") >= 2
    assert opened.execute_script(f"return {fills}") == 1
    names = opened.execute_script(
        "return [...document.querySelectorAll('.legend button')].map((b) => b.innerText.trim())"
    )
    assert names == ["fb-clipped", HOSTILE]
    titles = opened.execute_script("return [...document.querySelectorAll('.gtitle')].map((t) => t.textContent)")
    assert any(HOSTILE in title for title in titles)  # as it is written, not as HTML
    texts = "[...document.querySelectorAll('#plot-gradient-norm .textpoint')].map((t) => t.textContent)"
    assert "clip 0.25" in opened.execute_script(f"return {texts}")


def test_a_figure_with_its_own_legend_names_each_line(opened):
    names = "[...document.querySelectorAll('#plot-eigenvalues-1-fb-clipped .legendtext')].map((t) => t.textContent)"
    assert opened.execute_script(f"return {names}") == ["1", "2", "3"]
    assert opened.execute_script("return document.querySelector('#plot-lr .legend')") is None


def test_gaps_are_marked(opened):
    marked = (
        "document.getElementById('plot-sharpness').data.filter((t) => t.yaxis === 'y2').map((t) => [t.x, t.hovertext])"
    )
    assert opened.execute_script(f"return {marked}") == [[[4], "not finite"]] * 2


RANGES = """[...document.querySelectorAll('.plot:not(.surface)')].map((place) => [
    place.id,
    [...place.querySelectorAll('.xtick text, .ytick text')].map((tick) => tick.textContent).join(' '),
    ...['xaxis', 'yaxis'].flatMap((name) => place._fullLayout[name].range.map(Number))])"""
"""labels of each plot's axes, and the ends of their ranges"""


def test_drawing_again_leaves_the_axes_as_they_were(opened):
    """The axes depend on the drawn data alone, not on the buttons that were pressed before."""
    before = opened.execute_script(f"return {RANGES}")
    assert len({entry[1] for entry in before}) > 10
    for button in (
        "[data-theme=light]",
        "[data-theme=dark]",
        "[data-over=steps]",
        "[data-over=passes]",
        "[data-look='0']",
    ):
        opened.find_element("css selector", f"button{button}").click()
        opened.find_element("css selector", f"button{button}").click()
    opened.find_element("css selector", "button[data-theme=light]").click()
    after = opened.execute_script(f"return {RANGES}")
    assert [entry[:2] for entry in after] == [entry[:2] for entry in before]
    for was, now in zip(before, after, strict=True):  # a pixel of the margin more or less moves an end by a thousandth
        assert now[2:] == pytest.approx(was[2:], rel=0.01, abs=0.01), was[0]


def test_no_button_sends_a_plot_anywhere(opened):
    titles = "[...document.querySelectorAll('.modebar-btn')].map((b) => b.getAttribute('data-title') ?? b.ariaLabel)"
    buttons = set(opened.execute_script(f"return {titles}"))
    assert {"Download plot as SVG", "Pan"} <= buttons
    assert len(buttons) == 5, buttons


def test_buttons_draw_curves_over_steps_or_over_passes(driver, tmp_path):
    run = shown(tmp_path / "run", [row(k, passes=2.0 * (k + 1)) for k in range(5)])
    page.write(tmp_path / "page.html", [run], "x")
    open_page(driver, tmp_path / "page.html")
    seen = (
        "[document.querySelector('#plot-lr .xtitle').textContent, document.getElementById('plot-lr').data[0].x.at(-1)]"
    )
    pressed = "[...document.querySelectorAll('button[data-over][aria-pressed=true]')].map((b) => b.dataset.over)"
    for over, last in (("passes", 10), ("steps", 5), ("passes", 10)):
        driver.find_element("css selector", f"button[data-over={over}]").click()
        wait(driver, f"{seen}[0] === '{over}'")
        assert driver.execute_script(f"return {seen}") == [over, last]
        assert driver.execute_script(f"return {pressed}") == [over]
    assert complaints(driver) == []


def test_buttons_switch_between_light_and_dark(opened):
    grounds = (
        "[getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('#plot-lr .main-svg').style.backgroundColor || "
        " getComputedStyle(document.querySelector('#plot-lr .main-svg')).backgroundColor]"
    )
    line = "document.getElementById('plot-lr').data.find((t) => t.line && t.line.width).line.color"
    seen = {}
    for theme in ("dark", "light"):
        opened.find_element("css selector", f"button[data-theme={theme}]").click()
        wait(opened, f"document.getElementById('plot-lr').layout.template.layout.font.color === "
                     f"'{'#e6e6e6' if theme == 'dark' else '#1a1a1a'}'")  # fmt: skip
        seen[theme] = [*opened.execute_script(f"return {grounds}"), opened.execute_script(f"return {line}")]
    assert seen["light"] == ["rgb(255, 255, 255)", "rgb(255, 255, 255)", "#0072B2"]
    assert seen["dark"] == ["rgb(21, 24, 28)", "rgb(21, 24, 28)", "#3D9BE0"]


def test_the_system_chooses_the_theme_until_the_reader_does(driver, report):
    for theme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        open_page(driver, report)
        assert driver.execute_script("return document.documentElement.dataset.theme") == theme
    driver.find_element("css selector", "button[data-theme=light]").click()
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert driver.execute_script("return document.documentElement.dataset.theme") == "light"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_recipe_can_be_hidden(opened):
    visible = "document.getElementById('plot-lr').data.filter((t) => t.visible).map((t) => t.meta)"
    assert set(opened.execute_script(f"return {visible}")) == {0, 1}
    opened.find_element("css selector", "button[data-look='1']").click()
    wait(opened, f"!{visible}.includes(1)")
    assert set(opened.execute_script(f"return {visible}")) == {0}
    opened.find_element("css selector", "button[data-look='1']").click()
    wait(opened, f"{visible}.includes(1)")


def test_the_surface_is_drawn_while_it_is_visible_and_removed_after(opened):
    element = "document.getElementById('surface-landscape-2d-1-loss')"
    assert opened.execute_script(f"return {element}.querySelector('canvas') === null")
    opened.execute_script(f"{element}.scrollIntoView({{block: 'center'}})")
    wait(opened, f"!!{element}._fullLayout?.scene?._scene?.glplot")
    # pixels of the surface itself: colours of the map, neither ground nor grey lines
    colours = f"""(() => {{
        const scene = {element}._fullLayout.scene._scene;
        scene.glplot.redraw();
        const gl = scene.glplot.gl, w = gl.drawingBufferWidth, h = gl.drawingBufferHeight;
        const pixels = new Uint8Array(4 * w * h);
        gl.readPixels(0, 0, w, h, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
        let coloured = 0;
        for (let k = 0; k < pixels.length; k += 4)
            if (Math.abs(pixels[k] - pixels[k + 2]) > 30 && pixels[k + 3] > 0) coloured++;
        return coloured / (w * h);
    }})()"""
    assert wait(opened, f"{colours} > 0.03")
    opened.execute_script("scrollTo(0, 0)")
    wait(opened, f"!{element}.querySelector('canvas')")
    assert complaints(opened) == []


def test_without_webgl_a_text_replaces_the_surface_and_the_contours_are_drawn(tmp_path, report):
    with browser(tmp_path / "profile", *NO_WEBGL) as chrome:
        open_page(chrome, report)
        text = chrome.execute_script("return document.getElementById('surface-landscape-2d-1-loss').textContent")
        assert "no WebGL" in text
        assert "contours" in text
        assert chrome.execute_script(f"return {UNDRAWN}") == []


def test_a_printed_page_is_light_and_no_wider_than_the_paper(opened):
    opened.find_element("css selector", "button[data-theme=dark]").click()
    opened.execute_script("""
        addEventListener('beforeprint', () => {  // after the page's own
            const place = document.getElementById('plot-lr');
            const width = place.querySelector('.main-svg').width.baseVal.value;
            window.printed = [width, place.layout.template.layout.paper_bgcolor];
        });
    """)
    options = {"preferCSSPageSize": True, "printBackground": True}
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", options)["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page\n") > 5
    width, ground = opened.execute_script("return window.printed")
    assert ground == "#ffffff"
    assert width < 0.9 * 21 / 2.54 * 96  # of A4
    wait(opened, "document.getElementById('plot-lr').layout.width === undefined")  # restored after printing
    assert opened.execute_script("return document.documentElement.dataset.theme") == "dark"
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    seen = "[getComputedStyle(document.body).backgroundColor, document.querySelector('.surface').offsetHeight]"
    assert opened.execute_script(f"return {seen}") == ["rgb(255, 255, 255)", 0]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.find_element("css selector", "button[data-theme=light]").click()


def test_a_single_run_without_analyses_has_table_curves_and_run(driver, tmp_path):
    page.write(tmp_path / "page.html", [shown(tmp_path / "run", [row(0)])], "x")
    open_page(driver, tmp_path / "page.html")
    assert driver.execute_script(f"return {UNDRAWN}") == []
    headings = driver.execute_script("return [...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert headings == ["Table", "Curves", "Runs"]
    assert complaints(driver) == []


def test_a_logarithmic_axis_has_its_values_in_full(driver, tmp_path):
    """From 12 to 70 % there is no power of ten: plotly alone would write 2 and 5 for 20 and 50."""
    rows = [row(k, test_accuracy=accuracy, test_loss=1.0) for k, accuracy in enumerate((0.3, 0.6, 0.88))]
    page.write(tmp_path / "page.html", [shown(tmp_path / "run", rows)], "x")
    open_page(driver, tmp_path / "page.html")
    ticks = "[...document.querySelectorAll('#plot-test-error .ytick text')].map((t) => t.textContent)"
    assert driver.execute_script(f"return {ticks}") == ["20", "50"]


@pytest.mark.parametrize(("width", "buttons"), [(390, False), (1400, True)])
def test_the_buttons_of_a_plot_cover_no_title(width, buttons, tmp_path):
    page.write(tmp_path / "page.html", [shown(tmp_path / "run", [row(0), row(1)])], "x")
    covered = """[...document.querySelectorAll('.plot')].filter((place) => {
        const [bar, title] = ['.modebar', '.gtitle'].map((part) => place.querySelector(part).getBoundingClientRect());
        return bar.width && bar.left < title.right && bar.top < title.bottom && bar.bottom > title.top;
    }).map((place) => place.id)"""
    with browser(tmp_path / "profile", size=f"{width},900") as chrome:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        open_page(chrome, tmp_path / "page.html")
        assert chrome.execute_script(f"return {covered}") == []
        shown_bars = "[...document.querySelectorAll('.modebar')].some((bar) => bar.getBoundingClientRect().width)"
        assert chrome.execute_script(f"return {shown_bars}") is buttons
