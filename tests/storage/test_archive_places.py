"""Which span of a block is one that is elsewhere: by its trace, or by the one that it left."""

from storage.archive_places import Place, Spans

HERE, THERE, OTHER, CALL = (name * 2 for name in (b"h", b"t", b"o", b"c"))
PLACE = Place(0, 9)


def test_a_span_is_found_under_its_own_key_and_an_id_alone_finds_none() -> None:
    spans = Spans()
    spans.add((HERE, CALL), None, PLACE)
    assert spans.find((HERE, CALL), None) == (HERE, CALL)
    assert spans.find((THERE, CALL), None) is None
    assert spans.find((THERE, CALL), OTHER) is None
    assert spans.find((HERE, OTHER), None) is None


def test_a_call_that_moved_is_found_where_the_block_has_it_whichever_of_the_two_moved() -> None:
    unmoved, moved = Spans(), Spans()
    unmoved.add((HERE, CALL), None, PLACE)
    moved.add((THERE, CALL), HERE, PLACE)
    assert unmoved.find((THERE, CALL), HERE) == (HERE, CALL)
    assert moved.find((HERE, CALL), None) == (THERE, CALL)
    assert moved.find((OTHER, CALL), HERE) == (THERE, CALL)
    assert moved.find((OTHER, CALL), THERE) is None
    assert moved.find((OTHER, CALL), None) is None


def test_a_call_that_comes_again_in_another_trace_is_left_out_and_another_span_is_not() -> None:
    spans = Spans()
    spans.add((THERE, CALL), HERE, PLACE)
    spans.add((HERE, CALL), None, Place(9, 9))
    spans.add((OTHER, CALL), HERE, Place(18, 9))
    assert spans == {(THERE, CALL): PLACE}
    spans.add((OTHER, CALL), None, PLACE)
    spans.add((OTHER, OTHER), HERE, PLACE)
    assert [*spans] == [(THERE, CALL), (OTHER, CALL), (OTHER, OTHER)]
