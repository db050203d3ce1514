"""Scoring: one frozen teacher for all products, and only small students per product.

A mixed batch runs through the teacher once; each product's student then sees its own rows. An image of a product with
tiles is as many rows as it has tiles, and one map in the end. Students are kept by least recent use within a budget of
bytes and are loaded again when asked for. REST and the stream share one engine: a lock guards the device, another the
table of students, and loading (which may fetch from a store) holds neither.

While the device computes one batch, the next is sent to it, and what came before is judged. Waiting for a GPU holds no
lock: REST and the stream keep it busy together.

Where a batch does not fit into the device's memory, it is halved and scored in parts, and so are those that follow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.engine.backend import Backend, LoadedStudent, MapsToCome
from model.engine.choice import BackendName, make_backend
from model.images.frames import Frame
from model.images.ignored import Cover
from model.images.registration import Pose, moved_along, straightened
from model.images.tiles import parts, whole
from model.manifest import Manifest, ModelBundle, Preprocessing, TeacherKey
from model.verdict.scored import Scored, scored

log = logging.getLogger(__name__)
_OUT_OF_MEMORY = (MemoryError, torch.cuda.OutOfMemoryError)
_UNDER_WAY = 2
"""Batches that the device has been given and that nobody has waited for."""
_TOLD_S = 1.0


@dataclass(frozen=True)
class _Resident:
    manifest: Manifest
    student: LoadedStudent
    cover: Cover | None

    @property
    def bytes(self) -> int:
        return self.student.bytes + (self.cover.bytes if self.cover else 0)


class Engine:
    """Scores frames with the models that `load` finds by key; a key is opaque, usually "product/version".

    load: called without any lock held but one that keeps loads apart; what it raises reaches the caller.
    memory_limit_bytes: for students; the most recently used one stays even if it alone is larger.
    batch_size: most images in one pass of the teacher. threads: on the CPU, none leaves torch's number alone.
    backend: its name (see make_backend), or one of the caller's.
    """

    def __init__(
        self,
        load: Callable[[str], ModelBundle],
        *,
        device: str = "auto",
        memory_limit_bytes: int = 1 << 30,
        batch_size: int = 16,
        threads: int | None = None,
        backend: Backend | BackendName = "auto",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, it must be at least 1")
        if threads is not None:
            torch.set_num_threads(threads)
        self._load = load
        self._backend = make_backend(backend, device, threads) if isinstance(backend, str) else backend
        self._memory_limit_bytes = memory_limit_bytes
        self._batch_size = batch_size
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
        self._table_lock = threading.Lock()
        self._load_lock = threading.Lock()
        self._device_lock = threading.Lock()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys on the device, least recently used first."""
        with self._table_lock:
            return tuple(self._residents)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the students on the device; teachers are not counted."""
        with self._table_lock:
            return sum(resident.bytes for resident in self._residents.values())

    def warm(self, key: str) -> Manifest:
        """Load if absent and map gray frames, in every size of batch that needs a first time. Raises ModelError.

        So that the first real images do not wait.
        """
        begun = time.perf_counter()
        resident = self._resident(key)
        size = resident.manifest.preprocessing.size
        gray = Frame(np.full((size, size, 3), 128, dtype=np.uint8), width=size, height=size)
        for count in self._backend.batches(self._batch_size):
            self._begin([gray] * count, [resident] * count)()
        took = time.perf_counter() - begun
        log.log(logging.INFO if took > _TOLD_S else logging.DEBUG, "%s is ready after %.1f s", key, took)
        return resident.manifest

    def manifest(self, key: str) -> Manifest:
        """The manifest behind a key; loads the model if absent. Raises ModelError."""
        return self._resident(key).manifest

    def forget(self, key: str) -> None:
        """Free a model, e.g. after a swap; unknown keys are ignored."""
        with self._table_lock:
            self._residents.pop(key, None)

    def score(self, frames: Sequence[Frame], keys: Sequence[str]) -> list[Scored]:
        """Score frames[i] with the model keys[i]; results in the same order. Raises ModelError, ValueError."""
        if len(frames) != len(keys):
            raise ValueError(f"{len(frames)} frames and {len(keys)} keys: give one key per frame")
        residents = {key: self._resident(key) for key in dict.fromkeys(keys)}
        of_frame = [residents[key] for key in keys]
        poses: dict[int, Pose] = {}
        pieces: list[Frame] = []
        owners: list[int] = []
        for index, (frame, key) in enumerate(zip(frames, keys, strict=True)):
            own = _pieces(index, frame, key, of_frame[index], poses)
            pieces += own
            owners += [index] * len(own)
        missing = Counter(owners)
        maps: list[list[np.ndarray]] = [[] for _ in frames]
        results: dict[int, Scored] = {}

        def judge(index: int) -> None:
            results[index] = _judged(frames[index], of_frame[index], maps[index], poses.get(index))

        for rows, found in self._passes(pieces, [of_frame[index] for index in owners]):
            # Rows of one image come in order, for its pieces share a group.
            for row, map_HW in zip(rows, found, strict=True):
                maps[owners[row]].append(map_HW)
            for index in dict.fromkeys(owners[row] for row in rows):
                if len(maps[index]) == missing[index]:
                    judge(index)
        for index in range(len(frames)):
            if index not in results:  # it has no piece that counts
                judge(index)
        return [results[index] for index in range(len(frames))]

    def _passes(
        self, pieces: Sequence[Frame], residents: Sequence[_Resident]
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Rows and their maps, [K, S / 4, S / 4] each, batch by batch, in the order begun."""
        under_way: deque[tuple[list[int], MapsToCome]] = deque()
        for rows in self._chunks(residents):
            under_way.append((rows, self._begin([pieces[row] for row in rows], [residents[row] for row in rows])))
            if len(under_way) == _UNDER_WAY:
                rows, come = under_way.popleft()
                yield rows, come()
        for rows, come in under_way:
            yield rows, come()

    def _chunks(self, residents: Sequence[_Resident]) -> Iterator[list[int]]:
        """Rows that can share a pass of the teacher, at most batch_size of them, each student's side by side."""
        groups: dict[TeacherKey, list[int]] = {}
        for row, resident in enumerate(residents):
            groups.setdefault(resident.manifest.teacher_key, []).append(row)
        for rows in groups.values():
            start = 0
            while start < len(rows):
                chunk = rows[start : start + self._batch_size]  # which may shrink from chunk to chunk
                start += len(chunk)
                first = {id(residents[row].student): row for row in reversed(chunk)}
                yield sorted(chunk, key=lambda row: first[id(residents[row].student)])

    def _begin(self, frames: Sequence[Frame], residents: Sequence[_Resident]) -> MapsToCome:
        """One pass of the teacher, then each product's student on its own rows."""
        try:
            with self._device_lock:
                return self._backend.begin(residents[0].manifest, frames, [resident.student for resident in residents])
        except _OUT_OF_MEMORY:
            if len(frames) == 1:
                raise
            half = len(frames) // 2
            self._batch_size = min(self._batch_size, half)
            log.warning("a batch of %d images does not fit into memory; from now on it is %d", len(frames), half)
        # Outside of the handler: the traceback would keep the failed pass's tensors alive.
        first = self._begin(frames[:half], residents[:half])
        second = self._begin(frames[half:], residents[half:])
        return lambda: first() + second()

    def _resident(self, key: str) -> _Resident:
        resident = self._find(key)
        if resident is not None:
            return resident
        with self._load_lock:
            resident = self._find(key)  # another thread may have loaded it meanwhile
            if resident is None:
                bundle = self._load(key)
                resident = _Resident(bundle.manifest, self._backend.load(bundle), bundle.manifest.cover())
                self._keep(key, resident)
        return resident

    def _find(self, key: str) -> _Resident | None:
        with self._table_lock:
            if key in self._residents:
                self._residents.move_to_end(key)
            return self._residents.get(key)

    def _keep(self, key: str, resident: _Resident) -> None:
        with self._table_lock:
            self._residents[key] = resident
            total = sum(kept.bytes for kept in self._residents.values())
            while total > self._memory_limit_bytes and len(self._residents) > 1:
                _, evicted = self._residents.popitem(last=False)
                total -= evicted.bytes


