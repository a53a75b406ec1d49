"""Pages and their charts: where points and ticks lie, and text of any kind."""

import pytest

from deeplab2_kmax.pages.charts import line_chart
from deeplab2_kmax.pages.rendering import render


def test_points_lie_within_the_axes_and_in_order():
    chart = line_chart("t", "x", "s", [(0.3, 60.0), (0.5, 62.5), (0.7, 41.0)], mark=(0.5, "config"))
    xs, ys = zip(*chart.points)
    assert xs[0] == chart.left and xs[-1] == chart.right and xs[0] < xs[1] < xs[2]
    assert all(chart.top <= y <= chart.bottom for y in ys) and ys[1] < ys[0] < ys[2]
    assert chart.mark == (pytest.approx(xs[1]), "config")
    assert [text for _, text in chart.y_ticks] == ["40", "50", "60", "70", "80"]


def test_a_flat_line_stays_flat_and_its_ticks_differ():
    chart = line_chart("t", "x", "s", [(0, 61.57), (4, 61.58)])
    (_, first), (_, last) = chart.points
    assert abs(first - last) < 2
    texts = [text for _, text in chart.y_ticks]
    assert len(set(texts)) == len(texts) == 5


def test_one_point_and_a_mark_outside():
    chart = line_chart("t", "x", "s", [(2, 50.0)], mark=(9, "config"))
    assert chart.mark is None and chart.left < chart.points[0][0] < chart.right


def test_the_unit_square_has_a_diagonal():
    chart = line_chart("t", "x", "s", [(0.2, 0.5), (0.9, 1.0)], unit_square=True)
    assert chart.diagonal == (chart.left, chart.bottom, chart.right, chart.top)
    assert chart.points[1][1] == chart.top


def test_halves_of_characters_and_bytes_of_old_encodings_can_be_written():
    page = render("check", title="\udcfc & \ud800", good=True, verdict="", splits=[])
    assert "\\udcfc &amp; \\ud800" in page and page.encode()


def test_a_name_without_a_value_is_an_error():
    with pytest.raises(Exception, match="title"):
        render("report")


@pytest.mark.parametrize(
    "ends, ticks",
    [((0.05, 0.95), ["0.2", "0.4", "0.6", "0.8"]), ((0.34, 0.7), ["0.4", "0.5", "0.6", "0.7"]), ((3, 3), ["3"])],
)
def test_ticks_are_round_numbers_within_the_axis(ends, ticks):
    chart = line_chart("a", "value", "nothing", [(ends[0], 50.0), (ends[1], 60.0)])
    assert [text for _, text in chart.x_ticks] == ticks
    assert all(chart.left <= place <= chart.right for place, _ in chart.x_ticks)
