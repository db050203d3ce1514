"""What past images and events say: read back, rescored, compared, reproduced."""
