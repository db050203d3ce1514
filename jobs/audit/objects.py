"""Are the objects still in S3 that claim checks name? One question each for a few, whole listings for many."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from pipeline.storage.claims import PREFIX
from pipeline.storage.store import ObjectStore

# A listing names a thousand objects in the time of a few questions, but has to pass all others of the bucket too.
ASK_EACH = 5000
THREADS = 8
PREFIXES = (PREFIX, "masks/", "heats/")


def missing_objects(
    store: ObjectStore, keys: Sequence[str], on_object: Callable[[int, int], None] = lambda _done, _of: None
) -> np.ndarray:
    """(keys,) whether there is no object of each key; none has the key "".

    Raises:
        StoreUnavailable: S3 does not answer, or refuses to say.
    """
    if len(keys) > ASK_EACH:
        return _by_listing(store, keys, on_object)
    there = np.zeros(len(keys), bool)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="objects") as pool:
        for number, found in enumerate(pool.map(lambda key: bool(key) and store.exists(key), keys)):
            there[number] = found
            on_object(number + 1, len(keys))
    return ~there


def _by_listing(store: ObjectStore, keys: Sequence[str], on_object: Callable[[int, int], None]) -> np.ndarray:
    wanted = _digests(keys)
    order = np.argsort(wanted)
    ordered, there = wanted[order], np.zeros(len(keys), bool)
    for listed in _chunks(key for prefix in PREFIXES for key in store.keys(prefix)):
        digests = np.unique(_digests(listed))
        found = np.minimum(np.searchsorted(digests, ordered), len(digests) - 1)
        there[order] |= digests[found] == ordered
        on_object(int(there.sum()), len(keys))
    return ~there


def _chunks(keys: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(keys, 50_000)):
        yield chunk


def _digests(keys: Sequence[str]) -> np.ndarray:
    return np.array([hashlib.sha256(key.encode()).digest()[:16] for key in keys], dtype="S16")
