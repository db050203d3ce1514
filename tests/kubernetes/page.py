"""The commands of a page, as a reader would type them."""

import re
from pathlib import Path


def commands(page: Path) -> dict[str, str]:
    """By heading (the last above it): what stands in blocks of `bash`. Blocks of `sh` are for the reader to fill in."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        blocks = re.findall(r"^```bash\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
        if blocks:
            found[heading] = "".join(blocks)
    return found
