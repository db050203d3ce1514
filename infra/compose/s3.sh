#!/bin/sh
# SeaweedFS, every part in one process. Its other parts (filer, master, volume) answer on the line's own network too. Keys come from files.
set -eu
AWS_ACCESS_KEY_ID=$(cat /run/secrets/s3_access_key)
AWS_SECRET_ACCESS_KEY=$(cat /run/secrets/s3_secret_key)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY GOMEMLIMIT="${GOMEMLIMIT:-400MiB}"
set -- -dir=/var/lib/s3 -ip=127.0.0.1 -ip.bind=0.0.0.0 \
    -filer.localSocket=/tmp/filer.sock -s3.localSocket=/tmp/s3.sock -s3.port.iceberg=0 -s3.port.lance=0 \
    -s3.allowDeleteBucketNotEmpty=false -s3.autoCreateBucket=false -master.telemetry=false -webdav=false -admin.ui=false
if [ -n "${SECURED:-}" ]; then
    # One port, and that https.
    set -- "$@" -s3.port=8334 -s3.port.https=8333 -s3.cert.file=/run/secrets/s3_cert -s3.key.file=/run/secrets/s3_key
else
    set -- "$@" -s3.port=8333
fi
exec weed -logtostderr=true mini "$@"
