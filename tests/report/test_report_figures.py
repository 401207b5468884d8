"""Figures say what the numbers say: positions computed from the drawing, laws of fronts and ticks."""

import dataclasses
import re
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from unspoiled.report import write_figures
from unspoiled.report._axes import Scale, decimals, ticks
from unspoiled.report._drawing import ACCENT, WARM, Drawing
from unspoiled.report._figures import draw_figures
from unspoiled.report._trade_off_figure import front, staircase

SVG = "{http://www.w3.org/2000/svg}"
points = st.dictionaries(st.text(min_size=1), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1)


@given(points)
def test_no_point_beats_one_of_the_front_and_every_other_is_beaten(of):
    best = front(of)
    for name, (x, y) in of.items():
        beaten = any(a >= x and b >= y and (a > x or b > y) for a, b in of.values())
        assert (name in best) == (not beaten)
    xs = [of[name][0] for name in best]
    assert xs == sorted(xs, reverse=True)


@given(points)
def test_the_staircase_runs_level_and_upright_through_the_front(of):
    best = [of[name] for name in front(of)]
    corners = staircase(best)
    assert set(best) <= set(corners)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))
    for corner in corners:
        assert any(x >= corner[0] and y >= corner[1] for x, y in best), "nothing outside is called beaten"


@given(st.floats(-50, 50), st.floats(0.01, 90))
def test_ticks_are_round_even_and_within(low, size):
    found = ticks(low, low + size)
    assert 1 <= len(found) <= 5
    assert low - 1e-6 <= found[0]
    assert found[-1] <= low + size + 1e-6
    steps = {round(b - a, 9) for a, b in pairwise(found)}
    assert len(steps) <= 1
    assert len({f"{v:.{decimals(found)}f}" for v in found}) == len(found)


def test_a_value_off_the_scale_is_drawn_at_its_end():
    scale = Scale(0.0, 2.0, 100.0, 300.0)
    assert [scale.at(v) for v in (0.0, 0.5, 2.0, 5.0, -1.0)] == [100.0, 150.0, 300.0, 300.0, 100.0]


def test_bars_are_as_long_as_the_rates(inputs):
    figure = draw_figures(inputs).rates["refusal"]
    bars = ElementTree.fromstring(figure.svg).findall(f"{SVG}rect")
    rates = [scores.rates["refusal"].rate for scores in inputs.results.models.values()]
    assert len(bars) == len(rates)
    for bar, rate in zip(bars, rates):
        assert abs(float(bar.get("width", 0)) - 168 * rate) < 0.06
    assert [bar.get("fill") == ACCENT for bar in bars] == [name == "evolve" for name in inputs.results.models]


def test_the_harm_map_is_deepest_where_the_harm_enters(inputs):
    audit = inputs.audit.merges["uniform"]
    svg = draw_figures(inputs).attribution["uniform"].svg
    cells = ElementTree.fromstring(svg).findall(f"{SVG}rect")[: 3 * len(audit.layers)]
    depth = {divmod(i, 32): (cell.get("fill"), float(cell.get("fill-opacity", 1))) for i, cell in enumerate(cells)}
    worst = max(range(32), key=audit.attribution["letters"].__getitem__)
    assert depth[2, worst] == (WARM, 1.0)
    best = min(range(32), key=audit.attribution["aligned"].__getitem__)
    assert depth[0, best][0] == ACCENT


def test_unresolved_changes_have_no_colour(inputs):
    svg = draw_figures(inputs).changes["uniform"].svg
    coloured = sum(
        change.p_value <= 0.05
        for of in (inputs.audit.merges["uniform"].without, inputs.audit.merges["uniform"].halved)
        for own in of.values()
        for change in own.values()
    )
    circles = ElementTree.fromstring(svg).findall(f"{SVG}circle")
    assert len(circles) == 2 * 3 * 4
    assert sum({c.get("fill"), c.get("stroke")} & {ACCENT, WARM} != set() for c in circles) == coloured > 0


def test_text_of_strangers_stays_text():
    drawing = Drawing(10, 10)
    drawing.text(1, 1, '</text><script>"\u202e')
    root = ElementTree.fromstring(drawing.svg("<b>", "a & b", "x"))
    assert [element.tag.removeprefix(SVG) for element in root.iter()] == ["svg", "title", "desc", "text"]
    assert root.find(f"{SVG}text").text == '</text><script>"⟨U+202E⟩'


def test_figures_stand_alone_as_files(inputs, tmp_path):
    few = dataclasses.replace(inputs, audit=None, trials=[], recipes={})
    written = write_figures(few, tmp_path / "new" / "figures")
    names = {path.name for path in written}
    assert {"trade-off-0.svg", "trade-off-0.png", "categories.svg"} <= names
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == names
    root = ElementTree.parse(tmp_path / "new/figures/trade-off-0.svg").getroot()
    assert root.find(f"{SVG}rect").get("width") == "100%", "a white ground"
    assert not re.search(r"url\(|href|@import", (tmp_path / "new/figures/trade-off-0.svg").read_text())
    png = (tmp_path / "new/figures/trade-off-0.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width = int.from_bytes(png[16:20], "big")
    assert width == 3 * float(root.get("width"))
