"""What is asked of a plan, and what it takes for granted: stated with every plan, and each can be told otherwise."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Demand(BaseModel):
    """fps: images a second of each camera. image_bytes: of an encoded image."""

    model_config = ConfigDict(frozen=True)

    products: int = Field(ge=1)
    cameras: int = Field(ge=1)
    fps: float = Field(gt=0)
    image_bytes: int = Field(ge=1)


class Assumptions(BaseModel):
    """Not measured. Descriptions are what a plan says of them; `--assume NAME=VALUE` tells otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    utilisation: float = Field(0.7, gt=0, lt=1, description="mean use of a replica's busiest stage")
    hottest: float = Field(0.9, gt=0, lt=1, description="use of the replica with the most cameras, at most")
    placement: Literal["hash", "even"] = Field(
        "hash", description="cameras on partitions: by the hash of their key, or evenly by their producers"
    )
    partitions_per_replica: int = Field(4, ge=2, le=1024, description="so that replicas may double, with two left each")
    replication: int = Field(3, ge=1, description="copies of each message")
    retention_days: float = Field(7, gt=0, description="images, events and masks on Kafka; linewatch's topics have 7")
    readers: int = Field(1, ge=0, description="systems that read all events and masks")
    broker_network_mb_s: float = Field(1250, gt=0, description="a broker's network, each way: 10 Gbit/s")
    broker_disk_mb_s: float = Field(400, gt=0, description="what a broker's disk writes for hours")
    broker_disk_tb: float = Field(8, gt=0, description="a broker's disk")
    broker_use: float = Field(0.5, gt=0, le=1, description="share of its network and writes that is planned with")
    broker_disk_use: float = Field(0.8, gt=0, le=1, description="share of its disk that may be full")
    broker_partitions: int = Field(4000, ge=1, description="copies of partitions on a broker")
    s3_get_s: float = Field(0.02, ge=0, description="seconds to fetch a claim-checked image from S3")
    s3_days: float = Field(7, gt=0, description="claim-checked images stay in S3 so long, by its lifecycle rule")
    good_images: int = Field(200, ge=10, description="good images that a product is fitted on")
    version_mb: float = Field(12, gt=0, description="a version's weights in S3, which keeps them all")
    fit_steps: int = Field(300, ge=1, description="steps of a fit")
    fits_per_week: float = Field(1, ge=0, description="fits of each product")
    gpu_utilisation: float = Field(
        0.8, gt=0, le=1, description="share of a GPU's time that its replicas' scoring takes"
    )
    replicas_per_gpu: int = Field(8, ge=1, description="at most, for each takes some of the GPU's memory")
    gpu_peak_share: float = Field(
        0.05, gt=0, le=1, description="of a GPU's published peak that scoring reaches, where it was not measured"
    )
    burst: float = Field(3, ge=1, description="a burst: so many times the rate")
    burst_s: float = Field(10, gt=0, description="and so long")
    rebalance_s: float = Field(0.3, ge=0, description="until partitions are in other hands, once the group knows")
    successor_s: float = Field(20, ge=0, description="until a dead or replaced replica's successor joins")
