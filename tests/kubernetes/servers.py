"""Kafka and S3 on an address, with a product's model and pictures: a process of the cluster's own network.

    python -m tests.kubernetes.servers FOLDER HOST IMAGES

They run until the process ends. FOLDER/told.json says where they are once they do their work.
"""

import json
import os
import signal
import sys
from pathlib import Path

from infra.local import LocalServers
from pipeline.settings import Settings
from pipeline.storage.store import S3Store
from tests.pipeline.tiny import fitted, publish, texture

DIFFERENT = 40


def main(folder: Path, host: str, images: int) -> None:
    with LocalServers.start(folder / "servers", kafka="apache", s3="seaweedfs", host=host) as servers:
        told = {
            "kafka": servers.bootstrap_servers,
            "s3": f"http://{servers.s3_endpoint}",
            "access_key": servers.access_key,
            "secret_key": servers.secret_key,
        }
        s3 = {"endpoint": told["s3"], "access_key": told["access_key"], "secret_key": told["secret_key"]}
        store = S3Store(Settings.model_validate({"s3": s3}).s3)
        store.ensure_bucket()
        bundle = fitted()
        publish(store, bundle)
        told["product"] = bundle.manifest.product
        pictures = folder / "pictures"
        pictures.mkdir()
        for number in range(images):
            path = pictures / f"{number:05}.png"
            if number < DIFFERENT:
                path.write_bytes(texture(number, spot=number % 4 == 0))
            else:
                os.link(pictures / f"{number % DIFFERENT:05}.png", path)
        (folder / "told.part").write_text(json.dumps(told))
        (folder / "told.part").rename(folder / "told.json")
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
