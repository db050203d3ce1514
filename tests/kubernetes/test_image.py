"""docs/deploy.md with the image of `make image`, on one node: LINEWATCH_KUBE_IMAGE=archive.tar make kube-test.

The archive is one of `podman save` or `docker save`.
"""

import json
import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from infra.kubernetes.cluster.cluster import Cluster, why_not
from tests.kubernetes.line import ENVIRONMENT, TODAY, Line, until

ARCHIVE = os.environ.get("LINEWATCH_KUBE_IMAGE", "")
REASON = why_not() or (None if ARCHIVE else "no image: LINEWATCH_KUBE_IMAGE names no archive of one")
pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]


def test_the_page_brings_up_a_line_of_the_image() -> None:
    with tarfile.open(ARCHIVE) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (image,) = json.load(manifest)[0]["RepoTags"]
    with (
        tempfile.TemporaryDirectory(prefix="lk") as name,
        Cluster(Path(name), lambda told: print(told, flush=True), ENVIRONMENT, Path(ARCHIVE)) as cluster,  # noqa: T201
    ):
        Path(name).chmod(0o755)
        work = Path(name) / "work"
        work.mkdir()
        cluster.install_operator("kuberay")
        line = Line(cluster, work, image)
        line.start_stores()
        for heading in ("2. Accounts", "3. The line", "4. The first product", "5. The first images", "6. Every night"):
            print(line.follow(heading), flush=True)  # noqa: T201
        until(lambda: f"each of {TODAY} images has its outcome" in line.exec("audit").stdout, 120, "all are scored")
        assert line.kubectl("exec", "deploy/line-tools", "--", "id", "-u").strip() == "10001"
        with pytest.raises(RuntimeError, match="Read-only file system"):
            line.kubectl("exec", "deploy/line-tools", "--", "touch", "/opt/linewatch/x")
        line.follow("Away")