def _pieces(index: int, frame: Frame, key: str, resident: _Resident, poses: dict[int, Pose]) -> list[Frame]:
    """What the network sees of a frame; notes the pose that was taken out of it. Raises ValueError."""
    preprocessing, cover = resident.manifest.preprocessing, resident.cover
    _check(index, frame, key, preprocessing)
    if preprocessing.exposure:
        frame = preprocessing.exposure.scaled(frame, cover.hidden if cover else None)
    if preprocessing.registration and preprocessing.registration.on:
        poses[index] = preprocessing.registration.pose(frame)
        frame = straightened(frame, poses[index])
    return parts(frame, preprocessing.size, preprocessing.tiles, cover)


def _judged(frame: Frame, resident: _Resident, maps: list[np.ndarray], pose: Pose | None) -> Scored:
    """maps: of its pieces, in their order."""
    manifest, cover = resident.manifest, resident.cover
    image_maps = whole(maps, frame, manifest.preprocessing.size, manifest.preprocessing.tiles, cover)
    if pose is not None:  # peaks stay as they are: they are calibrated where parts lie alike
        image_maps = np.stack([moved_along(image_maps[0], pose), *image_maps[1:]])
    ignored = cover.mask_HW if cover else None
    return scored(image_maps, manifest.calibration, frame.width, frame.height, ignored, manifest.evidence)


def _check(index: int, frame: Frame, key: str, preprocessing: Preprocessing) -> None:
    shape, size = frame.pixels.shape, preprocessing.size
    if preprocessing.tiles:
        if shape != (frame.height, frame.width, 3):
            raise ValueError(f"frame {index} has shape {shape}, {key} needs read_frame(data, {size}, tiled=True)")
    elif shape != (size, size, 3):
        raise ValueError(f"frame {index} has shape {shape}, {key} needs read_frame(data, {size})")
