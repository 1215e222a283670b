#!/usr/bin/env bash
# Makes leat's role and user; run again, it brings both up to date.
set -euo pipefail
put() { # put PATH FILE
  curl -fsS -u "elastic:$ELASTIC_PASSWORD" -H 'Content-Type: application/json' \
    -X PUT "http://elasticsearch:9200/$1" --data-binary "@$2"
  echo
}
put _security/role/leat /init/elasticsearch-role.json
put _security/user/leat - <<JSON
{"password": "$LEAT_ELASTIC_PASSWORD", "roles": ["leat"]}
JSON
