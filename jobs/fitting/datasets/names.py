"""What the names of folders and files say about the parts in them: good, defective, or masks.

People sort images into ``OK`` and ``NG``, and name files so. A folder one level too high would be fitted on with its
defective images as good ones, and nothing later could tell.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

# Whole words, in the languages of the lines that we know.
DEFECTIVE = {
    "ng", "nok", "ko", "bad", "nio", "notok", "notgood", "nogood", "dent", "dents", "dented", "crack", "cracks",
    "cracked", "hole", "holes", "stain", "stains", "stained", "fail", "fails", "failed", "failure", "failures",
    "fault", "faults", "faulty", "scrap", "scraps", "scrapped", "poke", "bent", "broken", "chip", "chips",
    "chipped", "missing", "wrong", "dirty", "deformed", "misaligned", "misprint", "leak", "leaks", "damage",
    "damages", "damaged", "torn", "burr", "burrs", "ausschuss", "schlecht", "schlechtteile", "fehler", "riss",
    "risse", "bruch", "kratzer", "kaputt", "rebut", "rebuts", "mauvais", "rayure", "rayures", "malo", "malos",
    "mala", "malas", "scarto", "scarti",
}  # fmt: skip
DEFECTIVE_STEMS = (
    "defect", "defekt", "anomal", "abnormal", "reject", "scratch", "contaminat", "blemish", "flaw", "beschäd",
    "beschaed", "difett", "defaut", "défaut", "rechaz", "nonconform",
)  # fmt: skip
DEFECTIVE_PARTS = (
    "不良", "缺陷", "次品", "异常", "異常", "欠陥", "불량", "брак", "дефект",
)  # fmt: skip
GOOD_WORDS = {
    "ok", "okay", "good", "io", "pass", "passed", "normal", "gut", "gutteile", "bon", "bons", "bonnes", "bueno",
    "buenos", "buono", "buoni", "conform", "train", "training", "良品", "合格", "正常", "양품", "норма",
}  # fmt: skip
NEGATIONS = {"no", "non", "not", "without", "free", "ohne", "sans", "zero"}
MASKS = {"groundtruth", "gt", "mask", "masks", "segmentation", "segmentations", "annotation", "annotations"}
CLEARLY_DEFECTIVE = {"ng", "nok", "bad", "nio"}
CLEARLY_DEFECTIVE_STEMS = ("defect", "defekt", "anomal", "reject")


def says_defective(name: str) -> bool:
    """Whether a folder's name is one of defective parts: NG, not_ok, Scratches2, bad-light."""
    words = _words(name)
    if "".join(words) in DEFECTIVE or any(part in name.lower() for part in DEFECTIVE_PARTS):
        return True
    if any(first in NEGATIONS and second in GOOD_WORDS for first, second in pairwise(words)):
        return True
    return not NEGATIONS & set(words) and any(_defective(word) for word in words)


def says_good(name: str) -> bool:
    """Whether a folder's name is one of good parts: OK, good, i.O., no_defects."""
    words = _words(name)
    if says_defective(name):
        return False
    return "".join(words) in GOOD_WORDS or bool(GOOD_WORDS & set(words)) or any(_defective(word) for word in words)


def says_masks(name: str) -> bool:
    """Whether a folder's name is one of masks: ground_truth, masks, gt."""
    return "".join(_words(name)) in MASKS


def clearly_says_defective(name: str) -> bool:
    """Whether a name begins or ends with a word that can mean nothing else: NG_001, 017-nok, parts-bad.

    Of the folder that a person gives, and of files that are all called so, other words may be a product's or a
    camera's: hole plates, the crack station.
    """
    words = _words(name)
    ends = {*words[:1], *words[-1:]}
    clear = any(word in CLEARLY_DEFECTIVE or word.startswith(CLEARLY_DEFECTIVE_STEMS) for word in ends)
    return clear and not NEGATIONS & set(words)


def files_that_say_defective(paths: Sequence[Path]) -> set[Path]:
    """Images that are called as if they showed defects, where others are not."""
    named = {path for path in paths if says_defective(path.stem)}
    return named if len(named) < len(paths) else {path for path in paths if clearly_says_defective(path.stem)}


def _defective(word: str) -> bool:
    return word in DEFECTIVE or word.startswith(DEFECTIVE_STEMS)


def _words(name: str) -> list[str]:
    """Its words in small letters; NotOk is two, and what is no letter parts them."""
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-zä-ü])(?=[A-Z])", " ", name).lower())
