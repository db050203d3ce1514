"""What lies in S3 and under which keys: objects, claim checks, versions and champions."""
