"""Labels stay apart where there is room."""

from unspoiled.report._label_placement import Box, place_labels


def boxes(placements, texts):
    """Boxes measured anew: 6.3 pixels a character, 13 high."""
    for place, text in zip(placements, texts, strict=True):
        width = 6.3 * len(text)
        left = place.x - {"start": 0, "middle": width / 2, "end": width}[place.align]
        yield Box(left, place.y - 6.5, left + width, place.y + 6.5)


def apart(a, b):
    return a.right <= b.left or b.right <= a.left or a.bottom <= b.top or b.bottom <= a.top


def test_labels_of_close_points_do_not_overlap_and_stay_inside():
    points = [(100, 100), (104, 103), (97, 106), (102, 95), (299, 5), (1, 199)]
    texts = ["uniform", "cocktail", "evolve", "gradient", "aligned", "letters"]
    placed = list(boxes(place_labels(points, texts, Box(0, 0, 300, 200)), texts))
    for i, a in enumerate(placed):
        assert all(apart(a, b) for b in placed[:i])
        assert not apart(a, Box(0, 0, 300, 200))
    for corner in placed[4:]:
        assert corner.left >= 0
        assert corner.right <= 300


def test_a_lone_point_has_its_label_to_the_right():
    assert place_labels([(50, 50)], ["x"], Box(0, 0, 100, 100))[0] == (59, 50, "start")
