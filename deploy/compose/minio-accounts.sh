#!/usr/bin/env bash
# Makes the bucket, leat's policy and its user; run again, it brings all up to date.
set -euo pipefail
export MC_CONFIG_DIR=/tmp/mc
mc alias set store http://minio:9000 "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD"
mc mb --ignore-existing store/documents
mc admin policy create store leat /init/minio-policy.json
mc admin user add store leat "$LEAT_S3_SECRET_KEY"
mc admin policy attach store leat --user leat ||
  mc admin user info store leat | grep -q 'PolicyName: leat' # attached already
