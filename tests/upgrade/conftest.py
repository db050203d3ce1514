from tests.pipeline.environment import clean_environment

__all__ = ["clean_environment"]
