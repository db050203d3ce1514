"""Secrets: from a variable or from a file that a variable names, and from nowhere else; never shown, never pickled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from pipeline.errors import SettingsError

SHOWN = "**********"
FILE = "_file"
MOST_BYTES = 65_536


class SecretFile(SecretStr):
    """A secret in a file, read at each use: who changes the file rotates it, and no process starts anew for that."""

    def __init__(self, name: str, path: str) -> None:
        """name: of the setting that names the file."""
        super().__init__("")
        self.name, self.path = name, path

    def get_secret_value(self) -> str:
        """Without the newline at its end.

        Raises:
            SettingsError: it can't be read, or nothing is in it.
        """
        try:
            with Path(self.path).open(encoding="utf-8") as file:
                value = file.read(MOST_BYTES).rstrip("\r\n")
        except OSError as error:
            raise SettingsError(f"{self.name}: {self.path} can't be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SettingsError(f"{self.name}: {self.path} is not UTF-8 text") from None
        if not value.strip():
            raise SettingsError(f"{self.name}: {self.path} is empty")
        return value

    def _display(self) -> str:
        return SHOWN

    def __len__(self) -> int:
        return len(self.get_secret_value())

    def __bool__(self) -> bool:
        return True  # it is set, whatever is in it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFile) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)


class Section(BaseModel):
    """Of settings. A field `x` that is a secret may be given as `x_file`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def secrets(cls) -> tuple[str, ...]:
        """Names of the fields that are."""
        return tuple(name for name, field in cls.model_fields.items() if SecretStr in get_args(field.annotation))

    @model_validator(mode="before")
    @classmethod
    def _from_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        found = dict(values)
        for name in cls.secrets():
            path = found.pop(name + FILE, None)
            if path is None:
                continue
            setting = f"{cls.__name__.lower()}.{name}"
            if found.get(name) is not None:
                raise ValueError(f"{setting} and {setting}{FILE} are both set: take one of them out")
            secret = SecretFile(setting + FILE, str(path))
            try:
                secret.get_secret_value()
            except SettingsError as error:
                raise ValueError(str(error)) from None
            found[name] = secret
        return found

    def public(self) -> dict[str, Any]:
        """Plain values without the secrets."""
        return self.model_dump(mode="json", exclude=set(self.secrets()))

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Self], tuple[dict[str, Any]]]:
        """A pickle is no place for a secret: whoever reads it has none, or that of its own environment."""
        return type(self).model_validate, (self.public(),)
