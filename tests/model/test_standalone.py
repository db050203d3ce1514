from __future__ import annotations

import subprocess
import sys

import model

FORBIDDEN = ("pipeline", "jobs", "infra", "ray", "kafka", "minio", "fastapi", "scipy", "sklearn", "pandas", "click")


def test_the_detector_imports_nothing_but_its_few_libraries() -> None:
    program = f"""
import sys, model
wanted = {FORBIDDEN!r}
print([name for name in wanted if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_exported_name_exists() -> None:
    assert sorted(model.__all__) == list(dict.fromkeys(sorted(model.__all__)))
    assert all(hasattr(model, name) for name in model.__all__)


def test_the_error_tree_is_as_drawn() -> None:
    assert issubclass(model.EmptyImage, model.ImageRejected)
    for error in (model.ImageRejected, model.WeightsError, model.BundleError, model.FitError):
        assert issubclass(error, model.ModelError)
