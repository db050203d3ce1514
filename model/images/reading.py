"""What a product says of its images where the files themselves do not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BitDepth = Literal[8, 10, 12, 14, 16]


class Reading(BaseModel):
    """How a product's images are meant. Without a word of the product, a file has to say it by itself.

    bit_depth: bits of a sample that the camera fills, from the lowest up, whatever the container; an image that does
    not fit is refused. value_range: of float, signed and 32-bit samples, which value is black and which is white. page:
    which picture of a file with several, 1 is the first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bit_depth: BitDepth | None = Field(
        None, description="Bits of a sample that cameras fill, where 16-bit files don't say: 8, 10, 12, 14 or 16."
    )
    value_range: tuple[float, float] | None = Field(
        None, description="Of images with float, signed or 32-bit samples: the values of black and white."
    )
    page: int | None = Field(
        None, ge=1, description="Which picture of files that hold several pages, frames or views; 1 is the first."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Reading:
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"fit.value_range {list(self.value_range)}: black must be less than white")
        if self.value_range is not None and self.bit_depth is not None:
            raise ValueError(
                "fit.bit_depth is of 8 to 16-bit images and fit.value_range of float and 32-bit ones: set one of them"
            )
        return self


AS_THE_FILE_SAYS = Reading()
