"""A thread that dies fails its test at once, with its own error."""

import threading
from collections.abc import Callable

import pytest

from tests.threads import together


def test_what_one_of_several_at_once_raises_is_raised() -> None:
    seen: list[int] = []

    def dies() -> None:
        raise OSError("S3 timed out")

    with pytest.raises(OSError, match="S3 timed out"):
        together(lambda: seen.append(1), dies, lambda: seen.append(2))
    assert sorted(seen) == [1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_has_died(eventually: Callable[..., None]) -> None:
    def dies() -> None:
        raise OSError("S3 timed out")

    thread = threading.Thread(target=dies)
    thread.start()
    with pytest.raises(AssertionError, match=r"a thread of this test died: OSError.'S3 timed out'"):
        eventually(lambda: False, within_s=300)
    thread.join()
