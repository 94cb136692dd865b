"""In which order parts of a payload are fetched."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from installer.act.payload.fetching import Part, in_order_of_use, parts_of
from installer.model.manifest import PIECE, Frame
from installer.model.units import MIB

DIGEST = "0" * 64


def frame(length: int, unpacked: int) -> Frame:
    pieces = [DIGEST] * -(-length // PIECE) if length > PIECE else None
    return Frame(
        kind="files",
        offset=0,
        length=length,
        unpacked=unpacked,
        entries=1,
        sha256=DIGEST,
        pieces=pieces,
    )


FRAMES = st.lists(
    st.builds(frame, st.integers(1, 5 * PIECE), st.integers(512, 2**30)), min_size=1, max_size=30
)


def ends(frames: list[Frame]) -> Iterator[int]:
    return (sum(1 for _ in parts_of(number, frame)) for number, frame in enumerate(frames))


@given(FRAMES, st.integers(1, 5))
def test_no_more_frames_are_begun_than_there_are_workers(frames: list[Frame], workers: int) -> None:
    left = dict(enumerate(ends(frames)))
    begun: list[int] = []
    for part in in_order_of_use(enumerate(frames), workers):
        if part.frame not in begun:
            begun.append(part.frame)
        assert sum(left[number] > 0 for number in begun) <= workers
        left[part.frame] -= 1
    assert begun == list(range(len(frames)))
    assert not any(left.values())


@given(FRAMES, st.integers(1, 5))
def test_each_part_comes_once_and_those_of_a_frame_in_order(
    frames: list[Frame], workers: int
) -> None:
    parts = list(in_order_of_use(enumerate(frames), workers))
    for number, one in enumerate(frames):
        mine = [part for part in parts if part.frame == number]
        assert mine == list(parts_of(number, one))


def test_a_long_frame_lets_others_in_between() -> None:
    frames = [frame(3 * PIECE, 48 * MIB), *[frame(PIECE, 16 * MIB)] * 4]
    order: list[Part] = list(in_order_of_use(enumerate(frames), 2))
    assert [part.frame for part in order] == [0, 1, 0, 2, 0, 3, 4]
    assert [part.frame for part in in_order_of_use(enumerate(frames), 1)] == [0, 0, 0, 1, 2, 3, 4]
